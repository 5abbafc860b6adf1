"""What a search may be narrowed to, and how that is said to Milvus without pasting anyone's text.

A filter is structured: field by field, and every field must hold. Its values reach Milvus as quoted string
literals made here. (Milvus's own parameter templates are not understood by Lite.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_VALUE_CHARS = 512


def printable(value: str) -> str:
    """The value, if a filter can name it.

    Raises:
        ValueError: if it holds what no one can see.
    """
    if not value.isprintable():
        raise ValueError("must not hold control characters or line breaks")
    return value


Value = Annotated[str, Field(min_length=1, max_length=MAX_VALUE_CHARS), AfterValidator(printable)]


class TrackFilter(BaseModel):
    """Narrow a search; fields that are given must all hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: list[Value] = Field(
        default=[], max_length=16, description="The track carries all of these labels.", examples=[["genre:Reggae"]]
    )
    dataset: Value | None = Field(default=None, description="The track is of this data set.", examples=["demo"])
    artist: Value | None = Field(default=None, description="The track is by this artist.", examples=["Lena Moreau"])

    def expression(self) -> str:
        """The filter in Milvus's language; empty for no filter."""
        terms = [f"array_contains(labels, {_literal(label)})" for label in self.labels]
        if self.dataset is not None:
            terms.append(equals("dataset", self.dataset))
        if self.artist is not None:
            terms.append(equals("artist", self.artist))
        return " and ".join(terms)


def equals(field: str, value: str) -> str:
    """Rows with this value, in Milvus's language."""
    return f"{field} == {_literal(value)}"


def one_of(ids: Sequence[str], field: str = "track_id") -> str:
    """These rows, in Milvus's language; pymilvus's own way to name them quotes nothing inside an id."""
    return f"{field} in [{', '.join(map(_literal, ids))}]"


def _literal(value: str) -> str:
    """A string literal; the value was checked to be printable, so quote and backslash are all that matter."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

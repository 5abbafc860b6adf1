"""What a search may be narrowed to, and how that is said to Milvus without pasting anyone's text.

A filter is structured: field by field, and every field must hold. Its values reach Milvus as quoted string
literals made here. (Milvus's own parameter templates are not understood by Lite.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from mulan_core.data.names import MAX_BYTES, why_unwritable


def _askable(value: str, info: ValidationInfo) -> str:
    """The value, if anything that is kept may have it: older collections keep names that are refused by now."""
    refused, most = why_unwritable(value), MAX_BYTES[str(info.field_name)]
    if not refused and len(value.encode()) > most:
        refused = f"no name has over {most:,} bytes"
    if refused:
        raise ValueError(refused)
    return value


Value = Annotated[str, Field(min_length=1), AfterValidator(_askable)]


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
        terms = [carries(label) for label in self.labels]
        if self.dataset is not None:
            terms.append(equals("dataset", self.dataset))
        if self.artist is not None:
            terms.append(equals("artist", self.artist))
        return " and ".join(terms)


def carries(label: str) -> str:
    """Rows with this label, in Milvus's language."""
    return f"array_contains(labels, {_literal(label)})"


def equals(field: str, value: str) -> str:
    """Rows with this value, in Milvus's language."""
    return f"{field} == {_literal(value)}"


def begins(field: str, letters: str) -> str:
    """Rows with a value that begins so, in Milvus's language; for letters that mean themselves in its patterns."""
    return f"{field} like {_literal(letters + '%')}"


def after(field: str, value: str) -> str:
    """Rows with a greater value, in Milvus's language."""
    return f"{field} > {_literal(value)}"


def up_to(field: str, value: str) -> str:
    """Rows with this value or a lesser one, in Milvus's language."""
    return f"{field} <= {_literal(value)}"


def one_of(ids: Sequence[str], field: str = "track_id") -> str:
    """These rows, in Milvus's language; pymilvus's own way to name them quotes nothing inside an id."""
    return f"{field} in [{', '.join(map(_literal, ids))}]"


def _literal(value: str) -> str:
    """A string literal; it was checked for control characters, so quote and backslash are all that matter."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

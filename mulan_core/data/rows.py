"""A row of a manifest or of playlists, cell by cell: what is right becomes a row of ours, what is wrong is told.

A cell that cannot be used is one clause, so that all that is wrong with a row stands in one sentence.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from mulan_core.config import SOURCES
from mulan_core.data.names import labels_of, unescaped, why_misnamed
from mulan_core.data.tables import Problems, unencodable
from mulan_core.data.tags import MAX_TAG_WORDS
from mulan_core.errors import without_secrets
from mulan_core.ranges import Range, comma_advice
from mulan_core.text.filters import DEFAULTS
from mulan_core.text.music_score import words_of

T = TypeVar("T")

SPLITS = ("train", "valid", "test")

SMALL = 500
"""With fewer tracks chance alone may leave too few for a test."""

LIST_MARKS = re.compile(r"[,;|\n、，；]")
"""What stands between the tags of a list that somebody typed."""

MAX_SECONDS = 1e7
"""Of a segment's begin and length: a third of a year."""
_BETWEEN_QUOTES = re.compile(r"(?<=['\"])\s+(?=['\"])")
"""What numpy prints between two texts, which Python would join."""

_Seconds = Annotated[float, Range(ge=0)]


class _RowError(Exception):
    """One thing that is wrong with a row; becomes part of a UserError."""


class Cells:
    """A row whose cells are taken one by one; what is wrong with each is kept, so that all of it can be told."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        reasons = {name: unencodable(value) for name, value in row.items()}
        self._row, self._broken = row, {name for name, reason in reasons.items() if reason}
        self.wrong = [f"column {name!r}: {reason}" for name, reason in reasons.items() if reason]

    def take(self, read: Callable[[Mapping[str, Any], str], T], name: str) -> T | None:
        """The value of a column; None where it is wrong."""
        if name in self._broken:
            return None
        try:
            return read(self._row, name)
        except _RowError as error:
            self.wrong.append(f"column {name!r}: {error}")
            return None

    def is_given(self, name: str) -> bool:
        """Whether the row says something there, right or wrong."""
        return self._row.get(name) not in (None, "")


@dataclass
class RowCheck:
    """Callable: a row as found in, the row of a manifest out; None where it is bad, which goes to the problems."""

    dataset: str
    refuse: Callable[[str], str | None]
    problems: Problems
    split: str | None = None
    """Of tracks without one; None takes one by their hash."""
    place: Callable[[str], str] = str
    """Where a uri is read; the id of a track follows from what the table says."""

    def __post_init__(self) -> None:
        self._seen: dict[bytes, int] = {}
        self.hashed: set[str] = set()
        """Ids of tracks whose split nobody gave; of a catalogue that is not small, some of them."""

    def __call__(self, number: int, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Check the row of this number."""
        cells = Cells(row)
        checked = _check_row(cells, self.dataset, self.split)
        if checked["uri"]:
            checked["uri"] = self.place(checked["uri"])
            if refused := self.refuse(checked["uri"]):
                cells.wrong.append(f"column 'uri': {refused}")
        if track_id := checked["track_id"]:  # of a bad row too: whoever mends it must not find its id taken
            digest = hashlib.blake2b(track_id.encode(), digest_size=8).digest()
            cells.wrong += repeated(track_id, number, self._seen, digest)
        if cells.wrong:
            self.problems.add(number, *cells.wrong)
            return None
        if self.split is None and not cells.is_given("split") and len(self.hashed) < SMALL:
            self.hashed.add(checked["track_id"])
        return checked


def repeated(value: str, number: int, seen: dict[Any, int], key: Any = None) -> list[str]:
    """What is wrong with an id that an earlier row has; the first row of each is kept in ``seen``."""
    first = seen.setdefault(value if key is None else key, number)
    return [] if first == number else [f"id {value!r} stands in row {first} and again in row {number}"]


def _check_row(cells: Cells, dataset: str, split: str | None) -> dict[str, Any]:
    """The row of a manifest, as far as its cells are right."""
    uri = cells.take(_required, "uri")
    start_s, duration_s = cells.take(_number, "start_s"), cells.take(_number, "duration_s")
    track_id = cells.take(_track_id, "track_id")
    if uri and not cells.is_given("track_id"):
        track_id = default_id(uri, start_s, duration_s)
    texts = cells.take(_texts, "texts") or []
    if plain := cells.take(_text, "text"):
        texts += typed_texts(plain)
    cells.take(_name, "artist")  # carried along as it is, and shown
    return {
        "track_id": track_id,
        "uri": uri,
        "start_s": start_s,
        "duration_s": duration_s,
        "split": cells.take(_split, "split") or split or hashed_split(track_id or ""),
        "dataset": cells.take(_name, "dataset") or dataset,
        "title": cells.take(_name, "title"),
        "texts": texts,
        "labels": cells.take(_labels, "labels"),
        "license": cells.take(_text, "license"),
        "sha256": cells.take(_text, "sha256"),
    }


def default_id(uri: str, start_s: float | None, duration_s: float | None) -> str:
    """The id of a track that was given none: a hash of its file, and of its segment where it is not the whole file."""
    segment = f"#t={start_s or 0.0!r},{duration_s or None!r}" if start_s or duration_s else ""
    return hashlib.sha256(f"{uri}{segment}".encode()).hexdigest()[:16]


def typed_texts(value: str) -> list[dict[str, str]]:
    """What the column ``text`` holds, by source, so that nothing is dropped for its length alone.

    As many words as SF may have are SF, as they stand. More of them are a list, whose parts are SF each, where no part
    has more than three words; else they are a sentence, which is LF.

    >>> typed_texts("calm piano, rainy evening")
    [{'source': 'sf', 'text': 'calm piano, rainy evening'}]
    >>> [text["source"] for text in typed_texts("A slow waltz for the piano, recorded on a rainy evening.")]
    ['lf']

    A list in the text, as Python or JSON writes one, is so many texts.

    >>> [text["text"] for text in typed_texts("['calm piano', 'lo-fi']")]
    ['calm piano', 'lo-fi']
    """
    if value.startswith("[") and value.rstrip().endswith("]"):
        listed = _literal(value)
        if isinstance(listed, list) and listed and all(isinstance(part, str) for part in listed):
            return [text for part in listed if part for text in typed_texts(part)]
    value = unescaped(value)
    if len(words_of(value)) <= DEFAULTS.max_sf_words:
        return [{"source": "sf", "text": value}]
    parts = [part.strip() for part in LIST_MARKS.split(value) if part.strip()]
    if all(len(part.split()) <= MAX_TAG_WORDS for part in parts):
        return [{"source": "sf", "text": part} for part in parts]
    return [{"source": "lf", "text": value}]


def check_playlist(cells: Cells) -> dict[str, Any]:
    """The row of a table of playlists, as far as its cells are right."""
    return {
        "playlist_id": cells.take(_required_id, "playlist_id"),
        "title": cells.take(_required, "title"),
        "description": cells.take(_text, "description"),
        "track_ids": cells.take(_ids, "track_ids"),
        "split": cells.take(_split, "split") or "test",
    }


def hashed_split(track_id: str) -> str:
    """A split for a track without one, by a hash of its id: 80 % train, 10 % valid, 10 % test."""
    bucket = hash_of(track_id) % 10
    return "test" if bucket == 0 else "valid" if bucket == 1 else "train"


def hash_of(track_id: str) -> int:
    """The number by which a track's split is chosen, the same on every machine."""
    return int(hashlib.sha256(track_id.encode()).hexdigest(), 16)


def _required(row: Mapping[str, Any], name: str) -> str:
    value = _text(row, name)
    if not value:
        raise _RowError("a value is required")
    return value


def _split(row: Mapping[str, Any], name: str) -> str | None:
    split = _text(row, name)
    if split and split not in SPLITS:
        raise _RowError(f"{split!r} is not one of {', '.join(SPLITS)}")
    return split


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value
    raise _RowError(f"expected text, got {_shown(value)}")


def _name(row: Mapping[str, Any], name: str) -> str | None:
    """Text that a track is called by, under the rule of ``names``."""
    value = _text(row, name)
    refused = why_misnamed(name, value) if value else None
    if refused:
        raise _RowError(refused)
    return value


def _track_id(row: Mapping[str, Any], name: str) -> str | None:
    return _name({name: _written_id(row.get(name))}, name)


def _required_id(row: Mapping[str, Any], name: str) -> str:
    return _required({name: _written_id(row.get(name))}, name)


def _ids(row: Mapping[str, Any], name: str) -> list[str]:
    value = row.get(name)
    return _strings({name: list(map(_written_id, value)) if isinstance(value, list) else value}, name)


def _written_id(value: Any) -> Any:
    """An id as text where it is a UUID or a whole number; pandas makes 7 a 7.0 where another row has none."""
    if isinstance(value, uuid.UUID):
        return str(value)
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
    return str(int(value)) if is_whole else value


def _labels(row: Mapping[str, Any], name: str) -> list[str]:
    value = row.get(name)
    if isinstance(value, str) and not value.startswith("["):
        value = unescaped(value)  # before it is cut at semicolons
    try:
        return labels_of(map(unescaped, _strings({name: value}, name)))
    except ValueError as error:
        raise _RowError(str(error)) from error


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= MAX_SECONDS:
        raise _RowError(f"expected seconds (a number from 0), got {_shown(value)}{comma_advice(_Seconds, value)}")
    return number


def _strings(row: Mapping[str, Any], name: str) -> list[str]:
    value = row.get(name)
    if value is None:
        return []
    if isinstance(value, str):
        # A cell of a CSV file: a list as JSON or Python writes it, or names split at bars or semicolons, with the rule
        # of names for each.
        is_json = value.startswith("[")
        value = _json_cell(value, '["a", "b"] or a|b') if is_json else value.replace(";", "|").split("|")
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [item for item in value if item]
    raise _RowError(f"expected a list of text, got {_shown(value)}")


def _texts(row: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    value = row.get(name)
    if value is None:
        return []
    if isinstance(value, str):
        value = _json_cell(value, '[{"source": "sf", "text": "calm piano"}]')
    if not isinstance(value, list):
        raise _RowError(f"expected a list of {{source, text}}, got {_shown(value)}")
    texts = []
    for item in value:
        source, text = (item.get("source"), item.get("text")) if isinstance(item, dict) else (None, None)
        if source not in SOURCES or not isinstance(text, str):
            sources = ", ".join(SOURCES)
            raise _RowError(f"expected {{source, text}} with source in {sources}, got {_shown(item)}")
        texts.append({"source": source, "text": text})
    return texts


def _literal(value: str) -> Any:
    """What Python or numpy has printed; None for anything else."""
    try:
        return ast.literal_eval(_BETWEEN_QUOTES.sub(", ", value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two of brackets nested too deeply
        return None


def _json_cell(value: str, example: str) -> Any:
    """What the JSON in a cell holds."""
    try:
        content = json.loads(value)
    except json.JSONDecodeError as error:
        content = _literal(value)
        if content is None:
            raise _RowError(
                f"{_shown(value)} is not valid JSON from character {error.pos + 1} on; write {example}"
            ) from error
    except (ValueError, RecursionError) as error:
        raise _RowError(f"{_shown(value)} has a number too long, or is nested too deeply") from error
    if refused := unencodable(content):
        raise _RowError(refused)
    return content


def _shown(value: Any) -> str:
    shown = repr(without_secrets(value) if isinstance(value, str) else value)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."

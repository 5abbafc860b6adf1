"""The manifest: the table of tracks, one row a track.

Reads Parquet, CSV, TSV and JSONL, checks every row, and always hands back the same Arrow columns.
Columns we do not know are carried along; a wrong type is refused with its row and column. The least
a manifest needs is two columns: ``uri`` and ``text`` (or ``texts``).
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mulan_core.config import SOURCES
from mulan_core.errors import UserError

SPLITS = ("train", "valid", "test")

TEXT = pa.struct([("source", pa.string()), ("text", pa.string())])

SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("start_s", pa.float64()),
        pa.field("duration_s", pa.float64()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("texts", pa.list_(TEXT), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("license", pa.string()),
        pa.field("sha256", pa.string()),
    ]
)
"""Columns of a manifest, in order (DESIGN: data contracts)."""

PLAYLIST_SCHEMA = pa.schema(
    [
        pa.field("playlist_id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("description", pa.string()),
        pa.field("track_ids", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""Columns of a playlists table."""


def read_manifest(path: str | Path) -> pa.Table:
    """Read and check a manifest.

    Args:
        path: a ``.parquet``, ``.csv``, ``.tsv``, ``.jsonl`` or ``.ndjson`` file.

    Returns:
        A table that starts with the columns of ``SCHEMA``; unknown columns follow as they came.
        Missing optional values are filled: ``track_id`` from the uri, ``split`` from a hash of the
        track id (80/10/10), ``dataset`` from the file's name, a plain ``text`` column as source ``sf``.

    Raises:
        UserError: missing file, no rows, missing or wrongly typed values (with row and column),
            repeated track ids.
    """
    path = Path(path)
    rows = _read_rows(path)
    if not rows:
        raise UserError(f"the manifest {path} has no rows; it needs at least one track (columns uri and text)")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if "uri" not in columns:
        raise UserError(f"the manifest {path} has no column 'uri'; found: {', '.join(columns)}")
    extra = [name for name in columns if name not in SCHEMA.names and name != "text"]
    checked = [_check_row(row, number, path) for number, row in enumerate(rows, start=1)]
    _check_unique([str(row["track_id"]) for row in checked], path)
    table = pa.Table.from_pylist(checked, schema=SCHEMA)
    for name in extra:
        try:
            table = table.append_column(name, pa.array([row.get(name) for row in rows]))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UserError(f"{path}: column {name!r} mixes types; give one type: {error}") from error
    return table


def read_playlists(path: str | Path) -> pa.Table:
    """Read and check a table of playlists (Parquet or JSONL with the columns of ``PLAYLIST_SCHEMA``).

    Raises:
        UserError: missing file, missing columns or wrong types, with row and column.
    """
    path = Path(path)
    rows = []
    for number, row in enumerate(_read_rows(path), start=1):
        where = f"{path}, row {number}"
        split = _text(row, "split", where) or "test"
        if split not in SPLITS:
            raise UserError(f"{where}, column 'split': {split!r} is not one of {', '.join(SPLITS)}")
        rows.append(
            {
                "playlist_id": _required(row, "playlist_id", where),
                "title": _required(row, "title", where),
                "description": _text(row, "description", where),
                "track_ids": _strings(row, "track_ids", where),
                "split": split,
            }
        )
    _check_unique([str(row["playlist_id"]) for row in rows], path)
    return pa.Table.from_pylist(rows, schema=PLAYLIST_SCHEMA)


def locate(uri: str, manifest: str | Path) -> str:
    """Where a track's audio is: a relative uri starts at the manifest's folder, others stand as they are."""
    if "://" in uri or Path(uri).is_absolute():
        return uri
    return str(Path(manifest).resolve().parent / uri)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"there is no file {path}; give the path of a .parquet, .csv, .tsv or .jsonl table")
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]
        if kind in (".csv", ".tsv"):
            with path.open(encoding="utf-8-sig", newline="") as lines:
                return list(_csv_rows(csv.DictReader(lines, delimiter="\t" if kind == ".tsv" else ","), path))
        if kind in (".jsonl", ".ndjson"):
            with path.open(encoding="utf-8-sig") as lines:
                return [_json_row(line, number, path) for number, line in enumerate(lines, start=1) if line.strip()]
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} as {kind[1:]}: {error}") from error
    raise UserError(f"{path} has the ending {kind or 'none'!r}; a table must be .parquet, .csv, .tsv or .jsonl")


def _csv_rows(reader: csv.DictReader[str], path: Path) -> Iterable[dict[str, Any]]:
    for number, row in enumerate(reader, start=1):
        if None in row:
            raise UserError(f"{path}, row {number}: more cells than the header has columns")
        yield {key: value for key, value in row.items() if value not in (None, "")}


def _json_row(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: not valid JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number}: must be one JSON object a line")
    return row


def _check_row(row: Mapping[str, Any], number: int, path: Path) -> dict[str, Any]:
    where = f"{path}, row {number}"
    uri = _required(row, "uri", where)
    track_id = _text(row, "track_id", where) or hashlib.sha256(uri.encode()).hexdigest()[:16]
    split = _text(row, "split", where) or hashed_split(track_id)
    if split not in SPLITS:
        raise UserError(f"{where}, column 'split': {split!r} is not one of {', '.join(SPLITS)}")
    texts = _texts(row, where)
    plain = _text(row, "text", where)
    if plain:
        texts.append({"source": "sf", "text": plain})
    return {
        "track_id": track_id,
        "uri": uri,
        "start_s": _number(row, "start_s", where),
        "duration_s": _number(row, "duration_s", where),
        "split": split,
        "dataset": _text(row, "dataset", where) or path.stem,
        "title": _text(row, "title", where),
        "texts": texts,
        "labels": _strings(row, "labels", where),
        "license": _text(row, "license", where),
        "sha256": _text(row, "sha256", where),
    }


def hashed_split(track_id: str) -> str:
    """A split for a track without one, by a hash of its id: 80 % train, 10 % valid, 10 % test."""
    bucket = int(hashlib.sha256(track_id.encode()).hexdigest(), 16) % 10
    return "test" if bucket == 0 else "valid" if bucket == 1 else "train"


def _required(row: Mapping[str, Any], name: str, where: str) -> str:
    value = _text(row, name, where)
    if not value:
        raise UserError(f"{where}, column {name!r}: a value is required")
    return value


def _text(row: Mapping[str, Any], name: str, where: str) -> str | None:
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value
    raise UserError(f"{where}, column {name!r}: expected text, got {value!r}")


def _number(row: Mapping[str, Any], name: str, where: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number < float("inf"):
        raise UserError(f"{where}, column {name!r}: expected seconds (a number from 0), got {value!r}")
    return number


def _strings(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    value = row.get(name)
    if value is None:
        return []
    if isinstance(value, str):
        # A cell of a CSV file: a JSON list, or names split at bars or semicolons.
        value = _json_cell(value, name, where) if value.startswith("[") else value.replace(";", "|").split("|")
        value = [item.strip() if isinstance(item, str) else item for item in value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [item for item in value if item]
    raise UserError(f"{where}, column {name!r}: expected a list of text, got {value!r}")


def _texts(row: Mapping[str, Any], where: str) -> list[dict[str, str]]:
    value = row.get("texts")
    if value is None:
        return []
    if isinstance(value, str):
        value = _json_cell(value, "texts", where)
    if not isinstance(value, list):
        raise UserError(f"{where}, column 'texts': expected a list of {{source, text}}, got {value!r}")
    texts = []
    for item in value:
        source, text = (item.get("source"), item.get("text")) if isinstance(item, dict) else (None, None)
        if source not in SOURCES or not isinstance(text, str):
            known = ", ".join(SOURCES)
            raise UserError(f"{where}, column 'texts': expected {{source, text}} with source in {known}, got {item!r}")
        texts.append({"source": source, "text": text})
    return texts


def _json_cell(value: str, name: str, where: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}, column {name!r}: not a JSON list ({error.msg})") from error


def _check_unique(ids: list[str], path: Path) -> None:
    seen: dict[str, int] = {}
    for number, value in enumerate(ids, start=1):
        if value in seen:
            raise UserError(f"{path}: id {value!r} stands in row {seen[value]} and again in row {number}")
        seen[value] = number

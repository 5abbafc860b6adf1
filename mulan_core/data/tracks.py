"""The manifest: the table of tracks, one row a track.

Reads Parquet, CSV, TSV, JSONL or a plain folder of audio, from this machine or a URL, checks every row, and always
hands back the same Arrow columns. Columns we do not know are carried along; wrong rows are refused together,
with their numbers. The least a manifest needs is two columns: ``uri`` and ``text`` (or ``texts``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from mulan_core.data.columns import check_columns, notes_of_columns
from mulan_core.data.folder import read_folder
from mulan_core.data.listing import ARCHIVES
from mulan_core.data.names import clean_name
from mulan_core.data.places import Places, remedy_of_elsewhere, why_windows
from mulan_core.data.rows import SMALL, Cells, RowCheck, check_playlist, hash_of, repeated
from mulan_core.data.tables import Chunk, Problems, Table, open_table, unencodable
from mulan_core.data.uris import is_folder, root_of, why_refused
from mulan_core.errors import UserError

T = TypeVar("T")

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


@dataclass(frozen=True)
class Manifest:
    """An open manifest whose rows stream."""

    schema: pa.Schema
    """The columns of ``SCHEMA``, then those that are carried along."""
    batches: Iterator[pa.RecordBatch]
    """The good rows, in order. Behind the last of them a UserError tells of the bad ones, unless the caller collects
    them."""
    root: str
    """Where relative uris start."""
    left_out: dict[str, Any] | None
    """Of a folder what it holds besides audio; see ``listing.Listing``."""
    notes: list[str]
    """Sentences about columns that are carried along, though one of ours was likely meant."""


@contextmanager
def open_manifest(
    path: str | Path,
    *,
    problems: Problems | None = None,
    allow_outside: bool = True,
    allow_private: bool = True,
    split: str | None = None,
    moved: Mapping[str, str] | None = None,
) -> Iterator[Manifest]:
    """Open and check a manifest without holding its rows.

    Missing optional values are filled: ``track_id`` from the uri, ``split`` from a hash of the track id (80/10/10;
    of fewer than 500 tracks at least a tenth are test and a tenth valid),
    ``dataset`` from the file's name, the column ``text`` by ``typed_texts``. What grows with the number of rows is
    eight bytes of each id, to find those that come twice.

    Args:
        path: a ``.parquet``, ``.csv``, ``.tsv``, ``.jsonl`` or ``.ndjson`` file, or a folder of audio; or a URL of
            one.
        problems: collects the bad rows instead of an error at the end.
        allow_outside: take local paths outside the manifest's folder. The commands ask the user; a table of our own
            making was judged when it came in.
        allow_private: take URLs of addresses that are not public. The same holds.
        split: the split of tracks without one, instead of one by their hash.
        moved: folders of other machines, and where they lie here; those may be outside the manifest's folder.

    Raises:
        UserError: missing file, no rows, no column ``uri``; and, after the last batch, bad rows and repeated ids.
    """
    collected = problems or Problems(str(path))
    root = root_of(path)
    with _open_rows(path, collected, allow_private=allow_private) as table:
        names, types = _stated_columns(path, table)
        if table.schema is None and not table.columns:  # JSONL: only a pass over the rows tells the types
            unread = Problems(str(path))
            with _open_rows(path, unread, allow_private=allow_private) as first_pass:
                names, types = _infer_columns(path, first_pass, unread)
        schema = pa.schema([*SCHEMA, *(pa.field(name, types[name]) for name in names if name in types)])
        places = Places(root, moved or {})

        def refuse(uri: str) -> str | None:
            outside = allow_outside or places.allows(uri)
            if reason := why_windows(uri) or why_refused(uri, root, allow_outside=outside, allow_private=allow_private):
                return reason + (remedy_of_elsewhere(uri) if "lies outside" in reason else "")
            return None

        dataset = clean_name("dataset", Path(str(path).rstrip("/")).stem) or "catalogue"
        check = RowCheck(dataset=dataset, refuse=refuse, problems=collected, split=split, place=places)
        batches = _checked(table, schema, check, strict=problems is None)
        notes = notes_of_columns(names) if table.left_out is None else []
        yield Manifest(schema, _with_enough_tests(batches, check.hashed), root, table.left_out, notes)


def read_manifest(path: str | Path, *, allow_outside: bool = True, allow_private: bool = True) -> pa.Table:
    """Read and check a whole manifest; see ``open_manifest``.

    Raises:
        UserError: as ``open_manifest``.
    """
    with open_manifest(path, allow_outside=allow_outside, allow_private=allow_private) as manifest:
        return pa.Table.from_batches(manifest.batches, manifest.schema)


def read_playlists(path: str | Path) -> pa.Table:
    """Read and check a table of playlists (Parquet or JSONL with the columns of ``PLAYLIST_SCHEMA``).

    Raises:
        UserError: missing file, missing columns or wrong types, with row and column.
    """
    problems = Problems(str(path))
    rows, seen, last = [], dict[str, int](), 0
    with open_table(path, problems, wanted=PLAYLIST_SCHEMA.names) as table:
        for chunk in table.chunks:
            for number, row in zip(chunk.numbers, chunk.rows, strict=True):
                last, cells = number, Cells(row)
                rows.append(check_playlist(cells))
                if playlist_id := rows[-1]["playlist_id"]:
                    cells.wrong += repeated(playlist_id, number, seen)
                if cells.wrong:
                    problems.add(number, *cells.wrong)
    problems.raise_any(max(last, problems.last))
    return pa.Table.from_pylist(rows, schema=PLAYLIST_SCHEMA)


@contextmanager
def _open_rows(path: str | Path, problems: Problems, *, allow_private: bool) -> Iterator[Table]:
    if is_folder(path):
        yield read_folder(path, allow_private=allow_private)
        return
    if ARCHIVES.search(str(path)):
        raise UserError(f"{path} is an archive; unpack it first, and give the folder or the table in it")
    with open_table(path, problems, wanted=[*SCHEMA.names, "text", "artist"]) as table:
        yield table


def _stated_columns(path: str | Path, table: Table) -> tuple[list[str], dict[str, pa.DataType]]:
    """Names of the columns, and types of those that are carried along, as the table states them."""
    if table.columns:
        check_columns(path, table.columns)
    carried = [name for name in table.columns if name not in SCHEMA.names and name != "text"]
    schema = table.schema
    return table.columns, {name: schema.field(name).type if schema else pa.string() for name in carried}


def _infer_columns(path: str | Path, table: Table, problems: Problems) -> tuple[list[str], dict[str, pa.DataType]]:
    columns: dict[str, pa.DataType] = {}
    names: dict[str, None] = {}
    for chunk in table.chunks:
        names |= dict.fromkeys(name for row in chunk.rows for name in row)
        for name in names:
            if name in SCHEMA.names or name == "text":
                continue
            values = [row.get(name) for row in chunk.rows]
            try:
                seen = pa.schema([pa.field("x", columns.get(name, pa.null()))])
                more = pa.schema([pa.field("x", pa.array([None if unencodable(v) else v for v in values]).type)])
                columns[name] = pa.unify_schemas([seen, more], promote_options="permissive").field("x").type
            except (pa.ArrowException, OverflowError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise UserError(f"{path}: column {name!r} mixes types; give one type: {reason}") from error
    if not names:
        problems.raise_any(problems.last)
        raise UserError(f"the manifest {path} has no rows; it needs at least one track (columns uri and text)")
    check_columns(path, list(names))
    return list(names), columns


def _checked(table: Table, schema: pa.Schema, check: RowCheck, *, strict: bool) -> Iterator[pa.RecordBatch]:
    last = num_good = 0
    for chunk in table.chunks:
        last = chunk.numbers[-1]
        good, rows = [], []
        for index, (number, row) in enumerate(zip(chunk.numbers, chunk.rows, strict=True)):
            checked = check(number, row)
            if checked is not None:
                good.append(index)
                rows.append(checked)
        num_good += len(rows)
        if rows:
            yield _batch(chunk, good, rows, schema)
    problems = check.problems
    last = max(last, problems.last)
    if not last:
        raise UserError(
            f"the manifest {problems.table} has no rows; it needs at least one track (columns uri and text)"
        )
    if strict:
        problems.raise_any(last)


def _with_enough_tests(batches: Iterator[pa.RecordBatch], hashed: set[str]) -> Iterator[pa.RecordBatch]:
    """The batches; those of a small catalogue with a tenth of its tracks in ``test`` and ``valid`` each, at least.

    By the hash alone 120 tracks may have 4 test tracks. What is missing is taken from the training tracks whose split
    nobody gave, in the order of their hashes, so that the same tracks always have the same splits.
    """
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += len(batch)
        if rows >= SMALL:
            yield from held
            yield from batches
            return
    ids = [track_id for batch in held for track_id in batch["track_id"].to_pylist()]
    splits = dict(zip(ids, [split for batch in held for split in batch["split"].to_pylist()], strict=True))
    free = sorted((i for i in ids if i in hashed and splits[i] == "train"), key=hash_of, reverse=True)
    for split in ("test", "valid"):
        for _ in range(rows // 10 - sum(assigned == split for assigned in splits.values())):
            if free:
                splits[free.pop()] = split
    for batch in held:
        column = pa.array([splits[track_id] for track_id in batch["track_id"].to_pylist()], pa.string())
        yield batch.set_column(batch.schema.get_field_index("split"), SCHEMA.field("split"), column)


def _batch(chunk: Chunk, good: list[int], rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array([row[name] for row in rows], SCHEMA.field(name).type) for name in SCHEMA.names]
    for field in list(schema)[len(SCHEMA) :]:
        if chunk.batch is not None:
            arrays.append(chunk.batch.column(field.name).take(pa.array(good)))
        else:
            arrays.append(pa.array([chunk.rows[index].get(field.name) for index in good], field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)

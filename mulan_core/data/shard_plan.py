"""The plan: which track goes into which shard, a pure function of the manifest.

Every track id has a place, a hash of 64 bits. A split has a power of two of shards, by its size; the first bits of the
place choose the shard, and in a shard tracks stand in order of place. So a track more or less changes one shard, and
what a catalogue was before leaves no trace. Planning sorts the manifest on disk: memory holds one part of it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mulan_core.config import PrepareConfig
from mulan_core.data.rows import SPLITS
from mulan_core.data.tracks import open_manifest
from mulan_core.data.uris import locate
from mulan_core.errors import UserError

FLAC_BYTES_PER_SAMPLE = 1.3
"""What 16-bit music takes in FLAC, to plan the size of shards."""
PART_ROWS = 16_384
"""Rows that are sorted in memory at once, about."""
MAX_PARTS = 256
"""Files open at once while the manifest is dealt to parts."""

_NAME = re.compile(r"shard-(\d+)-of-(\d+)\.parquet")


@dataclass(frozen=True)
class Shard:
    """A shard to be: one of a power of two in its split."""

    split: str
    index: int
    total: int

    @property
    def path(self) -> Path:
        """Where it lies within a prepared folder."""
        return Path(self.split) / f"shard-{self.index:05d}-of-{self.total:05d}.parquet"

    def holds(self, track_id: str) -> bool:
        """True if a track of this split belongs here."""
        return place_of(track_id) * self.total >> 64 == self.index

    def overlapping(self, counts: set[int]) -> list[Shard]:
        """The shards that share tracks with this one where a split was cut into other numbers of shards."""
        shards = []
        for total in sorted(counts):
            first, last = self.index * total // self.total, ((self.index + 1) * total - 1) // self.total
            shards += [Shard(self.split, index, total) for index in range(first, last + 1)]
        return shards


def place_of(track_id: str) -> int:
    """A track's place, 0 to 2**64 - 1; the same everywhere and always."""
    return int.from_bytes(hashlib.blake2b(track_id.encode(), digest_size=8).digest(), "big")


def shard_counts(folder: Path) -> dict[str, set[int]]:
    """Into how many shards each split of a folder is cut; more than one number after a run that was cut off."""
    counts: dict[str, set[int]] = {}
    for split in SPLITS:
        names = (_NAME.fullmatch(path.name) for path in (folder / split).glob("shard-*.parquet"))
        counts[split] = {int(name[2]) for name in names if name}
    return counts


def plan_shards(manifest: Path, folder: Path, config: PrepareConfig, *, texts: Path | None = None) -> list[Shard]:
    """Sort a manifest into one file a shard.

    Args:
        manifest: a checked manifest.
        folder: takes the files, at each shard's path: the rows of the manifest with a column ``media_path``, the
            located uri; and, with ``texts``, the judged texts in place of the found ones.
        config: length of clips and size of shards.
        texts: a table with a row for each track: ``track_id``, ``texts`` with source, text, drop.

    Returns:
        All shards of all splits, those without a track too.

    Raises:
        UserError: for a wrong manifest, or a table of texts that lacks a track.
    """
    shutil.rmtree(folder, ignore_errors=True)
    parts = folder / "parts"
    num_parts = _power_of_two(min(MAX_PARTS, max(1, pq.read_metadata(manifest).num_rows // PART_ROWS)))
    with open_manifest(manifest) as opened:
        root, sizes = opened.root, _deal(opened.schema, opened.batches, parts / "tracks", num_parts)
    if texts is not None:
        judged = pq.ParquetFile(texts)
        schema = pa.schema([judged.schema_arrow.field(name) for name in ("track_id", "texts")])
        _deal(schema, judged.iter_batches(columns=schema.names), parts / "texts", num_parts)
    per_shard = config.shard_mb * 2**20 / (config.clip_s * config.sample_rate_hz * FLAC_BYTES_PER_SAMPLE)
    counts = {split: _power_of_two(max(1.0, sizes[split] / per_shard)) for split in SPLITS}
    writers = {split: _ShardFiles(folder, split, counts[split]) for split in SPLITS}
    for part in range(num_parts):
        rows = _read(parts / "tracks" / str(part))
        if texts is not None:
            rows = _with_texts(rows, _read(parts / "texts" / str(part)), texts)
        media = pa.array([locate(uri, root) for uri in rows["uri"].to_pylist()], pa.string())
        rows = rows.append_column("media_path", media)
        places = np.array([place_of(track_id) for track_id in rows["track_id"].to_pylist()], dtype=np.uint64)
        for split in SPLITS:
            chosen = np.flatnonzero(pc.equal(rows["split"], split).to_numpy())
            chosen = chosen[np.argsort(places[chosen], kind="stable")]
            writers[split].add(rows.take(chosen), places[chosen])
    for writer in writers.values():
        writer.close()
    shutil.rmtree(parts)
    return [Shard(split, index, counts[split]) for split in SPLITS for index in range(counts[split])]


def _power_of_two(least: float) -> int:
    return 1 << max(0, int(np.ceil(np.log2(least))))


def _deal(schema: pa.Schema, batches: Iterator[pa.RecordBatch], folder: Path, num_parts: int) -> Counter[str]:
    """Write rows to one file a part by the first bits of their place; returns the rows of each split."""
    folder.mkdir(parents=True)
    sizes: Counter[str] = Counter()
    files = [pa.OSFile(str(folder / str(part)), "wb") for part in range(num_parts)]
    writers = [pa.ipc.new_file(file, schema) for file in files]
    for batch in batches:
        if "split" in schema.names:
            sizes.update(batch.column("split").to_pylist())
        part_of = np.array([place_of(track_id) * num_parts >> 64 for track_id in batch.column("track_id").to_pylist()])
        for part in np.unique(part_of):
            writers[part].write_batch(batch.take(np.flatnonzero(part_of == part)))
    for writer, file in zip(writers, files, strict=True):
        writer.close()
        file.close()
    return sizes


def _read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _with_texts(rows: pa.Table, judged: pa.Table, path: Path) -> pa.Table:
    row_of = {track_id: row for row, track_id in enumerate(judged["track_id"].to_pylist())}
    ids = rows["track_id"].to_pylist()
    lacking = next((track_id for track_id in ids if track_id not in row_of), None)
    if lacking is not None:
        raise UserError(f"{path} has no row for the track {lacking!r}; run the stage that makes it again")
    texts = judged["texts"].take(pa.array([row_of[track_id] for track_id in ids], pa.int64()))
    return rows.set_column(rows.schema.get_field_index("texts"), "texts", texts)


class _ShardFiles:
    """Writes rows that come in order of place to the files of one split's shards."""

    def __init__(self, folder: Path, split: str, total: int) -> None:
        self._folder, self._split, self._total = folder, split, total
        self._index, self._pending = 0, list[pa.Table]()

    def add(self, rows: pa.Table, places: np.ndarray) -> None:
        indices = np.array([int(place) * self._total >> 64 for place in places], dtype=np.int64)
        for index in np.unique(indices):
            if index != self._index:
                self.close()
                self._index = int(index)
            first, last = np.searchsorted(indices, [index, index + 1])
            self._pending.append(rows.slice(first, last - first))

    def close(self) -> None:
        if self._pending:
            path = self._folder / Shard(self._split, self._index, self._total).path
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.concat_tables(self._pending), path)
        self._pending = []

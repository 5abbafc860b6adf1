"""What runs in Ray Data's workers while ``prepare`` works: find the clips that are missing, make them, write shards.

Rows stream through, so memory does not grow with the catalogue. Workers import this file and nothing of Prefect.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from mulan_core.data.clips import CUT, FETCHED, OUTCOME, WORK, cut_clip, encode_clip, fetch_clip
from mulan_core.data.shard_builder import ShardBuilder
from mulan_core.data.shard_plan import Shard

CLIPS_PER_BLOCK = 16
"""Clips that travel together between the stages."""
READS_AT_ONCE = 8
"""Files that one reading task waits for at once."""
READ_CPUS = 0.5
"""Reading waits more than it works; two such tasks share a CPU."""


def find_work(builder: ShardBuilder, plan: list[Shard], todo: Path) -> dict[str, int]:
    """Write a table of the clips to be made for each shard; its path -> how many, where there are any."""
    rows = _over(plan).map(_FindWork(builder, todo)).iter_rows()
    return {row["todo"]: row["count"] for row in rows if row["count"]}


def make_clips(builder: ShardBuilder, todo: list[str]) -> Iterator[int]:
    """Make the clips of such tables, each on disk once it is counted; yields how many more are done."""
    reading, working = _Reading(builder), _Working(builder)
    stages = (
        ray.data.from_items([{"todo": path} for path in todo], override_num_blocks=len(todo))
        .map_batches(_rows_to_do, batch_format="pyarrow", batch_size=1)
        .repartition(target_num_rows_per_block=CLIPS_PER_BLOCK)
        .map_batches(reading.fetch, batch_format="pyarrow", batch_size=READS_AT_ONCE, num_cpus=READ_CPUS)
        .map_batches(working.cut, batch_format="pyarrow", batch_size=READS_AT_ONCE)
        .map_batches(working.encode, batch_format="pyarrow", batch_size=READS_AT_ONCE)
        .map_batches(working.keep, batch_format="pyarrow", batch_size=CLIPS_PER_BLOCK)
    )
    for row in stages.iter_rows():
        yield row["kept"]


def write_shards(builder: ShardBuilder, plan: list[Shard]) -> list[dict[str, Any]]:
    """Put the shards together from their clips; returns the counts of each."""
    return [json.loads(row["result"]) for row in _over(plan).map(_WriteShard(builder)).iter_rows()]


def _over(plan: list[Shard]) -> Any:
    rows = [{"split": shard.split, "index": shard.index, "of": shard.total} for shard in plan]
    return ray.data.from_items(rows, override_num_blocks=min(len(rows), 64))


class _FindWork:
    """Callable of a pipeline: a shard in, the table of its clips to be made out, on disk."""

    def __init__(self, builder: ShardBuilder, todo: Path) -> None:
        self._builder, self._todo = builder, todo

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = Shard(row["split"], row["index"], row["of"])
        work, path = self._builder.find_work(shard), self._todo / shard.path
        if len(work):
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(work, path)
        return {"todo": str(path), "count": len(work)}


class _WriteShard:
    """Callable of a pipeline: a shard in, its counts out."""

    def __init__(self, builder: ShardBuilder) -> None:
        self._builder = builder

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"result": json.dumps(self._builder.write(Shard(row["split"], row["index"], row["of"])))}


def _rows_to_do(batch: pa.Table) -> Iterator[pa.Table]:
    for path in batch["todo"].to_pylist():
        yield pq.read_table(path, schema=WORK)


class _Reading:
    """The stage that waits: files and URLs to bytes."""

    def __init__(self, builder: ShardBuilder) -> None:
        self._config, self._downloads = builder.config, builder.work / "downloads"

    def fetch(self, batch: pa.Table) -> pa.Table:
        """Read the files of a batch at once."""
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            rows = pool.map(lambda row: fetch_clip(row, self._config, self._downloads), batch.to_pylist())
            return pa.Table.from_pylist(list(rows), schema=FETCHED)


class _Working:
    """The stages that compute: bytes to waves, waves to FLAC, FLAC to disk."""

    def __init__(self, builder: ShardBuilder) -> None:
        self._builder, self._config, self._downloads = builder, builder.config, builder.work / "downloads"

    def cut(self, batch: pa.Table) -> pa.Table:
        """Decode, check and cut."""
        rows = [cut_clip(row, self._config, self._downloads) for row in batch.to_pylist()]
        return pa.Table.from_pylist(rows, schema=CUT)

    def encode(self, batch: pa.Table) -> pa.Table:
        """Encode as FLAC."""
        return pa.Table.from_pylist([encode_clip(row, self._config) for row in batch.to_pylist()], schema=OUTCOME)

    def keep(self, batch: pa.Table) -> pa.Table:
        """Write down; what streams on is how many."""
        self._builder.keep(batch)
        return pa.table({"kept": [len(batch)]})

"""Prepare: any audio to shards of 16 kHz mono FLAC, with Ray Data pipelines over a plan that lies on disk.

First each shard to be is compared with the last run; then the clips that are missing stream through read, decode,
encode and keep; then each shard is put together. Rows stream in all three, so memory does not grow with the catalogue,
and every finished clip is on disk, so a killed run goes on where it was (docs/decisions/0012-prepare.md). A file that
cannot be used goes to quarantine with its reason and the job goes on.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from mulan_core.config import PrepareConfig
from mulan_core.data import shards
from mulan_core.data.clips import CUT, FETCHED, OUTCOME, WORK, cut_clip, encode_clip, fetch_clip
from mulan_core.data.overlap import check_splits
from mulan_core.data.playlists import check_known
from mulan_core.data.shard_builder import CHANGES, ShardBuilder, work_folder
from mulan_core.data.shard_plan import Shard, plan_shards, shard_counts
from mulan_core.data.tracks import open_manifest
from mulan_core.errors import UserError, without_secrets

CLIPS_PER_BLOCK = 16
"""Clips that travel together between the stages."""
READS_AT_ONCE = 8
"""Files that one reading task waits for at once."""
READ_CPUS = 0.5
"""Reading waits more than it works; two such tasks share a CPU."""
ROWS_PER_GROUP = 16_384

Progress = Callable[[int, int], None]


def prepare(
    catalogue: Path,
    out: Path,
    config: PrepareConfig,
    *,
    texts: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Turn a catalogue into a prepared folder; only what is new, changed or removed since the last run is worked on.

    The result is that of a run from scratch, byte for byte.

    Args:
        catalogue: folder with ``manifest.parquet`` and maybe ``playlists.parquet``.
        out: the prepared folder; replaced as a whole once everything is written.
        config: clip length, limits, size of shards.
        texts: a table of judged texts, a row a track (``track_id``, ``texts`` with source, text, drop); null judges
            the manifest's texts by rules.
        progress: called with (tracks done, tracks in all).

    Returns:
        The counts, as in ``counts.json``, and ``changes``: new, changed, removed, unchanged tracks.

    Raises:
        UserError: if the manifest is wrong, if a playlist names a track that it does not have, if not one track is
            usable, or if splits share recordings.
    """
    manifest, work, replaced = catalogue / "manifest.parquet", work_folder(out), out.with_name(f".{out.name}.replaced")
    if replaced.exists() and not out.exists():
        replaced.rename(out)  # the last run was killed between its last two moves
    (work / CHANGES).unlink(missing_ok=True)
    playlists = catalogue / shards.PLAYLISTS
    if playlists.exists():
        ids = pq.ParquetFile(manifest).iter_batches(columns=["track_id"])
        check_known(pq.read_table(playlists).to_pylist(), (batch["track_id"].to_pylist() for batch in ids))
    plan = plan_shards(manifest, work / "plan", config, texts=texts)
    with open_manifest(manifest) as opened:
        schema = shards.shard_schema(opened.schema)
    folders = {"before": out, "ledger": work / "ledger", "shards": work / "shards"}
    counts = {name: shard_counts(folder) for name, folder in folders.items()}
    builder = ShardBuilder(work=work, before=out, config=config, counts=counts, schema=schema)
    num_tracks = pq.read_metadata(manifest).num_rows
    _make_clips(builder, plan, num_tracks, progress)
    results = [json.loads(row["result"]) for row in _over(plan).map(_WriteShard(builder)).iter_rows()]
    built = work / "shards"
    summary = _summarise(results, config) | {"tracks": num_tracks}
    _write_tables(builder, plan, summary)
    if not summary["usable"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in summary["quarantined"].items())
        raise UserError(f"not one track of {manifest} is usable ({reasons}); see {built / shards.QUARANTINE}")
    check_splits(built / shards.MANIFEST, allow=config.allow_overlap)
    if playlists.exists():
        shutil.copyfile(playlists, built / shards.PLAYLISTS)
    else:
        (built / shards.PLAYLISTS).unlink(missing_ok=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        out.rename(replaced)
    built.rename(out)
    for leftover in (replaced, work / "plan", work / "clips", work / "downloads"):
        shutil.rmtree(leftover, ignore_errors=True)
    changes = dict(sum((Counter(result["changes"]) for result in results), Counter()))
    changes = {name: changes.get(name, 0) for name in ("new", "changed", "removed", "unchanged")}
    (work / CHANGES).write_text(json.dumps(changes), encoding="utf-8")
    return summary | {"changes": changes}


def _make_clips(builder: ShardBuilder, plan: list[Shard], num_tracks: int, progress: Progress | None) -> None:
    todo = builder.work / "todo"
    shutil.rmtree(todo, ignore_errors=True)
    found = {row["todo"]: row["count"] for row in _over(plan).map(_FindWork(builder, todo)).iter_rows() if row["count"]}
    done = num_tracks - sum(found.values())
    if progress:
        progress(done, num_tracks)
    if not found:
        return
    reading, working = _Reading(builder), _Working(builder)
    stages = (
        ray.data.from_items([{"todo": path} for path in sorted(found)], override_num_blocks=len(found))
        .map_batches(_rows_to_do, batch_format="pyarrow", batch_size=1)
        .repartition(target_num_rows_per_block=CLIPS_PER_BLOCK)
        .map_batches(reading.fetch, batch_format="pyarrow", batch_size=READS_AT_ONCE, num_cpus=READ_CPUS)
        .map_batches(working.cut, batch_format="pyarrow", batch_size=READS_AT_ONCE)
        .map_batches(working.encode, batch_format="pyarrow", batch_size=READS_AT_ONCE)
        .map_batches(working.keep, batch_format="pyarrow", batch_size=CLIPS_PER_BLOCK)
    )
    for row in stages.iter_rows():
        done += row["kept"]
        if progress:
            progress(done, num_tracks)
    shutil.rmtree(todo)


def _over(plan: list[Shard]) -> Any:
    rows = [{"split": shard.split, "index": shard.index, "of": shard.of} for shard in plan]
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


def _summarise(results: list[dict[str, Any]], config: PrepareConfig) -> dict[str, Any]:
    splits: Counter[str] = Counter()
    quarantined: Counter[str] = Counter()
    texts: dict[str, Any] = {}
    for result in results:
        splits.update(result["splits"])
        quarantined.update(result["quarantined"])
        for source, counted in result["texts"].items():
            of = texts.setdefault(source, {"before": 0, "after": 0, "dropped": Counter()})
            of["before"] += counted["before"]
            of["after"] += counted["after"]
            of["dropped"].update(counted["dropped"])
    return {
        "usable": splits.total(),
        "splits": dict(sorted(splits.items())),
        "hours": round(sum(result["samples"] for result in results) / config.sample_rate_hz / 3600, 3),
        "quarantined": dict(sorted(quarantined.items(), key=lambda item: (-item[1], item[0]))),
        "texts": {
            source: of | {"dropped": dict(sorted(of["dropped"].items()))} for source, of in sorted(texts.items())
        },
        "clip_s": config.clip_s,
    }


def _write_tables(builder: ShardBuilder, plan: list[Shard], summary: dict[str, Any]) -> None:
    """Write the tables of the whole folder shard by shard, and remove what belongs to other plans."""
    built, ledger = builder.work / "shards", builder.work / "ledger"
    for folder in (built, ledger):
        stale = {path.relative_to(folder) for path in folder.glob("*/*")} - {shard.path for shard in plan}
        for path in stale:
            (folder / path).unlink()
    metadata = shards.without_audio(builder.schema)
    of_tracks = (pq.read_table(built / s.path, columns=metadata.names) for s in plan if (built / s.path).exists())
    _stream(of_tracks, metadata, built / shards.MANIFEST)
    quarantine = pa.schema([(name, pa.string()) for name in ("track_id", "uri", "reason", "detail")])
    kept = (pq.read_table(ledger / s.path, columns=quarantine.names) for s in plan if (ledger / s.path).exists())
    _stream(
        (_for_people(table.filter(table["reason"].is_valid())) for table in kept), quarantine, built / shards.QUARANTINE
    )
    (built / shards.COUNTS).write_text(json.dumps(summary, indent=1), encoding="utf-8")


def _for_people(quarantined: pa.Table) -> pa.Table:
    """The quarantine is a report, which people pass on: without the passwords that uris may hold."""
    uris = pa.array([without_secrets(uri) for uri in quarantined["uri"].to_pylist()], pa.string())
    return quarantined.set_column(quarantined.schema.get_field_index("uri"), "uri", uris)


def _stream(tables: Iterator[pa.Table], schema: pa.Schema, path: Path) -> None:
    """Write many small tables as one file, a few thousand rows at a time."""
    with pq.ParquetWriter(path, schema) as file:
        pending: list[pa.Table] = []
        for table in tables:
            pending.append(table.cast(schema))
            if sum(map(len, pending)) >= ROWS_PER_GROUP:
                file.write_table(pa.concat_tables(pending))
                pending = []
        if pending:
            file.write_table(pa.concat_tables(pending))

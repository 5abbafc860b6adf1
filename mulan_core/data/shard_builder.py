"""Assembly: what a shard still needs, and the shard once it is there.

Beside the prepared folder lies a work folder. It outlives the run: what a run has finished is not done again, by the
next run or by the same one after a kill.

    plan/      the rows of each shard to be (plan.py)
    clips/     outcomes of clips as they come, a folder a shard
    ledger/    one file a shard: each track's mark, hash, key and, where it has no clip, the reason
    shards/    the prepared folder to be
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mulan_core.config import PrepareConfig
from mulan_core.data import shards
from mulan_core.data.clips import OUTCOME, WORK, clip_key
from mulan_core.data.shard_plan import Shard
from mulan_core.data.uris import fingerprints
from mulan_core.text.filters import filter_texts, names_of

LEDGER = pa.schema([field for field in OUTCOME if field.name not in (*shards.CLIP_FACTS.names, "audio")])
ROW_GROUP = 64
"""Clips in a row group: readers take a few clips at a time, and the writer holds no more."""


def work_folder(prepared: Path) -> Path:
    """What prepare keeps between runs, beside the prepared folder; losing it costs time, nothing else."""
    return prepared.with_name(f".{prepared.name}.work")


@dataclass(frozen=True)
class ShardBuilder:
    """Where one prepared folder is built, and from what.

    Args:
        work: the work folder.
        before: the prepared folder of the last run; need not exist.
        config: the numbers of prepare.
        counts: into how many shards a split is cut, by folder: ``before``, ``ledger`` and ``shards``.
        schema: of the shards to be.
    """

    work: Path
    before: Path
    config: PrepareConfig
    counts: dict[str, dict[str, set[int]]]
    schema: pa.Schema

    def find_work(self, shard: Shard) -> pa.Table:
        """The clips of a shard that must be made: those whose file or segment is not known to be as it was."""
        rows = self._plan(shard)
        outcomes = self._outcomes(shard)
        keys: dict[str, set[str]] = {}
        for track_id, key in self._clips(shard):
            keys.setdefault(track_id, set()).add(key)
        work = []
        for row, mark in zip(rows, _marks(rows, self.config), strict=True):
            track_id, outcome = row["track_id"], outcomes.get(row["track_id"])
            if outcome and mark and outcome["mark"] == mark and outcome["sha256"]:
                key = clip_key(outcome["sha256"], row["start_s"], row["duration_s"], self.config)
                if outcome["clip_key"] == key and (outcome["reason"] or key in keys.get(track_id, ())):
                    continue
            work.append(
                {
                    "shard": str(shard.path),
                    "track_id": track_id,
                    "uri": row["media_path"],
                    "start_s": row["start_s"],
                    "duration_s": row["duration_s"],
                    "mark": mark,
                    "known": next(iter(keys.get(track_id, ())), None),
                }
            )
        return pa.Table.from_pylist(work, schema=WORK)

    def keep(self, outcomes: pa.Table) -> None:
        """Write outcomes down, each beside those of its shard; from here on they outlive a kill."""
        for name in dict.fromkeys(outcomes["shard"].to_pylist()):
            folder = self.work / "clips" / name
            folder.mkdir(parents=True, exist_ok=True)
            chosen = [index for index, shard in enumerate(outcomes["shard"].to_pylist()) if shard == name]
            # In order of time: of two outcomes of a track the later one counts.
            _write(outcomes.take(pa.array(chosen)), folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet")

    def write(self, shard: Shard) -> dict[str, Any]:
        """Put a shard together: a hard link where nothing has changed, else old clips copied and new ones added.

        Returns:
            Counts: ``changes``, ``quarantined``, ``texts``, ``splits``, ``samples``.
        """
        rows, outcomes, clips = self._plan(shard), self._outcomes(shard), self._clips(shard)
        kept, metadata, ledger = [], [], []
        for row in rows:
            outcome = outcomes[row["track_id"]]
            ledger.append(outcome | {"shard": str(shard.path), "uri": row["media_path"]})
            if outcome["reason"] is None:
                clip = clips[row["track_id"], outcome["clip_key"]]
                kept.append(clip)
                metadata.append(self._metadata(row, outcome, clip))
        table = pa.Table.from_pylist(metadata, schema=shards.without_audio(self.schema))
        changes = self._changes(shard, rows, table, outcomes)
        target, old = self.work / "shards" / shard.path, self.before / shard.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not kept:
            target.unlink(missing_ok=True)
        elif old.exists() and _metadata_of(old) == table:
            _link(old, target)
        else:
            self._write_shard(target, table, kept)
        _write(pa.Table.from_pylist(ledger, schema=LEDGER), self.work / "ledger" / shard.path)
        shutil.rmtree(self.work / "clips" / shard.path, ignore_errors=True)
        return {
            "changes": changes,
            "splits": {shard.split: len(kept)} if kept else {},
            "samples": sum(clip.facts["num_samples"] for clip in kept),
            "clips": _count_clips(kept),
            "quarantined": Counter(o["reason"] for o in ledger if o["reason"]),
            "texts": _count_texts(row["texts"] for row in metadata),
        }

    def _plan(self, shard: Shard) -> list[dict[str, Any]]:
        path = self.work / "plan" / shard.path
        return pq.read_table(path).to_pylist() if path.exists() else []

    def _outcomes(self, shard: Shard) -> dict[str, dict[str, Any]]:
        """What is known of each track: from the ledger of the last run, then from clips as they came."""
        ledgers = [self.work / "ledger" / s.path for s in shard.overlapping(self.counts["ledger"][shard.split])]
        parts = sorted((self.work / "clips" / shard.path).glob("*.parquet"))
        outcomes: dict[str, dict[str, Any]] = {}
        for path in (*ledgers, *parts):
            if path.exists():
                rows = pq.read_table(path, columns=LEDGER.names).to_pylist()
                outcomes |= {row["track_id"]: row for row in rows}
        return outcomes

    def _clips(self, shard: Shard) -> dict[tuple[str, str], _Clip]:
        """Where the audio of (track, key) lies: in shards of the last run or of this one, or among the clips."""
        paths = [self.before / s.path for s in shard.overlapping(self.counts["before"][shard.split])]
        paths += [self.work / "shards" / s.path for s in shard.overlapping(self.counts["shards"][shard.split])]
        paths += sorted((self.work / "clips" / shard.path).glob("*.parquet"))
        clips = {}
        for path in paths:
            columns = ["track_id", "clip_key", *shards.CLIP_FACTS.names]
            if path.exists() and set(columns) <= set(pq.read_schema(path).names):  # those of older versions have fewer
                for row, facts in enumerate(pq.read_table(path, columns=columns).to_pylist()):
                    if facts["num_samples"] is not None:
                        clips[facts.pop("track_id"), facts.pop("clip_key")] = _Clip(path, row, facts)
        return clips

    def _metadata(self, row: dict[str, Any], outcome: dict[str, Any], clip: _Clip) -> dict[str, Any]:
        texts = row["texts"]
        if not self._judged:
            texts = filter_texts(texts, names=names_of(row))
        facts = {"texts": texts, "sha256": outcome["sha256"], "clip_key": outcome["clip_key"]}
        return {name: row.get(name) for name in self.schema.names} | facts | clip.facts

    @cached_property
    def _judged(self) -> bool:
        """True if the plan's texts carry a judgement."""
        plans = (self.work / "plan").rglob("*.parquet")
        return pq.read_schema(next(plans)).field("texts").type == pa.list_(shards.PREPARED_TEXT)

    def _write_shard(self, target: Path, table: pa.Table, kept: list[_Clip]) -> None:
        sources = {
            path: pq.read_table(path, columns=["audio"], memory_map=True)["audio"] for path in {c.path for c in kept}
        }
        building = target.with_suffix(".building")
        with pq.ParquetWriter(
            building, self.schema, compression="none", use_dictionary=False, write_statistics=False
        ) as file:
            for first in range(0, len(kept), ROW_GROUP):
                audio = [sources[clip.path][clip.row].as_py() for clip in kept[first : first + ROW_GROUP]]
                group = table.slice(first, ROW_GROUP).append_column("audio", pa.array(audio, pa.binary()))
                file.write_table(group.select(self.schema.names))
        building.replace(target)

    def _changes(
        self, shard: Shard, rows: list[dict[str, Any]], table: pa.Table, outcomes: dict[str, dict[str, Any]]
    ) -> Counter[str]:
        """Compare with the last run's shards and quarantine; counts of new, changed, removed, unchanged tracks."""
        before: dict[str, Any] = {}
        if self.before.exists():
            for old in shard.overlapping(self.counts["ledger"][shard.split]):
                path = self.work / "ledger" / old.path
                if path.exists():
                    ledger = pq.read_table(path, columns=["track_id", "clip_key", "reason"]).to_pylist()
                    before |= {o["track_id"]: (o["reason"], o["clip_key"]) for o in ledger if o["reason"]}
            for old in shard.overlapping(self.counts["before"][shard.split]):
                if (self.before / old.path).exists():
                    before |= {row["track_id"]: row for row in _metadata_of(self.before / old.path).to_pylist()}
        before = {track_id: row for track_id, row in before.items() if shard.holds(track_id)}
        now: dict[str, Any] = {row["track_id"]: row for row in table.to_pylist()}
        for row in rows:
            outcome = outcomes[row["track_id"]]
            now.setdefault(row["track_id"], (outcome["reason"], outcome["clip_key"]))
        changes = Counter({"removed": len(before.keys() - now.keys())})
        for track_id, what in now.items():
            previous = before.get(track_id)
            changes["new" if previous is None else "unchanged" if previous == what else "changed"] += 1
        return changes


@dataclass(frozen=True)
class _Clip:
    """Encoded audio in a file of shards or clips."""

    path: Path
    row: int
    facts: dict[str, Any]


def _marks(rows: list[dict[str, Any]], config: PrepareConfig) -> list[str | None]:
    """Marks as the workspace noted them in the manifest; else as they are now."""
    if rows and "file_mark" in rows[0]:
        return [row["file_mark"] for row in rows]
    return fingerprints([row["media_path"] for row in rows], allow_private=config.allow_private)


def _metadata_of(path: Path) -> pa.Table:
    schema = pq.read_schema(path).remove_metadata()
    return pq.read_table(path, columns=shards.without_audio(schema).names).replace_schema_metadata(None)


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_suffix(".building")
    pq.write_table(table, building, compression="none")
    building.replace(path)


def _link(old: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(old.resolve(), target)
    except OSError:  # another disk, or one without links
        shutil.copy2(old, target)


def _count_clips(kept: Iterable[_Clip]) -> Counter[str]:
    """How many were decoded by whom, were beyond full scale, or had channels that cancel."""
    counts: Counter[str] = Counter()
    for clip in kept:
        counts[f"decoded by {clip.facts['decoder'].partition(',')[0]}"] += 1
        counts["beyond full scale"] += clip.facts["num_clipped"] > 0
        counts["channels cancel"] += clip.facts["channels_cancel"]
    return +counts


def _count_texts(texts_of_tracks: Iterable[list[dict[str, Any]]]) -> dict[str, Any]:
    """Count texts before and after the filters by source, with the reasons for drops."""
    counts: dict[str, Any] = {}
    for texts in texts_of_tracks:
        for text in texts:
            count = counts.setdefault(text["source"], {"before": 0, "after": 0, "dropped": {}})
            count["before"] += 1
            if text["drop"] is None:
                count["after"] += 1
            else:
                count["dropped"][text["drop"]] = count["dropped"].get(text["drop"], 0) + 1
    return counts

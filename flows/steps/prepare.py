"""Prepare: any audio to shards of 16 kHz mono FLAC, with a Ray Data pipeline.

One row of the dataset is one shard to be: a list of tracks of one split. A task decodes, checks and
cuts them one at a time and writes the shard, so memory stays flat and the outcome does not depend on
how many tasks run. A file that cannot be used goes to quarantine with its reason and the job goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from mulan_core.audio.decode import AudioError, check_wave, decode_audio
from mulan_core.config import PrepareConfig
from mulan_core.data import shards
from mulan_core.data.overlap import check_splits
from mulan_core.data.tracks import SPLITS, locate, read_manifest
from mulan_core.errors import UserError
from mulan_core.text.filters import filter_texts

FLAC_BYTES_PER_SAMPLE = 1.3
"""What 16-bit music takes in FLAC, to plan the size of shards."""


def prepare(
    catalogue: Path, out: Path, config: PrepareConfig, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Turn a catalogue into a prepared folder.

    Args:
        catalogue: folder with ``manifest.parquet`` and maybe ``playlists.parquet``.
        out: the prepared folder; replaced as a whole once everything is written.
        config: clip length, limits, size of shards.
        progress: called with (tracks done, tracks in all).

    Returns:
        The counts, as in ``counts.json``.

    Raises:
        UserError: if the manifest is wrong, if not one track is usable, or if splits share recordings.
    """
    manifest = catalogue / "manifest.parquet"
    tracks = read_manifest(manifest)
    building = out.with_name(f".{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    jobs = _plan(tracks, manifest, config)
    write = _ShardWriter(str(building), config)
    outcomes: list[dict[str, Any]] = []
    done = 0
    for row in ray.data.from_items(jobs, override_num_blocks=len(jobs)).map(write).iter_rows():
        result = json.loads(row["result"])
        outcomes.append(result)
        done += len(result["kept"]) + len(result["quarantined"])
        if progress:
            progress(done, len(tracks))
    counts = _write_tables(building, tracks, outcomes, config)
    if not counts["usable"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts["quarantined"].items())
        raise UserError(f"not one track of {manifest} is usable ({reasons}); see {building / shards.QUARANTINE}")
    check_splits(building / shards.MANIFEST, allow=config.allow_overlap)
    if (catalogue / "playlists.parquet").exists():
        shutil.copyfile(catalogue / "playlists.parquet", building / shards.PLAYLISTS)
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    building.rename(out)
    return counts


def _plan(tracks: pa.Table, manifest: Path, config: PrepareConfig) -> list[dict[str, Any]]:
    """Deal the tracks of each split to shards of about the configured size, in manifest order."""
    clip_bytes = config.clip_s * config.sample_rate_hz * FLAC_BYTES_PER_SAMPLE
    per_shard = max(1, round(config.shard_mb * 2**20 / clip_bytes))
    jobs = []
    for split in SPLITS:
        rows = [row for row in tracks.to_pylist() if row["split"] == split]
        for row in rows:
            row["uri"] = locate(row["uri"], manifest)
        for index, start in enumerate(range(0, len(rows), per_shard)):
            jobs.append(
                {"split": split, "index": index, "rows": json.dumps(rows[start : start + per_shard], default=str)}
            )
    return jobs


class _ShardWriter:
    """Callable of the Ray Data pipeline: one planned shard in, what became of its tracks out."""

    def __init__(self, folder: str, config: PrepareConfig) -> None:
        self._folder, self._config = folder, config

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        kept, quarantined = [], []
        for row in json.loads(job["rows"]):
            try:
                kept.append(_prepare_track(row, self._config))
            except AudioError as error:
                quarantined.append(
                    {"track_id": row["track_id"], "uri": row["uri"], "reason": error.reason, "detail": str(error)}
                )
        if kept:
            path = Path(self._folder) / job["split"] / f"shard-{job['index']:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            # The audio is compressed already, and small row groups let readers take a few clips at a time.
            pq.write_table(_shard_table(kept), path, compression="none", row_group_size=64)
        facts = [
            {
                "track_id": row["track_id"],
                "sha256": row["sha256"],
                "num_samples": row["num_samples"],
                "texts": row["texts"],
                "media_path": row["media_path"],
            }
            for row in kept
        ]
        return {"result": json.dumps({"kept": facts, "quarantined": quarantined})}


def _prepare_track(row: dict[str, Any], config: PrepareConfig) -> dict[str, Any]:
    """Decode, check and cut one track; its texts are filtered here too."""
    data = _read_bytes(row["uri"])
    wave_T, _ = decode_audio(data, max_s=config.max_s)
    wave_T = _cut_clip(wave_T, row, config)
    check_wave(wave_T, min_s=config.min_s, silence_rms=config.silence_rms)
    return {
        **{key: value for key, value in row.items() if key not in ("uri", "start_s", "duration_s")},
        "sha256": hashlib.sha256(data).hexdigest(),
        "audio": shards.encode_flac(wave_T, config.sample_rate_hz),
        "num_samples": len(wave_T),
        "texts": filter_texts(row["texts"], title=row["title"], artist=row.get("artist")),
        "media_path": row["uri"],
    }


def _read_bytes(uri: str) -> bytes:
    try:
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read()
    except FileNotFoundError as error:
        raise AudioError("missing", f"there is no file {uri}") from error
    except (OSError, ValueError, ImportError) as error:
        raise AudioError("missing", f"cannot open {uri}: {error}") from error
    return data


def _cut_clip(wave_T: np.ndarray, row: dict[str, Any], config: PrepareConfig) -> np.ndarray:
    """Cut the clip from the middle of the track, or of the stretch that the manifest names."""
    rate = config.sample_rate_hz
    first = round((row["start_s"] or 0.0) * rate)
    last = first + round(row["duration_s"] * rate) if row["duration_s"] else len(wave_T)
    stretch_T = wave_T[first:last]
    length = round(config.clip_s * rate)
    start = max(0, (len(stretch_T) - length) // 2)
    return stretch_T[start : start + length]


def _shard_table(rows: list[dict[str, Any]]) -> pa.Table:
    fixed = {"texts": pa.list_(shards.PREPARED_TEXT), "labels": pa.list_(pa.string()), "audio": pa.binary()}
    fixed |= {"title": pa.string(), "license": pa.string(), "num_samples": pa.int64()}
    return pa.table(
        {name: pa.array([row[name] for row in rows], fixed.get(name)) for name in rows[0]},
    )


def _write_tables(
    folder: Path, tracks: pa.Table, outcomes: list[dict[str, Any]], config: PrepareConfig
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    kept = {fact["track_id"]: fact for outcome in outcomes for fact in outcome["kept"]}
    quarantined = [row for outcome in outcomes for row in outcome["quarantined"]]
    rows = [row | kept[row["track_id"]] for row in tracks.to_pylist() if row["track_id"] in kept]
    fields = {name: tracks.schema.field(name).type for name in tracks.schema.names}
    fields |= {"texts": pa.list_(shards.PREPARED_TEXT), "num_samples": pa.int64(), "media_path": pa.string()}
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in fields.items()}
    pq.write_table(pa.table(columns), folder / shards.MANIFEST)
    quarantine_schema = pa.schema([(name, pa.string()) for name in ("track_id", "uri", "reason", "detail")])
    pq.write_table(pa.Table.from_pylist(quarantined, schema=quarantine_schema), folder / shards.QUARANTINE)
    counts = {
        "tracks": len(tracks),
        "usable": len(rows),
        "splits": dict(Counter(row["split"] for row in rows)),
        "quarantined": dict(Counter(row["reason"] for row in quarantined).most_common()),
        "texts": _count_texts(rows),
        "clip_s": config.clip_s,
    }
    (folder / shards.COUNTS).write_text(json.dumps(counts, indent=1), encoding="utf-8")
    return counts


def _count_texts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Count texts before and after the filters by source, with the reasons for drops."""
    counts: dict[str, Any] = {}
    for row in rows:
        for text in row["texts"]:
            of = counts.setdefault(text["source"], {"before": 0, "after": 0, "dropped": {}})
            of["before"] += 1
            if text["drop"] is None:
                of["after"] += 1
            else:
                of["dropped"][text["drop"]] = of["dropped"].get(text["drop"], 0) + 1
    return counts

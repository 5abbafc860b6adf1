"""The rows of a collection and those of its windows, made of a prepared folder and its vectors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.pipeline.embed import Vectors, open_windows, window_key
from mulan_core.audio.windows import place_windows
from mulan_core.config import PrepareConfig
from mulan_core.data import shards
from mulan_core.data.names import title_of_file

ROWS_PER_INSERT = 500


def track_rows(prepared: Path, vectors: Vectors, *, here: Callable[[str], str]) -> list[dict[str, Any]]:
    """The rows of a collection: a track's vector, what is shown of it, and a hash of its clip and all that.

    The hash is the same under every model, and wherever the home was moved to.

    Args:
        prepared: the prepared folder.
        vectors: of its tracks.
        here: says where a file of the home is now; see ``Places``.
    """
    by_id = {track_id: v for ids, vs in vectors.values() for track_id, v in zip(ids, vs, strict=True)}
    rows = []
    for row in pq.read_table(prepared / shards.MANIFEST).to_pylist():
        if row["track_id"] not in by_id:
            continue
        shown = {
            "title": row["title"] or title_of_file(row["uri"]) or row["track_id"],
            "artist": row.get("artist") or "",
            "dataset": row["dataset"],
            "labels": row["labels"],
            "media_path": row["media_path"],
        }
        made_of = json.dumps([row["clip_key"], shown], sort_keys=True)
        content_hash = hashlib.sha256(made_of.encode()).hexdigest()[:32]
        key = {"track_id": row["track_id"], "vector": by_id[row["track_id"]], "content_hash": content_hash}
        rows.append(key | shown | {"media_path": here(row["media_path"])})
    return rows


def in_batches(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows, as many as are inserted at once."""
    for first in range(0, len(rows), ROWS_PER_INSERT):
        yield rows[first : first + ROWS_PER_INSERT]


def find_media_root(prepared: Path, here: Callable[[str], str]) -> str:
    """The deepest folder that holds every local file of the catalogue; empty where none is local."""
    paths = pq.read_table(prepared / shards.MANIFEST, columns=["media_path"])["media_path"].to_pylist()
    local = [str(Path(here(path)).parent) for path in paths if "://" not in path]
    return os.path.commonpath(local) if local else ""


def window_rows(
    prepared: Path,
    model: str | Path,
    *,
    cache: Path,
    config: PrepareConfig,
    here: Callable[[str], str] = str,
    only: Container[str] | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """The windows of tracks, in batches of rows with track_id, place, start_s, end_s and vector.

    Prepare noted where in its file each clip begins. Files that are not on this machine do not play and have no rows.

    Args:
        prepared: the prepared folder, embedded with ``embed_prepared(windows=True)``.
        model: folder of the saved model.
        cache: as it was given to ``embed_prepared``.
        config: how clips were cut.
        here: says where a file of the home is now; see ``Places``.
        only: ids of the tracks that are wanted; None for all.
    """
    from mulan_core.processor import MuLanProcessor  # here: it imports torch

    heard, window_s = open_windows(model, cache), MuLanProcessor.from_pretrained(model).window_s
    rows: list[dict[str, Any]] = []
    manifest = prepared / shards.MANIFEST
    if "clip_start_s" not in pq.read_schema(manifest).names:
        return  # prepared by an older version, which did not note where clips begin
    columns = ["track_id", "clip_key", "media_path", "clip_start_s", "num_samples"]
    for track in pq.read_table(manifest, columns=columns).to_pylist():
        if only is not None and track["track_id"] not in only:
            continue
        keys: list[str] = []
        while (key := window_key(track["clip_key"], len(keys))) in heard:
            keys.append(key)
        if not Path(here(track["media_path"])).is_file():
            continue
        first_s = track["clip_start_s"]
        places = place_windows(len(keys), track["num_samples"] / config.sample_rate_hz, window_s)
        for index, ((start_s, end_s), vector) in enumerate(zip(places, heard.get(keys), strict=True)):
            row = {"track_id": track["track_id"], "place": index, "vector": vector}
            rows.append(row | {"start_s": first_s + start_s, "end_s": first_s + end_s})
        if len(rows) >= ROWS_PER_INSERT:
            yield rows
            rows = []
    if rows:
        yield rows

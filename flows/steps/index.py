"""The index step: a new collection for a model version, built beside the live one and proved before the switch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.steps.embed import Vectors
from mulan_core.config import IndexConfig
from mulan_core.data import shards
from serving.store import BuildResult, TrackStore, collection_name

ROWS_PER_INSERT = 500


def build_index(
    store: TrackStore,
    prepared: Path,
    vectors: Vectors,
    config: IndexConfig,
    *,
    version: str,
    data_hash: str,
    preprocessing_hash: str,
) -> tuple[str, BuildResult | None]:
    """Build the collection of a model version over every usable track; one that stands is left as it is.

    Returns:
        The collection's name and what the build measured, or None where the collection stood already.

    Raises:
        UserError: if Milvus is away, or recall@10 is under the floor; the live collection is untouched.
    """
    name = collection_name(version, data_hash)
    properties = {"model_version": version, "data_hash": data_hash, "preprocessing_hash": preprocessing_hash}
    if store.has(name):
        # A build that failed drops its collection, but one that was killed leaves it: its count tells.
        info = store.describe(name)
        if info.properties == properties and info.count == sum(len(ids) for ids, _ in vectors.values()):
            return name, None
    result = store.build(
        name,
        _rows(prepared, vectors),
        dim=next(iter(vectors.values()))[1].shape[1],
        properties=properties,
        hnsw_from=config.hnsw_from,
        recall_floor=config.recall_floor,
    )
    return name, result


def _rows(prepared: Path, vectors: Vectors) -> Iterator[list[dict[str, Any]]]:
    by_id = {track_id: v for ids, vs in vectors.values() for track_id, v in zip(ids, vs, strict=True)}
    batch: list[dict[str, Any]] = []
    for row in pq.read_table(prepared / shards.MANIFEST).to_pylist():
        if row["track_id"] not in by_id:
            continue
        batch.append(
            {
                "track_id": row["track_id"],
                "vector": by_id[row["track_id"]],
                "title": row["title"] or row["track_id"],
                "artist": row.get("artist") or "",
                "dataset": row["dataset"],
                "labels": row["labels"],
                "media_path": row["media_path"],
            }
        )
        if len(batch) == ROWS_PER_INSERT:
            yield batch
            batch = []
    if batch:
        yield batch


def find_media_root(prepared: Path) -> str:
    """The deepest folder that holds every local file of the catalogue; empty where none is local."""
    paths = pq.read_table(prepared / shards.MANIFEST, columns=["media_path"])["media_path"].to_pylist()
    local = [str(Path(path).parent) for path in paths if "://" not in path]
    return os.path.commonpath(local) if local else ""

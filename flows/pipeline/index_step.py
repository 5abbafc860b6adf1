"""The index step: a new collection for a model version, built beside the live one and proved before the switch."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from flows.pipeline.embed import Vectors
from mulan_core.config import IndexConfig
from mulan_core.data import shards
from mulan_core.evaluation.encoders import open_encoder
from mulan_core.evaluation.tagging import split_label
from serving.recall import PROBE_QUERIES
from serving.store import BuildResult, TrackStore, collection_name
from serving.tracks import ADDED

ROWS_PER_INSERT = 500


def build_index(
    store: TrackStore,
    rows: list[dict[str, Any]],
    config: IndexConfig,
    *,
    version: str,
    data_hash: str,
    preprocessing_hash: str,
    model: Path | None = None,
) -> tuple[str, BuildResult | None]:
    """Build the collection of a model version; one that stands is left as it is.

    Args:
        store: where.
        rows: every usable track; see ``track_rows``.
        config: kind of index and least recall.
        version, data_hash, preprocessing_hash: the release's other parts, kept with the collection.
        model: folder of the saved model, to see how well texts find tracks in an index that is not exact.

    Returns:
        The collection's name and what the build measured, or None where the collection stood already.

    Raises:
        UserError: if Milvus is away, or recall@10 is under the floor; the live collection is untouched.
    """
    name = collection_name(version, data_hash)
    properties = {"model_version": version, "data_hash": data_hash, "preprocessing_hash": preprocessing_hash}
    # Only a proved build has properties: one that was killed is built anew.
    if store.has(name) and store.describe(name).properties == properties:
        return name, None
    is_graph = store.index_type(len(rows), config.hnsw_from) == "HNSW"
    probes_QD = embed_probes(rows, model) if model and is_graph else None
    result = store.build(
        name,
        (rows[first : first + ROWS_PER_INSERT] for first in range(0, len(rows), ROWS_PER_INSERT)),
        dim=len(rows[0]["vector"]) if rows else 1,
        properties=properties,
        hnsw_from=config.hnsw_from,
        recall_floor=config.recall_floor,
        probes_QD=probes_QD,
    )
    return name, result


def embed_probes(rows: list[dict[str, Any]], model: Path) -> np.ndarray:
    """Texts that somebody may type, as unit vectors (Q, D): the most frequent labels' words, then titles."""
    labels = Counter(label for row in rows for label in row["labels"])
    texts = [split_label(label)[1] for label, _ in labels.most_common(PROBE_QUERIES)]
    texts += [row["title"] for row in rows[: PROBE_QUERIES - len(texts)]]
    return open_encoder(model).embed_texts(texts)


def track_rows(prepared: Path, vectors: Vectors, *, weights: str, here: Callable[[str], str]) -> list[dict[str, Any]]:
    """The rows of a collection: a track's vector, what is shown of it, and a hash of all that.

    Args:
        prepared: the prepared folder.
        vectors: of its tracks.
        weights: identity of the model that made them.
        here: says where a file of the home is now; see ``Places``.
    """
    by_id = {track_id: v for ids, vs in vectors.values() for track_id, v in zip(ids, vs, strict=True)}
    rows = []
    for row in pq.read_table(prepared / shards.MANIFEST).to_pylist():
        if row["track_id"] not in by_id:
            continue
        shown = {
            "title": row["title"] or row["track_id"],
            "artist": row.get("artist") or "",
            "dataset": row["dataset"],
            "labels": row["labels"],
            "media_path": here(row["media_path"]),
        }
        made_of = json.dumps([weights, row["clip_key"], shown], sort_keys=True)
        content_hash = hashlib.sha256(made_of.encode()).hexdigest()[:32]
        key = {"track_id": row["track_id"], "vector": by_id[row["track_id"]], "content_hash": content_hash}
        rows.append(key | shown)
    return rows


def count_changes(store: TrackStore, live: str | None, rows: list[dict[str, Any]]) -> dict[str, int]:
    """What differs from the collection that is live: new, changed, removed and unchanged tracks.

    Tracks that were added over the API are none of these; see ``releases.go_live``.
    """
    before = dict(pair for page in store.scroll(live) for pair in page) if live else {}
    counts = Counter(
        "new"
        if (known := before.get(row["track_id"])) is None
        else "unchanged"
        if known == row["content_hash"]
        else "changed"
        for row in rows
    )
    indexed = {track_id for track_id, content_hash in before.items() if content_hash != ADDED}
    counts["removed"] = len(indexed - {row["track_id"] for row in rows})
    return {name: counts[name] for name in ("new", "changed", "removed", "unchanged")}


def find_media_root(prepared: Path, here: Callable[[str], str]) -> str:
    """The deepest folder that holds every local file of the catalogue; empty where none is local."""
    paths = pq.read_table(prepared / shards.MANIFEST, columns=["media_path"])["media_path"].to_pylist()
    local = [str(Path(here(path)).parent) for path in paths if "://" not in path]
    return os.path.commonpath(local) if local else ""

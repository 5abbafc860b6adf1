"""The stage ``index``: a collection for the candidate, built and proved beside the live one; then the switch."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.pipeline.embed import Vectors, open_windows, track_vectors, window_key
from flows.pipeline.release import go_live
from flows.pipeline.train import trained_run
from flows.registry import Registry
from flows.runtime.catalogues import read_records
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.progress import bar
from flows.runtime.session import Session, open_session
from mulan_core.audio.decode import AudioError, find_clip_start_s
from mulan_core.audio.windows import place_windows
from mulan_core.config import IndexConfig, PrepareConfig
from mulan_core.data import shards
from mulan_core.data.names import title_of_file
from mulan_core.evaluation.encoders import open_encoder, weights_hash
from mulan_core.evaluation.tagging import split_label
from mulan_core.processor import MuLanProcessor
from serving.recall import PROBE_QUERIES
from serving.release import preprocessing_hash
from serving.store import BuildResult, TrackStore, collection_name
from serving.tracks import ADDED

ROWS_PER_INSERT = 500


@flow(
    name="index",
    description="Build and prove the candidate's collection, then promote model and index together.",
    **FAILURE_HOOKS,
)
def index(
    manifest: str | None = None,
    playlists: str | None = None,
    params: str | None = None,
    *,
    model: str | None = None,
    promote: bool = True,
) -> dict[str, Any]:
    """Index the workspace's catalogue; see ``prepare`` for the first arguments.

    Args:
        model: an alias or version of the registered model, which gets a new version for this data; with the name of
            another catalogue before it, ``demo/champion``, one of that. Null takes the model that was trained on this
            data.
        promote: make the release champion. False builds it only, for `mulan release promote` or `shadow`.

    Returns:
        ``version``, ``collection``, ``count``, ``built``; what the build measured; ``windows``, how many are kept,
        where they are; ``changes``: tracks that are new, changed, removed or unchanged since the collection that is
        live; and what became of those that were ``added`` over the API, see ``go_live``.
    """
    with open_session(manifest, playlists, params) as session, session.stage("index"):
        registry, workspace = session.registry, session.workspace
        if model is None:
            trained = trained_run(session)
            version, folder = registry.trained(trained.run_id).number, trained.model
        else:
            catalogue, _, name = model.rpartition("/")
            records = read_records(session.settings.home)
            of = Registry.of(session.settings, records.named(catalogue)) if catalogue else registry
            registered = registry.version_for_data(name, workspace.data_hash, of=of)
            version, folder = registered.number, registry.fetch(registered)
        with bar("embed") as update:
            vectors = track_vectors(session, folder, progress=update, windows=workspace.config.index.windows)
        rows = track_rows(workspace.prepared, vectors, weights=weights_hash(folder), here=session.places.here)
        changes = count_changes(session.store, session.store.live_collection(), rows)
        built = build_collection(session, rows, version, folder)
        if workspace.config.index.windows:
            known = session.store.count_windows(built["collection"])
            built["windows"] = known or build_windows(session, built["collection"], folder)
        tags = {
            "mulan.collection": built["collection"],
            "mulan.media_root": find_media_root(workspace.prepared, session.places.here),
        }
        if built["built"]:
            measured = {field.name: built[field.name] for field in fields(BuildResult)}
            tags["mulan.index"] = json.dumps(measured | {"changes": changes})
        registry.tag(version, tags)
        added = None
        if promote:
            registry.promote(version)
            added = go_live(session.store, built["collection"], registry)
        return built | {"version": version, "promoted": promote, "changes": changes, "added": added}


@task(name="build collection", retries=1, retry_delay_seconds=5, timeout_seconds=6 * 3600, cache_policy=NO_CACHE)
def build_collection(session: Session, rows: list[dict[str, Any]], version: str, model: Path) -> dict[str, Any]:
    """Build from scratch under the version's own name; a half-built leftover is replaced, so a retry is safe."""
    name, result = build_index(
        session.store,
        rows,
        session.workspace.config.index,
        version=version,
        data_hash=session.workspace.data_hash,
        preprocessing_hash=preprocessing_hash(model),
        model=model,
        catalogue=session.catalogue.key,
    )
    if result is None:
        return {"collection": name, "count": session.store.describe(name).count, "built": False}
    return {"collection": name, "built": True} | asdict(result)


@task(name="build windows", retries=1, retry_delay_seconds=5, timeout_seconds=6 * 3600, cache_policy=NO_CACHE)
def build_windows(session: Session, collection: str, model: Path) -> int:
    """Keep the windows of the collection's tracks beside it; a half-built leftover is replaced. Returns how many."""
    workspace = session.workspace
    rows = window_rows(
        workspace.prepared,
        model,
        cache=session.embeddings,
        config=workspace.config.prepare,
        here=session.places.here,
    )
    return session.store.build_windows(collection, rows)


def build_index(
    store: TrackStore,
    rows: list[dict[str, Any]],
    config: IndexConfig,
    *,
    version: str,
    data_hash: str,
    preprocessing_hash: str,
    model: Path | None = None,
    catalogue: str = "",
) -> tuple[str, BuildResult | None]:
    """Build the collection of a model version; one that stands is left as it is.

    Args:
        store: where.
        rows: every usable track; see ``track_rows``.
        config: kind of index and least recall.
        version, data_hash, preprocessing_hash: the release's other parts, kept with the collection.
        model: folder of the saved model, to see how well texts find tracks in an index that is not exact.
        catalogue: what the collection's name has of the catalogue's; see ``Catalogue.key``.

    Returns:
        The collection's name and what the build measured, or None where the collection stood already.

    Raises:
        UserError: if Milvus is away, or recall@10 is under the floor; the live collection is untouched.
    """
    name = collection_name(version, data_hash, catalogue)
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
            "title": row["title"] or title_of_file(row["uri"]) or row["track_id"],
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

    Tracks that were added over the API are none of these; see ``go_live``.
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


def window_rows(
    prepared: Path, model: str | Path, *, cache: Path, config: PrepareConfig, here: Callable[[str], str] = str
) -> Iterator[list[dict[str, Any]]]:
    """The windows of all tracks, in batches of rows with track_id, place, start_s, end_s and vector.

    A clip is cut from the middle of its file, so where it begins is read from the file's header. Files that are not on
    this machine do not play and have no rows; nor have those whose header states no length.

    Args:
        prepared: the prepared folder, embedded with ``embed_prepared(windows=True)``.
        model: folder of the saved model.
        cache: as it was given to ``embed_prepared``.
        config: how clips were cut.
        here: says where a file of the home is now; see ``Places``.
    """
    heard, window_s = open_windows(model, cache), MuLanProcessor.from_pretrained(model).window_s
    rows: list[dict[str, Any]] = []
    columns = ["track_id", "clip_key", "media_path", "start_s", "duration_s", "num_samples"]
    for track in pq.read_table(prepared / shards.MANIFEST, columns=columns).to_pylist():
        keys: list[str] = []
        while (key := window_key(track["clip_key"], len(keys))) in heard:
            keys.append(key)
        first_s = _clip_start_s(track | {"media_path": here(track["media_path"])}, config)
        if first_s is None:
            continue
        places = place_windows(len(keys), track["num_samples"] / config.sample_rate_hz, window_s)
        for place, ((start_s, end_s), vector) in enumerate(zip(places, heard.get(keys), strict=True)):
            row = {"track_id": track["track_id"], "place": place, "vector": vector}
            rows.append(row | {"start_s": first_s + start_s, "end_s": first_s + end_s})
        if len(rows) >= ROWS_PER_INSERT:
            yield rows
            rows = []
    if rows:
        yield rows


def _clip_start_s(track: dict[str, Any], config: PrepareConfig) -> float | None:
    segment = {"start_s": track["start_s"], "duration_s": track["duration_s"]}
    try:
        return find_clip_start_s(track["media_path"], clip_s=config.clip_s, **segment)
    except AudioError:
        return None

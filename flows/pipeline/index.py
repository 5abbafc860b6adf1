"""The stage ``index``: a collection for the candidate, built and proved beside the live one; then the switch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.pipeline.embed import track_vectors
from flows.pipeline.index_changes import WindowsOf, count_changes, mend_index
from flows.pipeline.index_rows import find_media_root, in_batches, track_rows, window_rows
from flows.pipeline.release import make_live, switching
from flows.pipeline.train import trained_run
from flows.registry import Registry
from flows.runtime.catalogues import read_records
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.progress import bar
from flows.runtime.session import Session, open_session
from mulan_core.config import IndexConfig
from mulan_core.evaluation.encoders import open_encoder
from mulan_core.evaluation.tagging import split_label
from serving.edits import Edits
from serving.recall import PROBE_QUERIES
from serving.release import preprocessing_hash
from serving.store import BuildResult, TrackStore, collection_name
from serving.tracks import is_added


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
        ``version``, and ``judged_on``, the other catalogue that the gate judged a borrowed model on; ``collection``,
        ``count``, ``built``; what the build measured, or of a collection that stood ``mended``, how many rows were put
        right, and ``mended_for``, how many for which reason; ``windows``, how many are kept, where they are;
        ``changes``: tracks that are new, changed, removed or unchanged since the collection that is live; ``url`` of
        the endpoint that serves it now, or null and ``not_served``, a sentence; ``edits``, see ``Live.bring_edits``.
    """
    with open_session(manifest, playlists, params) as session, session.stage("index"):
        with switching(session):  # what was cut off is ended before ``model`` is looked up
            pass
        registry, workspace = session.registry, session.workspace
        version, folder = _find_model(session, model)
        if promote:
            registry.check_gate(version)
        with bar("embed") as update:
            vectors = track_vectors(session, folder, progress=update, windows=workspace.config.index.windows)
        edited = {edit.track_id: edit.keeps_out for edit in session.edits.all()}
        whole = track_rows(workspace.prepared, vectors, here=session.places.here)
        rows = [row for row in whole if not edited.get(row["track_id"])]
        changes = count_changes(session.store, session.store.collections.live_collection(), rows, edited=edited)
        built = build_collection(session, rows, version, folder, edited=edited)
        had_windows = session.store.windows.count(built["collection"]) > 0
        if workspace.config.index.windows:
            if not had_windows:
                build_windows(session, built["collection"], folder)
            built["windows"] = session.store.windows.count(built["collection"])
        kept_out = [row for row in whole if edited.get(row["track_id"])]
        keep_rows(session.edits, built["collection"], kept_out, _heard(session, folder, kept_out, built))
        tags = {
            "mulan.collection": built["collection"],
            "mulan.media_root": find_media_root(workspace.prepared, session.places.here),
        }
        if built["built"]:
            measured = {field.name: built[field.name] for field in fields(BuildResult)}
            tags["mulan.index"] = json.dumps(measured | {"changes": changes})
        registry.tag(version, tags)
        done = go_live(session, version, promote=promote, anew=not had_windows and "windows" in built)
        about = {"version": version, "judged_on": registry.judged_on(registry.find(version))}
        return built | about | {"promoted": promote, "changes": changes} | done


def _find_model(session: Session, model: str | None) -> tuple[str, Path]:
    """The version to index under, and its folder on this machine; see ``index``."""
    registry = session.registry
    if model is None:
        trained = trained_run(session)
        return registry.trained(trained.run_id).number, trained.model
    catalogue, _, name = model.rpartition("/")
    records = read_records(session.settings.home)
    source = Registry.of(session.settings, records.named(catalogue)) if catalogue else registry
    registered = registry.version_for_data(name, session.workspace.data_hash, origin=source)
    return registered.number, registry.fetch(registered)


def go_live(session: Session, version: str, *, promote: bool, anew: bool) -> dict[str, Any]:
    """Give the version's collection all edits and make it champion, unless it is to wait for that.

    Args:
        session: of the catalogue.
        version: indexed.
        promote: make it champion.
        anew: write what was added over the API again, for windows that the collection did not have.

    Returns:
        ``url``, ``not_served`` and ``edits``, as ``promote`` does.
    """
    with switching(session) as live:
        release = live.registry.release(version)
        edits = live.bring_edits(release, live.store.collections.live_collection(), anew=anew)
        if promote:
            done = make_live(session, live, version)
            return {name: done[name] for name in ("url", "not_served", "edits")}
    waits = f"`mulan release promote {version}` makes it champion and serves it"
    return {"url": None, "not_served": waits, "edits": edits}


@task(name="build collection", retries=1, retry_delay_seconds=5, timeout_seconds=6 * 3600, cache_policy=NO_CACHE)
def build_collection(
    session: Session, rows: list[dict[str, Any]], version: str, model: Path, edited: Container[str] = ()
) -> dict[str, Any]:
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
        edited=edited,
        windows=lambda ids: _window_rows(session, model, ids),
    )
    if isinstance(result, dict):
        mended = {"mended": result.pop("tracks"), "mended_for": result}
        return {"collection": name, "count": session.store.collections.describe(name).count, "built": False} | mended
    return {"collection": name, "built": True} | asdict(result)


@task(name="build windows", retries=1, retry_delay_seconds=5, timeout_seconds=6 * 3600, cache_policy=NO_CACHE)
def build_windows(session: Session, collection: str, model: Path) -> int:
    """Keep the windows of the collection's tracks beside it; a half-built leftover is replaced. Returns how many.

    Those of tracks that were added over the API are not among them; ``Live.bring_edits`` writes these.
    """
    own = {name for page in session.store.scroll(collection) for name, mark in page if not is_added(mark)}
    return session.store.windows.build(collection, _window_rows(session, model, own))


def _heard(
    session: Session, model: Path, rows: Sequence[dict[str, Any]], built: Container[str]
) -> Iterator[dict[str, Any]]:
    """The windows of some rows' tracks, where the collection that was built keeps windows."""
    if rows and "windows" in built:
        yield from chain.from_iterable(_window_rows(session, model, {row["track_id"] for row in rows}))


def _window_rows(session: Session, model: Path, only: Container[str]) -> Iterator[list[dict[str, Any]]]:
    return window_rows(
        session.workspace.prepared,
        model,
        cache=session.embeddings,
        config=session.workspace.config.prepare,
        here=session.places.here,
        only=only,
    )


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
    edited: Container[str] = (),
    windows: WindowsOf | None = None,
) -> tuple[str, BuildResult | dict[str, int]]:
    """Build the collection of a model version; of one that stands, what differs from the rows is put right.

    Args:
        store: where.
        rows: every usable track; see ``track_rows``.
        config: kind of index and least recall.
        version, data_hash, preprocessing_hash: the release's other parts, kept with the collection.
        model: folder of the saved model, to see how well texts find tracks in an index that is not exact.
        catalogue: what the collection's name has of the catalogue's; see ``Catalogue.key``.
        edited: ids of tracks that the API had a word on, whose rows are not the catalogue's to judge.
        windows: finds the windows of tracks by their ids; see ``window_rows``.

    Returns:
        The collection's name, and what the build measured, or what of a collection that stood was put right; see
        ``mend_index``.

    Raises:
        UserError: if Milvus is away, or recall@10 is under the floor; the live collection is untouched.
    """
    name = collection_name(version, data_hash, catalogue)
    properties = {"model_version": version, "data_hash": data_hash, "preprocessing_hash": preprocessing_hash}
    # Only a proved build has properties: one that was killed is built anew.
    if store.collections.has(name) and properties.items() <= store.collections.describe(name).properties.items():
        return name, mend_index(store, name, rows, edited=edited, windows=windows)
    is_graph = store.index_type(len(rows), config.hnsw_from) == "HNSW"
    probes_QD = embed_probes(rows, model) if model and is_graph else None
    result = store.build(
        name,
        in_batches(rows),
        dim=len(rows[0]["vector"]) if rows else 1,
        properties=properties | {"built": datetime.now(UTC).isoformat(timespec="microseconds")},
        hnsw_from=config.hnsw_from,
        recall_floor=config.recall_floor,
        probes_QD=probes_QD,
    )
    return name, result


def keep_rows(
    edits: Edits, collection: str, rows: Sequence[dict[str, Any]], windows: Iterable[dict[str, Any]] = ()
) -> None:
    """Keep the rows of tracks that were deleted over the API, which a collection has when that is taken back."""
    windows_of: dict[str, list[dict[str, Any]]] = {row["track_id"]: [] for row in rows}
    for window in windows:
        windows_of[window["track_id"]].append(window)
    for row in rows:
        edits.keep_row(collection, row, windows_of[row["track_id"]])


def embed_probes(rows: list[dict[str, Any]], model: Path) -> np.ndarray:
    """Texts that somebody may type, as unit vectors (Q, D): the most frequent labels' words, then titles."""
    labels = Counter(label for row in rows for label in row["labels"])
    texts = [split_label(label)[1] for label, _ in labels.most_common(PROBE_QUERIES)]
    texts += [row["title"] for row in rows[: PROBE_QUERIES - len(texts)]]
    return open_encoder(model).embed_texts(texts)

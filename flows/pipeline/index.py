"""The flow ``index``: a collection for the candidate, built beside the live one, then the switch of both aliases."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows import registry
from flows.pipeline.index_step import build_index, count_changes, find_media_root, track_rows
from flows.pipeline.releases_step import go_live, version_for_data
from flows.pipeline.windows import window_rows
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.progress import bar
from flows.runtime.session import Session, open_session
from mulan_core.evaluation.encoders import weights_hash
from serving.release import fetch_version, preprocessing_hash
from serving.store import BuildResult


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
        model: an alias or version of the registered model, which gets a new version for this data; null takes the
            model that was trained on this data.
        promote: make the release champion. False builds it only, for `mulan release promote` or `shadow`.

    Returns:
        ``version``, ``collection``, ``count``, ``built``; what the build measured; ``windows``, how many are kept,
        where they are; ``changes``: tracks that are new, changed, removed or unchanged since the collection that is
        live; and what became of those that were ``added`` over the API, see ``go_live``.
    """
    with open_session(manifest, playlists, params) as session, session.stage("index"):
        uri, workspace = session.settings.mlflow_uri, session.workspace
        if model is None:
            trained = session.trained()
            version, folder = registry.version_of(trained, mlflow_uri=uri), trained.model
        else:
            version = version_for_data(model, workspace.data_hash, mlflow_uri=uri)
            folder = fetch_version(version, mlflow_uri=uri, cache=session.settings.home / "models")
        with bar("embed") as update:
            vectors = session.vectors(folder, progress=update, windows=workspace.config.index.windows)
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
        registry.tag_version(version, tags, mlflow_uri=uri)
        added = None
        if promote:
            registry.promote(version, mlflow_uri=uri)
            added = go_live(session.store, built["collection"], mlflow_uri=uri)
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

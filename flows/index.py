"""The flow ``index``: a collection for the candidate, built beside the live one, then the switch of both aliases."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.progress import bar
from flows.session import Session, open_session
from flows.steps import registry
from flows.steps.embed import Vectors
from flows.steps.index import build_index, find_media_root
from serving.release import preprocessing_hash


@flow(name="index", description="Build and prove the candidate's collection, then promote model and index together.")
def index(manifest: str | None = None, playlists: str | None = None, params: str | None = None) -> dict[str, Any]:
    """Index the workspace's catalogue under the registered candidate; see ``prepare`` for the arguments."""
    with open_session(manifest, playlists, params) as session, session.stage("index"):
        trained, uri = session.trained(), session.settings.mlflow_uri
        version = registry.version_of(trained, mlflow_uri=uri)
        with bar("embed") as update:
            vectors = session.vectors(trained.model, progress=update)
        built = build_collection(session, vectors, version, preprocessing_hash(trained.model))
        root = find_media_root(session.workspace.prepared)
        tags = {"mulan.collection": built["collection"], "mulan.media_root": root}
        if built["built"]:
            tags["mulan.recall_at_10"] = f"{built['recall_at_10']:.4f}"
        registry.tag_version(version, tags, mlflow_uri=uri)
        registry.promote(version, mlflow_uri=uri)
        session.store.switch_alias(built["collection"])
        return built | {"version": version}


@task(name="build collection", retries=1, retry_delay_seconds=5, timeout_seconds=6 * 3600, cache_policy=NO_CACHE)
def build_collection(session: Session, vectors: Vectors, version: str, preprocessing: str) -> dict[str, Any]:
    """Build from scratch under the version's own name; a half-built leftover is replaced, so a retry is safe."""
    name, result = build_index(
        session.store,
        session.workspace.prepared,
        vectors,
        session.workspace.config.index,
        version=version,
        data_hash=session.workspace.data_hash,
        preprocessing_hash=preprocessing,
    )
    if result is None:
        return {"collection": name, "count": session.store.describe(name).count, "built": False}
    return {"collection": name, "built": True} | asdict(result)

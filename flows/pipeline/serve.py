"""The flow ``serve``: deploy the champion release on the running stack and ask it once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows import registry
from flows.pipeline.releases_step import go_live
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.session import Session, open_session
from flows.runtime.stack_file import note_endpoint
from serving.client import MulanClient
from serving.deployment import build_app, deploy
from serving.release import Release, resolve_release


@flow(
    name="serve",
    description="Deploy the champion: model, preprocessing and index as one release.",
    timeout_seconds=1800,
    **FAILURE_HOOKS,
)
def serve(
    manifest: str | None = None,
    playlists: str | None = None,
    params: str | None = None,
    version: str | None = None,
) -> dict[str, Any]:
    """Deploy the champion release; see ``prepare`` for the first arguments.

    Args:
        version: deploy this one instead, an alias or version, and make it champion once it answers. Where it does not
            come up, champion and endpoint stay what they were.

    Returns:
        ``url``, the ``release`` that answers there and, with a ``version``, what became of tracks that were ``added``
        over the API; see ``go_live``.
    """
    with open_session(manifest, playlists, params) as session, session.stage("serve"):
        release = find_release(session, version or "champion")
        url = deploy_release(session, release)
        # Ready means that it has encoded a text and found a track; asking that needs no API key.
        served = MulanClient(url).ready()["release"]
        added = make_champion(session, release) if version else None
        return {"url": url, "release": served, "added": added}


def make_champion(session: Session, release: Release) -> dict[str, Any]:
    """Have the registry and Milvus name a release that is served already, or that nobody serves.

    Returns:
        What ``go_live`` says of the tracks that were added over the API.
    """
    registry.promote(release.model_version, mlflow_uri=session.settings.mlflow_uri)
    return go_live(session.store, release.collection, mlflow_uri=session.settings.mlflow_uri)


def find_release(session: Session, name: str) -> Release:
    """The release of an alias or version, with its model on this machine."""
    return resolve_release(name, mlflow_uri=session.settings.mlflow_uri, cache=session.settings.home / "models")


@task(name="deploy release", retries=1, retry_delay_seconds=5, timeout_seconds=900, cache_policy=NO_CACHE)
def deploy_release(session: Session, release: Release, shadow: Release | None = None, shadow_share: float = 0.0) -> str:
    """Check and deploy; Serve replaces the old release only when the new one answers."""
    config = replace(session.workspace.config.serve, host=session.host, allow_open=session.allow_open)
    session.check_gpus("serve.num_gpus", config.num_gpus)
    app = build_app(
        release.to_dict(),
        config,
        milvus_uri=session.stack.milvus_uri,
        milvus_token=session.settings.milvus_token,
        media_root=registry.media_root(release.model_version, mlflow_uri=session.settings.mlflow_uri),
        keys_file=session.settings.keys_file,
        log_folder=session.settings.query_log,
        shadow=shadow.to_dict() if shadow else None,
        shadow_share=shadow_share,
        places=session.places,
    )
    url = deploy(app, host=session.host, port=session.port)
    note_endpoint(session.settings, url)
    return url

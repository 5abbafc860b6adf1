"""The flow ``prepare``: DVC's stages over the catalogue, then a push to the DVC remote."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.pipeline import data
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.session import Session, open_session
from flows.runtime.storage import open_storage


@flow(name="prepare", description="Any audio and its texts to versioned shards.", **FAILURE_HOOKS)
def prepare(manifest: str | None = None, playlists: str | None = None, params: str | None = None) -> dict[str, Any]:
    """Prepare a catalogue; a second run with nothing changed does nothing.

    Args:
        manifest: table of tracks; null takes the working folder's catalogue (the demo in a checkout).
        playlists: table of playlists.
        params: the numbers, for an own manifest.
    """
    with open_session(manifest, playlists, params) as session, session.stage("prepare"):
        if remote := session.settings.dvc_remote:
            open_storage(remote, variable="MULAN_DVC_REMOTE")  # now, rather than after the work
        counts = data.reproduce(session.workspace, ray_address=session.stack.ray_address)
        push_data(session)
        return counts | {"data_hash": session.workspace.data_hash, "prepared": str(session.workspace.prepared)}


@task(name="push data", retries=2, retry_delay_seconds=5, timeout_seconds=3600, cache_policy=NO_CACHE)
def push_data(session: Session) -> None:
    """Copy new shards to the DVC remote."""
    data.push(session.workspace)

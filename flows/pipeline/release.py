"""The flows that change what is served: ``promote``, ``rollback``, ``shadow`` and ``prune``.

The order of a promotion: everything is checked, the endpoint is switched, then the registry and Milvus follow. What
fails before that leaves all three as they were.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows import registry
from flows.pipeline.releases_step import collections_to_drop, go_live
from flows.pipeline.serve import deploy_release, find_release, make_champion
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.numbers import CountOrNone
from flows.runtime.session import Session, open_session
from mulan_core.config import Share
from mulan_core.errors import UserError
from mulan_core.ranges import fit
from serving.deployment import is_deployed
from serving.release import Release, check_release


@flow(
    name="promote",
    description="Make a release champion, and serve it where an endpoint runs.",
    timeout_seconds=1800,
    **FAILURE_HOOKS,
)
def promote(manifest: str | None = None, params: str | None = None, *, version: str) -> dict[str, Any]:
    """Promote a release that the gate passed. A shadow release ends by it.

    Args:
        manifest, params: which workspace; see ``prepare``.
        version: an alias or version.

    Returns:
        ``release``, ``url`` of the endpoint that serves it now, null where none runs, and what became of tracks that
        were ``added`` over the API; see ``go_live``.
    """
    with open_session(manifest, None, params) as session, session.stage("promote"):
        uri = session.settings.mlflow_uri
        registry.check_gate(version, mlflow_uri=uri)
        release = find_release(session, version)
        url = _switch(session, release)
        return {"release": release.to_dict(), "url": url, "added": make_champion(session, release)}


@flow(
    name="rollback",
    description="Make the champion before this one champion again, and serve it.",
    timeout_seconds=1800,
    **FAILURE_HOOKS,
)
def rollback(manifest: str | None = None, params: str | None = None) -> dict[str, Any]:
    """Go back to the champion before this one; see ``promote``.

    Raises:
        UserError: if there was none, or its collection is gone.
    """
    with open_session(manifest, None, params) as session, session.stage("rollback"):
        uri = session.settings.mlflow_uri
        champions = registry.list_champions(mlflow_uri=uri)
        if len(champions) < 2:
            raise UserError("there is no champion before this one to go back to; see `mulan release list`")
        release = find_release(session, champions[-2])
        url = _switch(session, release)
        registry.demote(mlflow_uri=uri)
        added = go_live(session.store, release.collection, mlflow_uri=uri)
        return {"release": release.to_dict(), "url": url, "added": added}


@flow(
    name="shadow",
    description="Have a candidate release answer a share of the searches too, unseen.",
    timeout_seconds=1800,
    **FAILURE_HOOKS,
)
def shadow(
    manifest: str | None = None, params: str | None = None, *, version: str | None, share: float = 0.0
) -> dict[str, Any]:
    """Start a shadow release beside the champion, or stop it; it ends by a promotion or rollback too.

    Args:
        manifest, params: which workspace; see ``prepare``.
        version: an alias or version, built already; null stops the shadow.
        share: of the searches.

    Returns:
        ``url``, the champion as ``release``, and ``shadow``, null where it was stopped.

    Raises:
        UserError: if no endpoint runs.
    """
    share = fit(Share, share, "share")
    with open_session(manifest, None, params) as session, session.stage("shadow"):
        if not is_deployed():
            raise UserError("no endpoint runs here that could ask a candidate too; start one with `mulan serve`")
        release = find_release(session, "champion")
        candidate = find_release(session, version) if version else None
        url = deploy_release(session, release, candidate, share)
        return {"url": url, "release": release.to_dict(), "shadow": candidate.to_dict() if candidate else None}


@flow(
    name="prune",
    description="Drop the collections of releases that nobody goes back to.",
    timeout_seconds=1800,
    **FAILURE_HOOKS,
)
def prune(manifest: str | None = None, params: str | None = None, *, keep: int) -> dict[str, Any]:
    """Drop collections of old releases; models and reports stay in the registry.

    Args:
        manifest, params: which workspace; see ``prepare``.
        keep: champions before this one whose collections stay, for a rollback.

    Returns:
        ``dropped`` and ``kept``: names of collections.
    """
    keep = fit(CountOrNone, keep, "keep")
    with open_session(manifest, None, params) as session, session.stage("prune"):
        old, kept = collections_to_drop(keep, mlflow_uri=session.settings.mlflow_uri)
        dropped = [name for name in old if session.store.has(name)]
        for name in dropped:
            session.store.drop(name)
        return {"dropped": dropped, "kept": [name for name in kept if session.store.has(name)]}


def _switch(session: Session, release: Release) -> str | None:
    if not session.store.has(release.collection):
        raise UserError(
            f"the collection {release.collection} of version {release.model_version} is gone; `mulan index --model "
            f"{release.model_version}` builds it anew where the workspace has its data"
        )
    check_release(release, session.store)
    return deploy_release(session, release) if is_deployed() else None

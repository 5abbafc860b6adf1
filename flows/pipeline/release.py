"""The flows that change what is served: ``serve``, ``promote``, ``rollback``, ``shadow`` and ``prune``.

The order of a promotion: everything is checked, the endpoint is switched, then the registry and Milvus follow. What
fails before that leaves all three as they were.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.registry import Registry
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.numbers import CountOrNone
from flows.runtime.session import Session, open_session
from flows.runtime.stack_file import note_endpoint
from flows.runtime.terminal import errors
from mulan_core.config import Share
from mulan_core.errors import UserError
from mulan_core.ranges import fit
from serving.client import MulanClient
from serving.deployment import build_app, deploy, is_deployed, other_applications
from serving.release import Release, check_release
from serving.store import TrackStore


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
        release = session.registry.release(version or "champion")
        url = deploy_release(session, release)
        # Ready means that it has encoded a text and found a track; asking that needs no API key.
        served = MulanClient(url).ready()["release"]
        added = make_champion(session, release) if version else None
        return {"url": url, "release": served, "added": added}


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
        session.registry.check_gate(version)
        release = session.registry.release(version)
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
        registry = session.registry
        champions = registry.champions()
        if len(champions) < 2:
            raise UserError("there is no champion before this one to go back to; see `mulan release list`")
        release = registry.release(champions[-2])
        url = _switch(session, release)
        registry.demote()
        added = go_live(session.store, release.collection, registry)
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
        if not is_served(session):
            raise UserError(
                f"no endpoint of the catalogue {session.catalogue.name} runs here that could ask a candidate too; "
                "start one with `mulan serve`"
            )
        release = session.registry.release()
        candidate = session.registry.release(version) if version else None
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
        old, kept = collections_to_drop(keep, session.registry)
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
    return deploy_release(session, release) if is_served(session) else None


def is_served(session: Session) -> bool:
    """Whether the Ray of this session serves this catalogue; on a cluster it may be another one, left alone then."""
    return is_deployed(session.catalogue.model)


@task(name="deploy release", retries=1, retry_delay_seconds=5, timeout_seconds=900, cache_policy=NO_CACHE)
def deploy_release(session: Session, release: Release, shadow: Release | None = None, shadow_share: float = 0.0) -> str:
    """Check and deploy; Serve replaces the old release only when the new one answers. Returns the endpoint's URL."""
    config = replace(session.workspace.config.serve, host=session.host, allow_open=session.allow_open)
    session.check_gpus("serve.num_gpus", config.num_gpus)
    app = build_app(
        release.to_dict(),
        config,
        milvus_uri=session.stack.milvus_uri,
        milvus_token=session.settings.milvus_token,
        # Empty where no track is a local file: then none plays.
        media_root=session.registry.find(release.model_version).tag("media_root") or None,
        keys_file=session.settings.keys_file,
        log_folder=session.catalogue.query_log(session.settings.home),
        shadow=shadow.to_dict() if shadow else None,
        shadow_share=shadow_share,
        places=session.places,
    )
    if others := other_applications(session.catalogue.model):
        errors.print(f"mulan: the endpoint goes over from {', '.join(others)} to {session.catalogue.model}")
    url = deploy(app, host=session.host, port=session.port, name=session.catalogue.model)
    note_endpoint(session.state, url)
    return url


def make_champion(session: Session, release: Release) -> dict[str, Any]:
    """Have the registry and Milvus name a release that is served already, or that nobody serves.

    Returns:
        What ``go_live`` says of the tracks that were added over the API.
    """
    session.registry.promote(release.model_version)
    return go_live(session.store, release.collection, session.registry)


def go_live(store: TrackStore, collection: str, registry: Registry) -> dict[str, Any]:
    """Name a collection live; tracks that were added over the API to the one before go along.

    A vector means something to its own model alone, and the audio of these tracks was not kept, so a release of other
    weights does without them. The collection before keeps them all.

    Returns:
        ``carried``, how many tracks went along, and ``left``, the ids of those that could not.

    Raises:
        UserError: if Milvus is away, or has no such collection; the alias stays where it was.
    """
    before = store.live_collection()
    added = store.added(before, unknown_to=collection) if before and before != collection else []
    carries = bool(added) and _weights(store, before, registry) == _weights(store, collection, registry) is not None
    if carries:
        store.copy_added(added, str(before), collection)
    store.switch_alias(collection)
    return {"carried": len(added), "left": []} if carries else {"carried": 0, "left": added}


def _weights(store: TrackStore, collection: str | None, registry: Registry) -> str | None:
    version = registry.get(store.describe(str(collection)).properties.get("model_version", ""))
    return version.tag("weights") if version else None  # it was deleted since


def collections_to_drop(keep: int, registry: Registry) -> tuple[list[str], list[str]]:
    """Which collections nobody needs, and which are kept.

    Kept are those of the champion, of ``keep`` champions before it, of every version that an alias names, and of
    versions newer than the champion, which may be promoted yet.

    Raises:
        UserError: if there is no champion, so nothing is old.
    """
    champions = registry.champions()
    if not champions:
        raise UserError("there is no champion yet, so no release is old; see `mulan release list`")
    needed = set(champions[-1 - keep :])
    old: list[str] = []
    kept: list[str] = []
    for version in registry.versions():
        if collection := version.tag("collection"):
            is_needed = version.number in needed or version.aliases or int(version.number) > int(champions[-1])
            (kept if is_needed else old).append(collection)
    return [name for name in old if name not in kept], kept

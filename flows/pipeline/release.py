"""The flows that change what is served: ``serve``, ``promote``, ``rollback``, ``shadow`` and ``prune``.

All of them change what is live in one way (``switch.py``), one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.pipeline.switch import Live
from flows.registry import Registry
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.numbers import CountOrNone
from flows.runtime.session import Session, open_session
from flows.runtime.stack import need_ray
from flows.runtime.stack_file import note_endpoint
from flows.runtime.terminal import errors
from flows.runtime.workspace_lock import hold_switch
from mulan_core.config import Share
from mulan_core.errors import UserError
from mulan_core.ranges import fit
from serving.applications import is_deployed, other_applications, served_version
from serving.client import MulanClient
from serving.release import Release


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
        ``url``, the ``release`` that answers there, and ``edits``; see ``Live.bring_edits``.
    """
    with open_session(manifest, playlists, params) as session, session.stage("serve"), switching(session) as live:
        registry = live.registry
        release = registry.release(version or "champion")
        champions = registry.champions_with(release.model_version) if version else registry.champions()
        done = live.go_over(release, champions, start=True)
        # Ready means that it has encoded a text and found a track; asking that needs no API key.
        return done | {"release": MulanClient(done["url"]).ready()["release"]}


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
        ``release``; ``url`` of the endpoint that serves it now, or null and ``not_served``, a sentence; ``edits``, see
        ``Live.bring_edits``.
    """
    with open_session(manifest, None, params) as session, session.stage("promote"):
        session.registry.check_gate(version)
        with switching(session) as live:
            return make_live(session, live, version)


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
    with open_session(manifest, None, params) as session, session.stage("rollback"), switching(session) as live:
        release = live.registry.release(live.registry.champion_before())
        return _told(session, release, live.go_over(release, live.registry.champions()[:-1]))


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
    with open_session(manifest, None, params) as session, session.stage("shadow"), switching(session) as live:
        if not is_served(session):
            raise UserError(
                f"no endpoint of the catalogue {session.catalogue.name} runs here that could ask a candidate too; "
                "start one with `mulan serve`"
            )
        release = session.registry.release()
        candidate = session.registry.release(version) if version else None
        if candidate:
            live.bring_edits(candidate, release.collection)
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
    with open_session(manifest, None, params) as session, session.stage("prune"), switching(session):
        old, kept = collections_to_drop(keep, session.registry)
        dropped = [name for name in old if session.store.collections.has(name)]
        for name in dropped:
            session.store.collections.drop(name)
            session.edits.forget_rows(name)
        return {"dropped": dropped, "kept": [name for name in kept if session.store.collections.has(name)]}


@contextmanager
def switching(session: Session) -> Iterator[Live]:
    """Be the only one who changes what is live of a catalogue; what one that died has left is ended first.

    Raises:
        UserError: if another process is at it.
    """
    live = Live(session.registry, session.store, session.edits, session.state, ServedHere(session))
    with hold_switch(session.state):
        live.recover()
        yield live


def make_live(session: Session, live: Live, version: str) -> dict[str, Any]:
    """Promote a version; returns what ``promote`` does."""
    release = live.registry.release(version)
    return _told(session, release, live.go_over(release, live.registry.champions_with(release.model_version)))


def _told(session: Session, release: Release, done: dict[str, Any]) -> dict[str, Any]:
    return done | {"release": release.to_dict(), "not_served": None if done["url"] else why_not_served(session)}


@dataclass(frozen=True)
class ServedHere:
    """The endpoint of a session's catalogue on the session's stack."""

    session: Session

    def runs(self) -> bool:
        """See ``switch.Endpoint``."""
        return is_served(self.session)

    def version(self) -> str | None:
        """See ``switch.Endpoint``."""
        return served_version(self.session.catalogue.model)

    def deploy(self, release: Release) -> str:
        """See ``switch.Endpoint``."""
        return deploy_release(self.session, release)


def why_not_served(session: Session) -> str:
    """Why no endpoint went over with the registry, and what to do, as the end of a sentence."""
    name = session.catalogue.name
    if others := other_applications(session.catalogue.model):
        return (
            f"{', '.join(others)} answers on this Ray cluster and was left alone; `mulan serve --catalogue {name}` "
            "puts this one in its place"
        )
    return "no endpoint of it runs here; `mulan serve` serves it, and one elsewhere takes it when it starts anew"


def is_served(session: Session) -> bool:
    """Whether the Ray of this session serves this catalogue; on a cluster it may be another one, left alone then."""
    return is_deployed(session.catalogue.model)


@task(name="deploy release", retries=1, retry_delay_seconds=5, timeout_seconds=900, cache_policy=NO_CACHE)
def deploy_release(session: Session, release: Release, shadow: Release | None = None, shadow_share: float = 0.0) -> str:
    """Check and deploy; Serve replaces the old release only when the new one answers. Returns the endpoint's URL."""
    config = replace(session.workspace.config.serve, host=session.host, allow_open=session.allow_open)
    need_ray()
    from serving.deployment import build_app, deploy  # here: it imports torch

    session.check_gpus("serve.num_gpus", config.num_gpus)
    app = build_app(
        release.to_dict(),
        config,
        milvus_uri=session.stack.milvus_uri,
        milvus_token=session.settings.milvus_token,
        edits=session.edits.location,
        # Empty where no track is a local file: then none plays.
        media_root=session.registry.find(release.model_version).tag("media_root") or None,
        keys_file=session.settings.keys_file,
        log_folder=session.catalogue.query_log(session.settings.home),
        shadow=shadow.to_dict() if shadow else None,
        shadow_share=shadow_share,
        places=session.places,
        catalogue=session.catalogue.name,
    )
    if others := other_applications(session.catalogue.model):
        errors.print(f"mulan: the endpoint goes over from {', '.join(others)} to {session.catalogue.model}")
    url = deploy(app, host=session.host, port=session.port, name=session.catalogue.model)
    note_endpoint(session.state, url, session.host, allow_open=session.allow_open)
    return url


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

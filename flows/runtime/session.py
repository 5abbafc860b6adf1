"""What every flow needs: settings, one workspace and the running stack, opened once and shared by subflows.

The heavy libraries are imported where they are used, so that a mistake is told in a second or two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flows.runtime import ending
from flows.runtime.catalogues import Catalogue, find_catalogue
from flows.runtime.damage import damage_behind
from flows.runtime.database import database_path
from flows.runtime.endpoint import choose_port, reserved
from flows.runtime.moved import make_home, read_places, settle
from flows.runtime.settings import Settings, read_settings
from flows.runtime.stack import Stack, need_ray, open_stack, taken
from flows.runtime.stack_file import note_endpoint, running_stack
from flows.runtime.workspace import Workspace, open_workspace
from flows.runtime.workspace_lock import hold
from mulan_core.config import Port
from mulan_core.errors import UserError
from mulan_core.ranges import fit
from serving.keys import KeyFile, check_exposed
from serving.places import Places
from serving.ports import check_port_free, url_of

if TYPE_CHECKING:
    from flows.registry import Registry
    from serving.edits import Edits
    from serving.store import TrackStore

_current: ContextVar[Session | None] = ContextVar("session", default=None)


@dataclass
class Session:
    """One catalogue on one stack."""

    settings: Settings
    workspace: Workspace
    stack: Stack
    host: str
    """Address that the endpoint binds."""
    port: int
    """Port of the endpoint."""
    allow_open: bool = False
    """The endpoint needs no keys, wherever it listens."""
    opened: float = field(default_factory=time.perf_counter)
    """When its services began to start, by ``time.perf_counter``."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds each stage took, in order."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Work on a stage alone, note how long it takes, and which one it was that failed.

        Raises:
            UserError: if another process works on this catalogue in a way that the two would disturb each other.
        """
        ending.check()
        started = time.perf_counter()
        try:
            with hold(self.workspace.folder, name):
                yield
        except Exception as error:
            damaged = damage_behind(error, [self.workspace.folder / ".mulan" / "data", self.embeddings])
            (damaged or error).add_note(f"in stage {name}")
            if damaged:
                raise damaged from error
            raise
        finally:
            self.stages[name] = time.perf_counter() - started

    @cached_property
    def store(self) -> TrackStore:
        """The vector store; one client, which connects when it is first asked and hangs up with the session."""
        from serving.store import TrackStore

        return TrackStore(self.stack.milvus_uri, token=self.settings.milvus_token, live=self.catalogue.live_alias)

    def close(self) -> None:
        """Hang up on the store, where it was used."""
        if store := vars(self).pop("store", None):
            store.close()

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue's name, and what goes by it."""
        return find_catalogue(self.settings.home, self.workspace.folder)

    @property
    def state(self) -> Path:
        """The folder of what runs for the catalogue and what was done to it over the API."""
        return self.catalogue.state(self.settings.home)

    @property
    def edits(self) -> Edits:
        """What was added to the catalogue and deleted from it over the API."""
        from flows.runtime.storage import open_edits

        return open_edits(self.settings, self.catalogue)

    @property
    def registry(self) -> Registry:
        """The catalogue's models."""
        from flows.registry import Registry

        return Registry.of(self.settings, self.catalogue)

    @property
    def places(self) -> Places:
        """Where the home is, and where it was before."""
        return read_places(self.settings.home)

    def check_exposed(self) -> None:
        """Refuse, before any work, an endpoint that others reach without keys.

        Raises:
            UserError: if ``host`` is wider than loopback and there is no key.
        """
        check_exposed(self.host, KeyFile(self.settings.keys_file), allow_open=self.allow_open)

    def check_gpus(self, field: str, number: float) -> None:
        """Refuse what would wait for ever: more GPUs than this machine's own Ray has. A cluster may get more nodes.

        Args:
            field: that asks for them, as params.yaml names it.
            number: how many in all.

        Raises:
            UserError: if there are fewer.
        """
        if number and self.settings.ray_address is None:
            import ray

            need_ray()

            has = ray.cluster_resources().get("GPU", 0.0)
            if has < number:
                raise UserError(
                    f"{field} asks for {number:g} GPUs and Ray finds {has:g} on this machine; change it, or name a "
                    "cluster that has them (RAY_ADDRESS)"
                )

    @property
    def embeddings(self) -> Path:
        """Folder of the vectors that models have made of clips."""
        return self.settings.home / "embeddings"


@contextmanager
def open_session(
    manifest: str | None = None,
    playlists: str | None = None,
    params: str | None = None,
    *,
    allow_overlap: bool = False,
    size: int | None = None,
    allow_outside: bool = False,
    moved: Mapping[str, str] | None = None,
    host: str | None = None,
    port: int | None = None,
    allow_open: bool = False,
    serves: bool = False,
    join: bool = True,
    ahead: str | None = None,
    demo: bool = False,
    ray_client: bool = False,
) -> Iterator[Session]:
    """Open workspace and stack, or hand out those of the flow around.

    Args:
        manifest, playlists, params, allow_overlap, allow_outside, moved, size, demo: see ``open_workspace``.
        host, port: of the endpoint, instead of the configured ones.
        allow_open: let the endpoint have no keys on an address that others reach.
        serves: an endpoint is to be deployed, so its port must be free unless a stack that is joined has it.
        join: use the stack of another process of the same catalogue; where False, such a stack is an error.
        ahead: a module to import while the services start.
        ray_client: Ray may be reached through its client (ray://), over which training works and Ray Data does not.

    Raises:
        UserError: for a wrong manifest or configuration, or a server that is away; before any work starts.
    """
    if (around := _current.get()) is not None:
        yield around
        return
    settings = _read_settings(ray_client=ray_client)
    port = fit(Port | None, port, "port")
    workspace = open_workspace(
        settings.home,
        manifest=manifest,
        playlists=playlists,
        params=params,
        allow_overlap=allow_overlap,
        allow_outside=allow_outside,
        moved=moved,
        size=size,
        demo=demo,
    )
    opened = time.perf_counter()
    catalogue = _open_home(settings, workspace, manifest)
    with (
        _address(settings, workspace, catalogue, host, port, allow_open=allow_open, serves=serves, join=join) as chosen,
        open_stack(settings, catalogue.state(settings.home), join=join, ahead=ahead) as stack,
    ):
        session = Session(settings, workspace, stack, *chosen, opened=opened)
        if not join:
            url = url_of(session.host, session.port)
            note_endpoint(session.state, url, session.host, allow_open=session.allow_open)
        with closing(session), _as_current(session):
            yield session


@contextmanager
def _as_current(session: Session) -> Iterator[None]:
    """Have flows that are called inside find the session."""
    token = _current.set(session)
    try:
        yield
    finally:
        _current.reset(token)


def _read_settings(*, ray_client: bool) -> Settings:
    """The settings, with a home that is there."""
    settings = read_settings()
    if (settings.ray_address or "").startswith("ray://") and not ray_client:
        raise UserError(
            f"only `mulan train` works through Ray's client ({settings.ray_address}): give RAY_ADDRESS as the head's "
            "host:port on a machine of the cluster, or submit the command as a Ray job"
        )
    # Ray and the flows' subprocesses change folders; relative paths in the settings are absolute by now.
    os.environ["MULAN_HOME"] = str(settings.home)
    make_home(settings.home)
    return settings


@contextmanager
def _address(
    settings: Settings,
    workspace: Workspace,
    catalogue: Catalogue,
    host: str | None,
    port: int | None,
    *,
    allow_open: bool,
    serves: bool,
    join: bool,
) -> Iterator[tuple[str, int, bool]]:
    """Host and port of the endpoint, and whether it needs no keys; told now where it cannot be had.

    After the services have started, or hours of training, it would be late. An endpoint that runs keeps what it was
    started with, whoever deploys to it.
    """
    serve = workspace.config.serve
    host, allow_open = host or serve.host, allow_open or serve.allow_open
    state = catalogue.state(settings.home)
    running = running_stack(state)
    if not join:
        check_exposed(host, KeyFile(settings.keys_file), allow_open=allow_open)
        if running:
            raise UserError(taken(state, running))
    if not join or (serves and running is None and settings.ray_address is None):
        port = port or choose_port(settings, catalogue, workspace, host)
        with reserved(settings.home, port):
            check_port_free(host, port)
            yield host, port, allow_open
    elif running and running.host:
        yield running.host, port or serve.port, running.allow_open
    else:
        yield host, port or serve.port, allow_open


def _open_home(settings: Settings, workspace: Workspace, manifest: str | None) -> Catalogue:
    """See that the servers answer, correct the records of a home that has moved, and note the catalogue as used."""
    from flows.upkeep import use

    _check_servers(settings)
    settle(settings.home, _own_database(settings), note=True)
    return use(settings, workspace, manifest=manifest)


def _own_database(settings: Settings) -> Path | None:
    database = database_path(settings.mlflow_uri)
    return database if database and database.parent == settings.home else None


def _check_servers(settings: Settings) -> None:
    """Try the servers that the user named, before any of ours is started."""
    from flows.runtime.tracking import check_tracking
    from serving.store import TrackStore

    check_tracking(settings.mlflow_uri)
    if settings.milvus_uri:
        with closing(TrackStore(settings.milvus_uri, token=settings.milvus_token)) as store:
            store.collections.ping()

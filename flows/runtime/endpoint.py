"""Where the endpoints of a home are: one a catalogue, each on a port of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from flows.runtime.catalogues import Catalogue, read_records
from flows.runtime.file_lock import is_locked, try_lock
from flows.runtime.settings import Settings
from flows.runtime.stack_file import running_stack
from flows.runtime.terminal import errors
from flows.runtime.workspace import Workspace, keep_numbers
from mulan_core.config import ServeConfig, load_config
from mulan_core.errors import UserError
from serving.ports import check_port_free, url_of

PORTS = "ports"
"""Folder of a home: a file for each port that one of its commands serves on, locked as long as that runs."""


def served(home: Path) -> dict[str, str]:
    """The catalogues that have an endpoint on this machine now, or soon: name -> URL."""
    stacks = {name: running_stack(catalogue.state(home)) for name, catalogue in read_records(home).all().items()}
    return {name: stack.endpoint for name, stack in stacks.items() if stack and stack.endpoint}


def endpoint_url(settings: Settings, catalogue: Catalogue) -> str | None:
    """Where a catalogue's endpoint is: MULAN_URL, where it is served, or where its configuration would have it.

    None where it is not served, and another catalogue has that address.
    """
    if settings.url:
        return settings.url
    here, serve = served(settings.home), endpoint_config(settings, catalogue)
    configured = url_of(serve.host, serve.port)
    return here.get(catalogue.name) or (None if configured in here.values() else configured)


def endpoint_config(settings: Settings, catalogue: Catalogue) -> ServeConfig:
    """How a catalogue's params serve; the defaults where it has none."""
    params = (catalogue.folder(settings.home) or Path.cwd()) / "params.yaml"
    return load_config(params).serve if params.is_file() else ServeConfig()


@contextmanager
def reserved(home: Path, port: int) -> Iterator[None]:
    """Keep a port from all other commands of this home: two servers that start at once would share it unnoticed.

    Raises:
        UserError: if another command is about to serve there.
    """
    (home / PORTS).mkdir(parents=True, exist_ok=True)
    with (home / PORTS / str(port)).open("w") as lock:
        if not try_lock(lock):
            raise UserError(
                f"another mulan of {home} serves on port {port} or is about to; choose another port (--port)"
            )
        yield


def choose_port(settings: Settings, catalogue: Catalogue, workspace: Workspace, host: str) -> int:
    """The configured port, or the next free one where the endpoint of another catalogue has it.

    An own catalogue keeps that as its ``serve.port``, so that its address stays. A line on stderr says so.
    """
    config = workspace.config
    wanted, others = config.serve.port, served(settings.home)
    others.pop(catalogue.name, None)
    owner = next((name for name, url in others.items() if url == url_of(host, wanted)), None)
    ports = settings.home / PORTS
    if owner is None and not is_locked(ports / str(wanted)):
        return wanted
    free = (port for port in count(wanted + 1) if _is_free(host, port) and not is_locked(ports / str(port)))
    port = next(port for port in free if url_of(host, port) not in others.values())
    owner = owner or "another catalogue"
    notice = f"mulan: {owner} is served on port {wanted}, so {catalogue.name} is served on port {port}"
    if catalogue.workspace:
        keep_numbers(workspace, replace(config, serve=replace(config.serve, port=port)))
        notice += f", from now on (serve.port in {workspace.folder / 'params.yaml'})"
    errors.print(notice)
    return port


def _is_free(host: str, port: int) -> bool:
    try:
        check_port_free(host, port)
    except UserError:
        if port >= 2**16:  # all above the wanted one are taken
            raise
        return False
    return True

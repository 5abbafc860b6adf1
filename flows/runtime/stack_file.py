"""``stack.json``: what runs for a catalogue, and where its endpoint is; of an owner that has died it says nothing.

It lies in the catalogue's state folder (``Catalogue.state``), so that each catalogue may have services of its own.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO

from flows.runtime.file_lock import is_locked
from flows.runtime.terminal import now
from mulan_core.files import write_whole

FILE, LOCK = "stack.json", "stack.lock"


@dataclass(frozen=True)
class Stack:
    """Addresses of what runs."""

    prefect_url: str
    """The API that flows report to."""
    milvus_uri: str
    ray_address: str
    """Empty where no stage has needed it so far; nothing is served then."""
    ray_auth_mode: str
    """``token`` where Ray turned on authentication by itself, as it does for a private cluster."""
    pid: int
    started: str
    endpoint: str | None = None
    """The endpoint's URL, where one is served, or is to be."""
    host: str | None = None
    """The address that it binds."""
    allow_open: bool = False
    """It needs no keys, wherever it listens."""


@dataclass(frozen=True)
class Owner:
    """The process that starts a stack."""

    pid: int
    started: str


def write_owner(lock: IO[str]) -> Owner:
    """Say in the lock that was just taken who has it, until the stack's own file tells more."""
    owner = Owner(os.getpid(), now())
    lock.truncate(0)
    lock.write(json.dumps(asdict(owner)))
    lock.flush()
    return owner


def starting(state: Path) -> Owner | None:
    """Who is starting the services of a catalogue; None where nobody is, or they run by now."""
    if not is_running(state) or read_stack(state):
        return None
    try:
        return Owner(**json.loads((state / LOCK).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # an owner of an earlier version says nothing
        return None


def running_stack(state: Path) -> Stack | None:
    """What runs for a catalogue; None where nothing does, or it is still starting.

    The kernel gives the owner's lock back when it dies, however it dies; the file stays behind.
    """
    return read_stack(state) if is_running(state) else None


def read_stack(state: Path) -> Stack | None:
    """What the file says; None where there is none that can be read."""
    try:
        content = json.loads((state / FILE).read_text(encoding="utf-8"))
        return Stack(**{field.name: content[field.name] for field in fields(Stack) if field.name in content})
    except (OSError, ValueError, TypeError):
        return None


def write_stack(state: Path, stack: Stack) -> None:
    """Replace the file; whoever reads it meanwhile sees the one before."""
    write_whole(state / FILE, json.dumps(asdict(stack)))


def note_endpoint(state: Path, url: str, host: str, *, allow_open: bool) -> None:
    """Keep where the endpoint of the running stack is and how it was started, for all who look for it."""
    if stack := read_stack(state):
        write_stack(state, replace(stack, endpoint=url, host=host, allow_open=allow_open))


def is_running(state: Path) -> bool:
    """Whether somebody owns a stack there, whatever the file says of it."""
    return is_locked(state / LOCK)

"""Who works on a catalogue: two flows at once on one state folder are kept apart, the second one by one sentence.

Preparing replaces the data that every other stage reads, so it wants the catalogue for itself; the others share it,
each stage with itself alone, since a stage and its double would write the same files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from flows.runtime.file_lock import is_locked, try_lock
from flows.runtime.terminal import now
from mulan_core.errors import UserError

REPLACES_DATA = "prepare"


@contextmanager
def hold(workspace: Path, stage: str, *, alone: bool = False) -> Iterator[None]:
    """Work on a stage of a workspace; the kernel lets go of it when this process ends, however it ends.

    Alone, no other stage is at work meanwhile.

    Raises:
        UserError: if another process is at work that this stage would disturb.
    """
    folder = workspace / ".mulan" / "at_work"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        own = held.enter_context((folder / stage).open("a+", encoding="utf-8"))
        data = held.enter_context((folder / "data").open("a+", encoding="utf-8"))
        _take(own, folder / stage, workspace)
        if not try_lock(data, shared=not alone and stage != REPLACES_DATA):
            others = [path for path in sorted(folder.iterdir()) if path.name not in (stage, "data")]
            busy = next((f"{path.name}, {_who(path)}" for path in others if is_locked(path)), "it has just ended")
            raise UserError(
                f"{stage} cannot begin while another stage of {workspace} is at work ({busy}): one of them "
                "wants it for itself; wait for it to end, or stop it"
            )
        _sign(own)
        yield


@contextmanager
def hold_switch(state: Path) -> Iterator[None]:
    """Be the only one who changes what is live of a catalogue; the lock lies with the journal, in its state.

    A working folder's catalogue has its state in the home, which several checkouts may share.

    Raises:
        UserError: if another process is at it.
    """
    path = _switch(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as own:
        _take(own, path, state)
        _sign(own)
        yield


def switch_at_work(state: Path) -> str | None:
    """Who changes what is live of a catalogue, in a few words; None where nobody does."""
    return _who(_switch(state)) if is_locked(_switch(state)) else None


def _switch(state: Path) -> Path:
    return state / "at_work" / "switch"


def _take(own: IO[str], path: Path, of: Path) -> None:
    if not try_lock(own):
        raise UserError(f"{path.name} of {of} is at work already ({_who(path)}); wait for it to end, or stop it")


def _sign(own: IO[str]) -> None:
    own.truncate(0)
    own.write(json.dumps({"process": os.getpid(), "since": now()}))
    own.flush()


def _who(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return "since a moment ago"
    return f"process {holder['process']}, since {holder['since']}"

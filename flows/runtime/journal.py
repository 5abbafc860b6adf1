"""The journal of a switch: what registry and Milvus said before it and are to say after it, kept until it has ended."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.runtime.catalogues import Catalogue
from flows.runtime.terminal import now
from flows.runtime.workspace_lock import switch_at_work
from mulan_core.errors import UserError
from mulan_core.files import write_whole

FILE = "switch.json"


@dataclass(frozen=True)
class Standing:
    """What is live by the registry and by Milvus."""

    champions: list[str]
    """See ``Registry.champions``; the last one is champion."""
    collection: str | None
    """The one that the alias names."""

    @property
    def version(self) -> str | None:
        """The champion."""
        return self.champions[-1] if self.champions else None


@dataclass(frozen=True)
class Journal:
    """A switch that has begun."""

    before: Standing
    after: Standing
    process: int
    since: str

    @classmethod
    def begin(cls, before: Standing, after: Standing) -> Journal:
        """That of this process, from now on."""
        return cls(before, after, os.getpid(), now())

    @property
    def words(self) -> str:
        """Which switch it is."""
        came = f"from version {self.before.version} " if self.before.version else ""
        return f"the switch {came}to version {self.after.version} (process {self.process}, {self.since})"


def read_journal(state: Path) -> Journal | None:
    """The switch of a catalogue that has not ended; None where none has begun.

    Args:
        state: the catalogue's folder of state.

    Raises:
        UserError: if the file is damaged.
    """
    path = state / FILE
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        before, after = (_standing(kept.pop(name)) for name in ("before", "after"))
        if after.version is None:
            raise ValueError
        return Journal(before, after, **kept)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise UserError(
            f"{path} cannot be read ({reason}), so a switch that was cut off cannot be ended; delete it, and promote "
            "the release that is to be live"
        ) from error


def _standing(kept: dict[str, Any]) -> Standing:
    standing = Standing(**kept)
    named = [*standing.champions, standing.collection or ""]
    if not isinstance(standing.champions, list) or not all(isinstance(name, str) for name in named):
        raise ValueError
    return standing


def write_journal(state: Path, journal: Journal) -> None:
    """Keep it; a crash leaves the whole file, or none."""
    state.mkdir(parents=True, exist_ok=True)
    write_whole(state / FILE, json.dumps(asdict(journal), indent=1))


def remove_journal(state: Path) -> None:
    """The switch has ended."""
    (state / FILE).unlink(missing_ok=True)


def unfinished_switch(home: Path, catalogue: Catalogue) -> str | None:
    """A switch of a catalogue that has begun and not ended, in a sentence; None where there is none.

    Raises:
        UserError: if its journal is damaged.
    """
    state = catalogue.state(home)
    journal = read_journal(state)
    if journal is None:
        return None
    if who := switch_at_work(state):
        return f"{journal.words} is under way; wait for {who}"
    return f"{journal.words} was cut off; the next command that serves, indexes or promotes ends it, and says how"

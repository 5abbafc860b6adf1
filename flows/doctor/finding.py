"""What a check of ``mulan doctor`` found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mulan_core.errors import without_secrets

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: Level
    said: str
    """What was found, in a few words."""
    todo: str = ""
    """What to do; empty where nothing is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", without_secrets(self.said))
        object.__setattr__(self, "todo", without_secrets(self.todo))


def ok(check: str, said: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", said)


def warning(check: str, said: str, todo: str) -> Finding:
    """It works, but not as it should."""
    return Finding(check, "warning", said, todo)


def failure(check: str, said: str, todo: str) -> Finding:
    """Something that is configured or needed does not work."""
    return Finding(check, "failure", said, todo)

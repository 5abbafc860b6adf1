"""What a check of ``mulan doctor`` found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mulan_core.errors import without_secrets

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class DoctorCheck:
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


def ok(check: str, said: str) -> DoctorCheck:
    """All is well."""
    return DoctorCheck(check, "ok", said)


def warning(check: str, said: str, todo: str) -> DoctorCheck:
    """It works, but not as it should."""
    return DoctorCheck(check, "warning", said, todo)


def failure(check: str, said: str, todo: str) -> DoctorCheck:
    """Something that is configured or needed does not work."""
    return DoctorCheck(check, "failure", said, todo)

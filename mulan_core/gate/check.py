"""What a check of the gate gives, and how it reads reports that may be malformed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

GateChecks = Iterator["GateCheck"]


@dataclass(frozen=True)
class GateCheck:
    """One check."""

    rule: str
    passed: bool | None
    """None where nothing was judged."""
    text: str
    """With its numbers."""


def look(report: Any, *path: str) -> Any:
    """The value at a path of nested mappings; None where the path ends early."""
    for key in path:
        if not isinstance(report, Mapping):
            return None
        report = report.get(key)
    return report


def problem(value: Any) -> str | None:
    """Why a value is not a usable number, or None."""
    if value is None:
        return "missing"
    return None if is_number(value) else f"{value!r}, not a finite number"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; truth values are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

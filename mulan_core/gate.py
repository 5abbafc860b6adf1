"""The promotion rule: may this candidate become champion? A pure function of two evaluation reports.

It fails closed. What is missing, not a finite number, measured on another set, or measured on too little is a
refusal, never a pass; so is a rule that checks nothing. Every metric of a report is better when higher. Nothing here
raises on a malformed report: the decision says what is wrong with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mulan_core.config import GateConfig

ITEMS: tuple[tuple[str, str], ...] = (
    ("tagging/held_out/", "held_out_tracks"),
    ("retrieval/title/", "title_queries"),
    ("retrieval/description/", "description_queries"),
    ("retrieval/text/", "text_queries"),
    ("triplets/", "triplet_anchors"),
    ("", "test_tracks"),
)
"""Start of a metric's name -> the count in the report's set that says on how many items it was measured."""


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why."""

    promote: bool
    """True only if every check passed and there was at least one."""
    reasons: tuple[str, ...]
    """Refused: each failed check. Promoted: each check that was passed. Every reason starts with its rule's name."""


def decide_promotion(candidate: Mapping[str, Any], champion: Mapping[str, Any] | None, rules: GateConfig) -> Decision:
    """Judge a candidate's report by the rules and, if there is one, against the champion's report.

    Args:
        candidate: report of ``mulan_core.evaluation.suite.evaluate``.
        champion: report of the champion on the same set; None if there is no champion yet.
        rules: floors, margin, metrics to compare, least number of items.
    """
    passed: list[str] = []
    failed: list[str] = []
    compare = rules.compare if champion is not None else ()
    if not rules.floors and not compare:
        failed.append("rules: neither a floor nor a comparison with a champion is set, so nothing would be checked")
    _check_set(candidate, champion, passed, failed)
    for name in dict.fromkeys((*rules.floors, *compare)):
        _check_items(candidate, name, rules.min_items, failed)
    for name, floor in rules.floors.items():
        _check_floor(candidate, name, floor, passed, failed)
    for name in compare:
        _check_against(candidate, champion, name, rules.margin, passed=passed, failed=failed)
    return Decision(False, tuple(dict.fromkeys(failed))) if failed else Decision(True, tuple(passed))


def _check_set(candidate: Any, champion: Any, passed: list[str], failed: list[str]) -> None:
    """The test set must be named, and be the champion's."""
    ours = _look(candidate, "set", "hash")
    if not isinstance(ours, str) or not ours:
        failed.append("set: the candidate's report does not name its test set (set.hash is missing)")
        return
    if champion is None:
        return
    theirs = _look(champion, "set", "hash")
    if theirs != ours:
        shown = theirs[:12] if isinstance(theirs, str) and theirs else "unknown"
        failed.append(
            f"set: the candidate was measured on set {ours[:12]}, the champion on {shown}; "
            "evaluate the champion on the candidate's set first"
        )
    else:
        passed.append(f"set: both were measured on set {ours[:12]}")


def _check_items(candidate: Any, name: str, min_items: int, failed: list[str]) -> None:
    key = next(key for start, key in ITEMS if name.startswith(start))
    count = _look(candidate, "set", "counts", key)
    if not _is_number(count):
        failed.append(f"min_items: {name}: the candidate's report does not say on how many {key} it was measured")
    elif not count >= max(1, min_items):
        failed.append(f"min_items: {name} was measured on {count} {key}, fewer than {max(1, min_items)}")


def _check_floor(candidate: Any, name: str, floor: Any, passed: list[str], failed: list[str]) -> None:
    value = _look(candidate, "metrics", name)
    problem = _problem(value)
    if problem:
        failed.append(f"floor: {name} of the candidate is {problem}; needed at least {floor}")
    elif not _is_number(floor) or not value >= floor:
        failed.append(f"floor: {name} is {value:.4f}, below {floor}")
    else:
        passed.append(f"floor: {name} is {value:.4f}, at least {floor}")


def _check_against(
    candidate: Any, champion: Any, name: str, margin: float, *, passed: list[str], failed: list[str]
) -> None:
    ours, theirs = _look(candidate, "metrics", name), _look(champion, "metrics", name)
    for who, value in (("candidate", ours), ("champion", theirs)):
        if _problem(value):
            failed.append(f"compare: {name} of the {who} is {_problem(value)}")
    if _problem(ours) or _problem(theirs):
        return
    # A NaN margin compares false and so refuses.
    if ours >= theirs - margin:
        passed.append(f"compare: {name} is {ours:.4f}, champion {theirs:.4f}, margin {margin}")
    else:
        failed.append(f"compare: {name} is {ours:.4f}, more than {margin} below the champion's {theirs:.4f}")


def _look(report: Any, *path: str) -> Any:
    """The value at a path of nested mappings; None where the path ends early."""
    for key in path:
        if not isinstance(report, Mapping):
            return None
        report = report.get(key)
    return report


def _problem(value: Any) -> str | None:
    """Why a value is not a usable metric, or None."""
    if value is None:
        return "missing"
    return None if _is_number(value) else f"{value!r}, not a finite number"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

"""The promotion rule: may this candidate become champion? A pure function of two evaluation reports.

It fails closed. What is missing, not a finite number, measured on another set, or measured on too little is a
refusal, never a pass; so is a gate that checks nothing. Nothing here raises on a malformed report: the decision says
what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mulan_core.config import GateConfig
from mulan_core.gate.behaviour import check_behaviour, check_cost
from mulan_core.gate.check import GateCheck
from mulan_core.gate.quality import check_champion, check_floors, check_items, check_rules, check_set
from mulan_core.gate.slices import check_slices


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why."""

    promote: bool
    """True only if every check passed and there was at least one."""
    reasons: tuple[str, ...]
    """Refused: each failed check. Promoted: each check that was passed. Every reason starts with its rule's name."""
    notes: tuple[str, ...] = ()
    """What was seen and not judged, such as slices of too few items."""


def decide_promotion(
    candidate: Mapping[str, Any],
    champion: Mapping[str, Any] | None,
    rules: GateConfig,
    comparison: Mapping[str, Any] | None = None,
) -> Decision:
    """Judge a candidate's report by the rules and, if there is one, against the champion's report.

    Args:
        candidate: report of the evaluation, with ``behaviour`` and ``cost`` where a rule asks for them.
        champion: report of the champion on the same set; None if there is no champion yet.
        rules: the ``gate`` section of the configuration.
        comparison: of champion (a) and candidate (b), as ``Comparison.as_mapping`` gives it; None where the evidence
            of one is lost. ``rules.paired`` needs it.
    """
    checks: list[GateCheck] = [
        *check_rules(champion, rules),
        *check_set(candidate, champion),
        *check_items(candidate, champion, rules),
        *check_floors(candidate, rules),
        *check_behaviour(candidate, rules),
        *check_cost(candidate, rules),
    ]
    if champion is not None:
        checks += [*check_champion(candidate, champion, rules, comparison), *check_slices(candidate, champion, rules)]
    failed = _texts(checks, passed=False)
    return Decision(not failed, failed or _texts(checks, passed=True), _texts(checks, passed=None))


def _texts(checks: list[GateCheck], *, passed: bool | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{check.rule}: {check.text}" for check in checks if check.passed is passed))

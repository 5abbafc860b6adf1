"""Is it fit to serve: how it behaves where nothing is to be found, how fast and how large it is."""

from __future__ import annotations

from typing import Any

from mulan_core.config import GateConfig
from mulan_core.gate.check import GateCheck, GateChecks, is_number, look, problem

MIN_TRACKS = 50
"""Among fewer test tracks a clip is in the first ten for nothing: by chance for one query in five and more."""
AGAIN = "evaluate it again, with `mulan evaluate`"


def check_behaviour(candidate: Any, rules: GateConfig) -> GateChecks:
    """Silence and noise stay out of the first hits; a negated label scores below the label."""
    tracks = look(candidate, "set", "counts", "test_tracks")
    if rules.max_intrusion is not None:
        for clip in ("silence", "noise"):
            share = look(candidate, "behaviour", clip, "share")
            chance = look(candidate, "behaviour", clip, "chance")
            if lack := problem(share) or problem(chance):
                text = f"how often {clip} is among the first hits is {lack}; {AGAIN}"
                yield GateCheck("max_intrusion", False, text)
                continue
            text = f"{clip} is among the first hits of {share:.4f} of the queries, chance {chance:.4f}"
            if is_number(tracks) and tracks < MIN_TRACKS:
                text += f"; not judged, {tracks} test tracks are fewer than {MIN_TRACKS}"
                yield GateCheck("max_intrusion", None, text)
            elif share <= chance + rules.max_intrusion:
                yield GateCheck("max_intrusion", True, f"{text}, allowed {rules.max_intrusion} beyond it")
            else:
                yield GateCheck("max_intrusion", False, f"{text}, more than {rules.max_intrusion} beyond it")
    if rules.min_negation is not None:
        below = look(candidate, "behaviour", "negation", "below")
        if lack := problem(below):
            yield GateCheck("min_negation", False, f"how often a negated label scores below it is {lack}; {AGAIN}")
        else:
            text = f"a negated label scores below the label on {below:.4f} of the label's tracks"
            passed = below >= rules.min_negation
            yield GateCheck("min_negation", passed, f"{text}, {'at least' if passed else 'below'} {rules.min_negation}")


def check_cost(candidate: Any, rules: GateConfig) -> GateChecks:
    """Budgets of latency and size."""
    machine = look(candidate, "cost", "machine") or "an unnamed machine"
    budgets: list[tuple[str, str, str, Any]] = [
        ("max_encode_ms", f"encode_ms_{side}", f" ms on {machine}", budget)
        for side, budget in rules.max_encode_ms.items()
    ]
    if rules.max_parameters is not None:
        budgets.append(("max_parameters", "parameters", "", rules.max_parameters))
    for rule, key, unit, budget in budgets:
        value = look(candidate, "cost", key)
        if lack := problem(value):
            yield GateCheck(rule, False, f"{key} of the candidate is {lack}; allowed {budget}; {AGAIN}")
            continue
        passed = is_number(budget) and value <= budget
        digits = 0 if isinstance(value, int) else 1
        yield GateCheck(
            rule, passed, f"{key} is {value:,.{digits}f}{unit}, {'at most' if passed else 'above'} {budget:,}"
        )

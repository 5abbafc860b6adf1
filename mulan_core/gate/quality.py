"""Is it good, and not worse than the champion: set, number of items, floors, differences with their intervals."""

from __future__ import annotations

from typing import Any

from mulan_core.config import GateConfig
from mulan_core.evaluation.metrics import is_better_lower
from mulan_core.gate.check import GateCheck, GateChecks, is_number, look, problem

ITEMS: tuple[tuple[str, str], ...] = (
    ("tagging/held_out/", "held_out_tracks"),
    ("retrieval/title/", "title_queries"),
    ("retrieval/description/", "description_queries"),
    ("retrieval/text/", "text_queries"),
    ("retrieval/caption/", "caption_queries"),
    ("triplets/", "triplet_anchors"),
    ("", "test_tracks"),
)
"""Start of a metric's name -> the count in the report's set that says on how many items it was measured."""
MIN_ITEMS, MAX_ITEMS = 5, 20
"""Ends of the range in which ``min_items`` follows the catalogue."""
SAME = 1e-3
"""How far a comparison's values may be from the reports': evidence has single precision."""


def least_items(rules: GateConfig, test_tracks: Any) -> int:
    """On how many items a metric must be measured: ``min_items``, or what follows from the number of test tracks.

    With 20 a mean moves by a twentieth for one odd item. A small catalogue has no 20: there a third of the test tracks
    will do, so that some of them may lack a text or share one, but under 5 any number is an accident.

    >>> [least_items(GateConfig(), tracks) for tracks in (0, 12, 30, 60, 1000)]
    [5, 5, 10, 20, 20]
    """
    if rules.min_items is not None:
        return max(1, rules.min_items)
    return min(MAX_ITEMS, max(MIN_ITEMS, int(test_tracks) // 3)) if is_number(test_tracks) else MAX_ITEMS


def check_rules(champion: Any, rules: GateConfig) -> GateChecks:
    """A gate that checks no quality refuses."""
    if not rules.floors and not (rules.compare and champion is not None):
        yield GateCheck(
            "rules", False, "neither a floor nor a comparison with a champion is set, so nothing would be checked"
        )


def check_set(candidate: Any, champion: Any) -> GateChecks:
    """The test set must be named, and be the champion's."""
    candidate_set, champion_set = look(candidate, "set", "hash"), look(champion, "set", "hash")
    if not isinstance(candidate_set, str) or not candidate_set:
        yield GateCheck("set", False, "the candidate's report does not name its test set (set.hash is missing)")
    elif champion is not None and champion_set != candidate_set:
        shown = champion_set[:12] if isinstance(champion_set, str) and champion_set else "unknown"
        yield GateCheck(
            "set",
            False,
            f"the candidate was measured on set {candidate_set[:12]}, the champion on {shown}; "
            "evaluate the champion on the candidate's set first",
        )
    elif champion is not None:
        yield GateCheck("set", True, f"both were measured on set {candidate_set[:12]}")


def check_items(candidate: Any, champion: Any, rules: GateConfig) -> GateChecks:
    """Each metric that a rule names was measured on enough."""
    least = least_items(rules, look(candidate, "set", "counts", "test_tracks"))
    for name in dict.fromkeys((*rules.floors, *(rules.compare if champion is not None else ()))):
        key = next(key for start, key in ITEMS if name.startswith(start))
        count = look(candidate, "set", "counts", key)
        if not is_number(count):
            text = f"{name}: the candidate's report does not say on how many {key} it was measured"
            yield GateCheck("min_items", False, text)
        elif not count >= least:
            yield GateCheck("min_items", False, f"{name} was measured on {count} {key}, fewer than {least}")


def check_floors(candidate: Any, rules: GateConfig) -> GateChecks:
    """Each metric reaches its floor; of one that is better when lower, the floor is the most that is allowed."""
    for name, floor in rules.floors.items():
        value = look(candidate, "metrics", name)
        lower = is_better_lower(name)
        wanted = f"at {'most' if lower else 'least'} {floor}"
        if lack := problem(value):
            yield GateCheck("floor", False, f"{name} of the candidate is {lack}; needed {wanted}")
        elif is_number(floor) and (value <= floor if lower else value >= floor):
            yield GateCheck("floor", True, f"{name} is {value:.4f}, {wanted}")
        else:
            yield GateCheck("floor", False, f"{name} is {value:.4f}, {'above' if lower else 'below'} {floor}")


def check_champion(candidate: Any, champion: Any, rules: GateConfig, comparison: Any) -> GateChecks:
    """Each compared metric is at most its margin worse than the champion's: shown by the interval, or as it stands."""
    for name in rules.compare:
        margin = rules.margins.get(name, rules.margin)
        values = look(candidate, "metrics", name), look(champion, "metrics", name)
        lost = [
            (who, lack)
            for who, value in zip(("candidate", "champion"), values, strict=True)
            if (lack := problem(value))
        ]
        for who, lack in lost:
            yield GateCheck("compare", False, f"{name} of the {who} is {lack}")
        if not is_number(margin):
            yield GateCheck("compare", False, f"{name}: the margin is {margin!r}, not a finite number")
        elif not lost and rules.paired:
            yield _judge_interval(candidate, name, values, margin, comparison)
        elif not lost:
            yield _judge_values(name, values, margin)


def _judge_values(name: str, values: tuple[float, float], margin: float) -> GateCheck:
    sign = -1 if is_better_lower(name) else 1
    candidate, champion = values
    if sign * candidate >= sign * champion - margin:  # not by their difference, which rounds
        return GateCheck("compare", True, f"{name} is {candidate:.4f}, champion {champion:.4f}, margin {margin}")
    side = "above" if sign < 0 else "below"
    text = f"{name} is {candidate:.4f}, more than {margin} {side} the champion's {champion:.4f}"
    return GateCheck("compare", False, text)


def _judge_interval(
    candidate: Any, name: str, values: tuple[float, float], margin: float, comparison: Any
) -> GateCheck:
    """The unfavourable end of the difference's paired interval must lie within the margin."""
    difference = look(comparison, "metrics", name)
    interval = look(difference, "interval")
    compared = look(difference, "b"), look(difference, "a")
    if look(comparison, "set", "hash") != look(candidate, "set", "hash"):
        text = (
            "there is no comparison on this set, which needs the evidence of both; `mulan evaluate champion` leaves it"
        )
        return GateCheck("compare", False, f"{name}: {text}")
    if not (isinstance(interval, (list, tuple)) and len(interval) == 2 and all(map(is_number, interval))):
        return GateCheck("compare", False, f"{name}: the difference from the champion has no paired interval")
    if not all(is_number(given) and abs(given - value) < SAME for given, value in zip(compared, values, strict=True)):
        return GateCheck(
            "compare", False, f"{name}: the comparison is of other models ({compared[1]} to {compared[0]})"
        )
    worst, best = (-interval[1], -interval[0]) if is_better_lower(name) else interval
    text = f"{name} is {values[0]:.4f}, champion {values[1]:.4f}, difference {interval[0]:+.4f} to {interval[1]:+.4f}"
    if worst >= -margin:
        return GateCheck("compare", True, f"{text}, margin {margin}")
    if best >= 0:
        text += " (too wide to tell: more test items, a larger gate.margin, or gate.paired: false)"
    return GateCheck("compare", False, f"{text}: it may be more than {margin} worse")

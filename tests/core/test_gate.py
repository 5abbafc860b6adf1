"""The promotion rule: every way to fail is a refusal that names its rule and its numbers."""

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest

from mulan_core.config import GateConfig
from mulan_core.gate import ITEMS, Decision, decide_promotion

GENRE, TITLE, TRIPLETS = "tagging/genre/roc_auc", "retrieval/title/map", "triplets/playlist/accuracy"
HELD_OUT = "tagging/held_out/genre/roc_auc"
RULES = GateConfig(floors={GENRE: 0.7}, margin=0.01, compare=(GENRE, TITLE), min_items=20)


def report(**changes: Any) -> dict[str, Any]:
    """A good report; keyword arguments replace metrics by their last words."""
    metrics = {GENRE: 0.85, TITLE: 0.30, TRIPLETS: 0.9, HELD_OUT: 0.8}
    names = {"genre": GENRE, "title": TITLE, "triplets": TRIPLETS, "held_out": HELD_OUT}
    return {
        "set": {
            "hash": "a" * 64,
            "counts": {
                "test_tracks": 120,
                "held_out_tracks": 30,
                "title_queries": 40,
                "description_queries": 40,
                "triplet_anchors": 40,
            },
        },
        "metrics": metrics | {names[key]: value for key, value in changes.items()},
    }


def without(mapping: dict[str, Any], *path: str) -> dict[str, Any]:
    changed = copy.deepcopy(mapping)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


def refused(decision: Decision, *words: str) -> None:
    assert not decision.promote
    assert any(all(word in reason for word in words) for reason in decision.reasons), decision.reasons


def test_the_first_model_passes_over_its_floors() -> None:
    decision = decide_promotion(report(), None, RULES)
    assert decision == Decision(True, (f"floor: {GENRE} is 0.8500, at least 0.7",))


def test_a_better_model_passes_and_says_what_it_passed() -> None:
    decision = decide_promotion(report(genre=0.9), report(), RULES)
    assert decision.promote
    assert len(decision.reasons) == 4  # the set, the floor, two comparisons
    assert any(
        reason.startswith("compare:") and "0.9000" in reason and "0.8500" in reason for reason in decision.reasons
    )


@pytest.mark.parametrize(
    ("title", "promoted"), [(0.30, True), (0.295, True), (0.285, False), (0.0, False), (1.0, True)]
)
def test_the_margin_below_the_champion(title: float, promoted: bool) -> None:
    decision = decide_promotion(report(title=title), report(), RULES)
    assert decision.promote is promoted
    if not promoted:
        refused(decision, "compare", TITLE, f"{title:.4f}", "0.3000", "0.01")


def test_an_equal_model_passes_without_a_margin_and_a_worse_one_does_not() -> None:
    rules = GateConfig(compare=(GENRE,), margin=0.0)
    assert decide_promotion(report(), report(), rules).promote
    assert not decide_promotion(report(genre=math.nextafter(0.85, 0)), report(), rules).promote


def test_a_negative_margin_asks_for_progress() -> None:
    rules = GateConfig(compare=(GENRE,), margin=-0.02)
    assert not decide_promotion(report(genre=0.86), report(), rules).promote
    assert decide_promotion(report(genre=0.875), report(), rules).promote


@pytest.mark.parametrize("value", [0.6999999, 0.0, -1.0])
def test_below_the_floor(value: float) -> None:
    refused(decide_promotion(report(genre=value), None, RULES), "floor", GENRE, "0.7")


def test_exactly_on_the_floor_passes() -> None:
    assert decide_promotion(report(genre=0.7), None, RULES).promote


def test_a_floor_holds_beside_a_weak_champion() -> None:
    refused(decide_promotion(report(genre=0.6), report(genre=0.5), RULES), "floor", GENRE, "0.6000")


BAD = [math.nan, math.inf, -math.inf, None, "0.9", True, [0.9], np.float64("nan")]


@pytest.mark.parametrize("value", BAD)
def test_a_metric_that_is_no_number_is_refused(value: Any) -> None:
    refused(decide_promotion(report(genre=value), None, RULES), "floor", GENRE)
    refused(decide_promotion(report(title=value), report(), RULES), "compare", TITLE, "candidate")
    refused(decide_promotion(report(), report(title=value), RULES), "compare", TITLE, "champion")


def test_a_missing_metric_is_refused() -> None:
    refused(decide_promotion(without(report(), "metrics", GENRE), None, RULES), "floor", GENRE, "missing")
    refused(decide_promotion(without(report(), "metrics", TITLE), report(), RULES), "candidate", "missing")
    refused(decide_promotion(report(), without(report(), "metrics", TITLE), RULES), "champion", "missing")


def test_another_test_set_is_refused() -> None:
    other = report()
    other["set"]["hash"] = "b" * 64
    refused(decide_promotion(report(), other, RULES), "set", "a" * 12, "b" * 12)


@pytest.mark.parametrize("value", [None, "", 7])
def test_an_unnamed_test_set_is_refused_even_when_both_are(value: Any) -> None:
    unnamed = report()
    unnamed["set"]["hash"] = value
    refused(decide_promotion(unnamed, None, RULES), "set", "hash")
    refused(decide_promotion(unnamed, copy.deepcopy(unnamed), RULES), "set", "hash")
    refused(decide_promotion(report(), unnamed, RULES), "set", "unknown")


@pytest.mark.parametrize(
    ("metric", "count"),
    [
        (GENRE, "test_tracks"),
        ("probe/genre/roc_auc", "test_tracks"),
        (HELD_OUT, "held_out_tracks"),
        (TITLE, "title_queries"),
        ("retrieval/description/map", "description_queries"),
        (TRIPLETS, "triplet_anchors"),
    ],
)
@pytest.mark.parametrize("value", [19, 0, -5, None, math.nan, "many", True])
def test_a_metric_measured_on_too_little_is_refused(metric: str, count: str, value: Any) -> None:
    small = report()
    small["metrics"][metric] = 0.99
    rules = GateConfig(floors={metric: 0.5}, min_items=20)
    assert decide_promotion(small, None, rules).promote
    small["set"]["counts"][count] = value
    refused(decide_promotion(small, None, rules), "min_items", metric)
    refused(decide_promotion(without(small, "set", "counts", count), None, rules), "min_items", metric)


def test_no_items_are_too_few_whatever_the_rule_says() -> None:
    empty = report()
    empty["set"]["counts"]["test_tracks"] = 0
    refused(decide_promotion(empty, None, GateConfig(floors={GENRE: 0.5}, min_items=0)), "min_items")


def test_a_gate_that_checks_nothing_refuses() -> None:
    nothing = GateConfig()
    refused(decide_promotion(report(), None, nothing), "rules", "nothing")
    refused(decide_promotion(report(), report(), nothing), "rules", "nothing")
    refused(decide_promotion(report(), None, GateConfig(compare=(GENRE,))), "rules", "nothing")
    assert decide_promotion(report(), report(), GateConfig(compare=(GENRE,))).promote


def test_numbers_in_the_rules_that_are_none_refuse() -> None:
    refused(decide_promotion(report(), None, GateConfig(floors={GENRE: math.nan})), "floor")
    refused(decide_promotion(report(), report(), GateConfig(compare=(GENRE,), margin=math.nan)), "compare")


@pytest.mark.parametrize(
    "broken", [{}, {"metrics": None}, {"set": None}, {"set": [], "metrics": []}, None, "report", 3]
)
def test_a_malformed_report_is_refused_without_an_exception(broken: Any) -> None:
    assert not decide_promotion(broken, None, RULES).promote
    assert not decide_promotion(broken, report(), RULES).promote
    if broken is not None:
        assert not decide_promotion(report(), broken, RULES).promote


def test_every_failed_check_is_named() -> None:
    bad = report(genre=0.1, title=math.nan)
    bad["set"]["counts"]["test_tracks"] = 3
    decision = decide_promotion(bad, report(), RULES)
    rules = {reason.split(":")[0] for reason in decision.reasons}
    assert rules == {"floor", "compare", "min_items"}
    assert len(decision.reasons) == len(set(decision.reasons))


def test_promotion_needs_every_check_over_a_grid() -> None:
    """Against a restatement: promote iff both metrics are above floor and champion less margin."""
    values = (0.0, 0.5, 0.69, 0.7, 0.71, 0.9, math.nan)
    for genre, title, champion in itertools.product(values, values, values):
        decision = decide_promotion(report(genre=genre, title=title), report(genre=champion, title=champion), RULES)
        expected = genre >= 0.7 and genre >= champion - 0.01 and title >= champion - 0.01
        assert decision.promote is expected, (genre, title, champion, decision.reasons)
        assert decision.reasons


def test_the_decision_is_pure() -> None:
    candidate, champion = report(), report()
    before = copy.deepcopy((candidate, champion))
    assert decide_promotion(candidate, champion, RULES) == decide_promotion(candidate, champion, RULES)
    assert (candidate, champion) == before


def test_every_metric_name_has_a_count() -> None:
    assert ITEMS[-1][0] == ""

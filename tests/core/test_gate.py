"""The promotion rule: every way to fail is a refusal that names its rule and its numbers."""

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mulan_core.config import GateConfig
from mulan_core.errors import UserError
from mulan_core.gate import Decision, decide_promotion
from mulan_core.gate.quality import ITEMS, least_items

GENRE, TITLE, TRIPLETS = "tagging/genre/roc_auc", "retrieval/title/map", "triplets/playlist/accuracy"
HELD_OUT = "tagging/held_out/genre/roc_auc"
RULES = GateConfig(floors={GENRE: 0.7}, margin=0.01, compare=(GENRE, TITLE), min_items=20, paired=False)


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
    rules = GateConfig(compare=(GENRE,), paired=False, margin=0.0)
    assert decide_promotion(report(), report(), rules).promote
    assert not decide_promotion(report(genre=math.nextafter(0.85, 0)), report(), rules).promote


def test_a_negative_margin_asks_for_progress() -> None:
    rules = GateConfig(compare=(GENRE,), paired=False, margin=-0.02)
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


@pytest.mark.parametrize(
    ("tracks", "least"), [(0, 5), (8, 5), (17, 5), (18, 6), (30, 10), (59, 19), (61, 20), (10**6, 20), (None, 20)]
)
def test_how_many_items_are_enough_follows_the_catalogue(tracks: int | None, least: int) -> None:
    small, rules = report(), GateConfig(floors={TITLE: 0.1})
    small["set"]["counts"] |= {"test_tracks": tracks, "title_queries": least}
    assert least_items(rules, tracks) == least
    assert decide_promotion(small, None, rules).promote
    small["set"]["counts"]["title_queries"] = least - 1
    refused(decide_promotion(small, None, rules), "min_items", f"fewer than {least}")


def test_no_items_are_too_few_whatever_the_rule_says() -> None:
    empty = report()
    empty["set"]["counts"]["test_tracks"] = 0
    refused(decide_promotion(empty, None, GateConfig(floors={GENRE: 0.5}, min_items=0)), "min_items")


def test_a_gate_that_checks_nothing_refuses() -> None:
    nothing = GateConfig()
    refused(decide_promotion(report(), None, nothing), "rules", "nothing")
    refused(decide_promotion(report(), report(), nothing), "rules", "nothing")
    refused(decide_promotion(report(), None, GateConfig(compare=(GENRE,))), "rules", "nothing")
    assert decide_promotion(report(), report(), GateConfig(compare=(GENRE,), paired=False)).promote


@pytest.mark.parametrize("wrong", [{"floors": {GENRE: math.nan}}, {"margin": math.nan}, {"margin": -math.inf}])
def test_rules_hold_no_numbers_that_are_none(wrong: Any) -> None:
    with pytest.raises(UserError, match=rf"gate\.{next(iter(wrong))}\S* is -?\.(nan|inf)"):
        GateConfig(compare=(GENRE,), **wrong)


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


RANK = "retrieval/title/median_rank"


def test_a_rank_is_better_when_lower() -> None:
    ranked = report()
    ranked["metrics"][RANK] = 4.0
    worse, better = copy.deepcopy(ranked), copy.deepcopy(ranked)
    worse["metrics"][RANK], better["metrics"][RANK] = 6.0, 2.0
    rules = GateConfig(floors={RANK: 5.0}, compare=(RANK,), margins={RANK: 1.0}, paired=False)
    assert decide_promotion(better, ranked, rules).promote
    refused(decide_promotion(worse, ranked, rules), "compare", "6.0000", "more than 1.0 above", "4.0000")
    refused(decide_promotion(worse, None, rules), "floor", "6.0000", "above 5.0")
    assert decide_promotion(ranked, None, rules).reasons == (f"floor: {RANK} is 4.0000, at most 5.0",)


def comparison(**intervals: tuple[float, float]) -> dict[str, Any]:
    """As ``Comparison.as_mapping`` gives it, of two models with the values of ``report()``."""
    names = {"genre": (GENRE, 0.85), "rank": (RANK, 4.0)}
    metrics = {
        names[key][0]: {"a": names[key][1], "b": names[key][1], "interval": list(interval)}
        for key, interval in intervals.items()
    }
    return {"set": {"hash": "a" * 64}, "metrics": metrics}


PAIRED = GateConfig(compare=(GENRE,), margin=0.02)


@pytest.mark.parametrize(
    ("interval", "promoted"),
    [((0.0, 0.0), True), ((-0.02, 0.01), True), ((-0.021, 0.05), False), ((-0.03, -0.01), False), ((0.01, 0.02), True)],
)
def test_the_paired_interval_must_lie_within_the_margin(interval: tuple[float, float], promoted: bool) -> None:
    decision = decide_promotion(report(), report(), PAIRED, comparison(genre=interval))
    assert decision.promote is promoted
    if not promoted:
        refused(decision, "compare", GENRE, f"{interval[0]:+.4f} to {interval[1]:+.4f}", "more than 0.02 worse")
        too_wide = "too wide to tell" in decision.reasons[0]
        assert too_wide is (interval[1] >= 0)


def test_the_unfavourable_end_of_a_rank_is_the_upper_one() -> None:
    ranked = report()
    ranked["metrics"][RANK] = 4.0
    rules = GateConfig(compare=(RANK,), margins={RANK: 1.0})
    assert decide_promotion(ranked, ranked, rules, comparison(rank=(-3.0, 1.0))).promote
    refused(decide_promotion(ranked, ranked, rules, comparison(rank=(-1.0, 1.5))), "compare", "more than 1.0 worse")


def test_a_paired_rule_without_a_fitting_comparison_refuses() -> None:
    refused(decide_promotion(report(), report(), PAIRED), "compare", "no comparison on this set")
    good = comparison(genre=(0.0, 0.0))
    elsewhere = good | {"set": {"hash": "b" * 64}}
    refused(decide_promotion(report(), report(), PAIRED, elsewhere), "compare", "no comparison on this set")
    refused(decide_promotion(report(), report(), PAIRED, good | {"metrics": {}}), "compare", "no paired interval")
    refused(decide_promotion(report(genre=0.9), report(), PAIRED, good), "compare", "of other models")
    for interval in (None, [0.0], [math.nan, 0.0], ["0", "0"], 3):
        wrong = copy.deepcopy(good)
        wrong["metrics"][GENRE]["interval"] = interval
        refused(decide_promotion(report(), report(), PAIRED, wrong), "compare", "no paired interval")
    for broken in ({}, 3, [], {"set": 1, "metrics": 2}):
        assert not decide_promotion(report(), report(), PAIRED, broken).promote  # type: ignore[arg-type]


def sliced(**values: tuple[float, int]) -> dict[str, Any]:
    names = {"genre": ("facet", "genre", "roc_auc"), "lf": ("source", "lf", "text auc"), "jazz": ("class", "jazz", "x")}
    rows = [
        dict(zip(("kind", "name", "metric"), names[key], strict=True)) | {"value": value, "items": items}
        for key, (value, items) in values.items()
    ]
    return report() | {"slices": rows}


SLICES = GateConfig(floors={GENRE: 0.5}, slice_margin=0.05)


def test_no_slice_may_fall_below_the_champion() -> None:
    champion = sliced(genre=(0.9, 120), lf=(0.9, 40))
    fallen = decide_promotion(sliced(genre=(0.95, 120), lf=(0.8, 40)), champion, SLICES)
    refused(fallen, "slice_margin", "source lf text auc", "0.8000", "0.9000", "0.05", "40 items")
    assert len(fallen.reasons) == 1
    decision = decide_promotion(sliced(genre=(0.86, 120), lf=(0.9, 40)), champion, SLICES)
    assert decision.promote and sum(reason.startswith("slice_margin:") for reason in decision.reasons) == 2
    assert decide_promotion(sliced(genre=(0.1, 120)), None, SLICES).promote, "without a champion there is no fall"
    assert decide_promotion(sliced(lf=(0.1, 40)), champion, GateConfig(floors={GENRE: 0.5})).promote, "the rule is off"


def test_a_small_slice_is_told_and_not_judged() -> None:
    decision = decide_promotion(sliced(genre=(0.9, 120), lf=(0.1, 19)), sliced(genre=(0.9, 120), lf=(0.9, 19)), SLICES)
    assert decision.promote
    assert len(decision.notes) == 1 and "not judged, 19 items are fewer than 20" in decision.notes[0]
    assert decide_promotion(sliced(genre=(0.9, 120), jazz=(0.1, 90)), sliced(genre=(0.9, 120)), SLICES).promote
    by_class = GateConfig(floors={GENRE: 0.5}, slice_margin=0.05, slices=("class",))
    refused(decide_promotion(sliced(jazz=(0.1, 90)), sliced(jazz=(0.9, 90)), by_class), "slice_margin", "class jazz")


@pytest.mark.parametrize("value", BAD)
def test_slices_that_are_lost_or_no_number_refuse(value: Any) -> None:
    champion = sliced(genre=(0.9, 120))
    refused(decide_promotion(sliced(genre=(value, 120)), champion, SLICES), "slice_margin", "candidate")
    refused(decide_promotion(champion, sliced(genre=(value, 120)), SLICES), "slice_margin", "champion")
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value is True:
        refused(decide_promotion(sliced(genre=(0.9, value)), champion, SLICES), "slice_margin", "how many items")
    for lost in (report(), report() | {"slices": value}):
        refused(decide_promotion(lost, champion, SLICES), "slice_margin", "`mulan evaluate candidate`")
        refused(decide_promotion(champion, lost, SLICES), "slice_margin", "`mulan evaluate champion`")
    refused(decide_promotion(sliced(), sliced(), SLICES), "slice_margin", "neither report has a slice")
    refused(decide_promotion(sliced(lf=(0.9, 40)), champion, SLICES), "source lf text auc of the champion is missing")


def behaving(**changes: Any) -> dict[str, Any]:
    values = {
        "silence": 0.05,
        "noise": 0.05,
        "negation": 0.8,
        "text": 20.0,
        "clip": 200.0,
        "parameters": 1000,
    } | changes
    behaviour = {clip: {"share": values[clip], "chance": 0.04} for clip in ("silence", "noise")}
    return report() | {
        "behaviour": {**behaviour, "negation": {"below": values["negation"]}},
        "cost": {
            "encode_ms_text": values["text"],
            "encode_ms_clip": values["clip"],
            "parameters": values["parameters"],
            "machine": "a desk",
        },
    }


BEHAVIOUR = GateConfig(
    floors={GENRE: 0.5},
    max_intrusion=0.05,
    min_negation=0.7,
    max_encode_ms={"text": 50.0, "clip": 500.0},
    max_parameters=5000,
)


@pytest.mark.parametrize(
    ("field", "allowed", "too_far", "rule", "words"),
    [
        ("silence", 0.09, 0.0901, "max_intrusion", ("silence", "0.0901", "0.0400", "0.05")),
        ("noise", 0.09, 1.0, "max_intrusion", ("noise", "1.0000")),
        ("negation", 0.7, 0.69, "min_negation", ("0.6900", "below 0.7")),
        ("text", 50.0, 50.1, "max_encode_ms", ("encode_ms_text", "50.1 ms", "above 50", "a desk")),
        ("clip", 500.0, 900.0, "max_encode_ms", ("encode_ms_clip", "900.0 ms", "above 500")),
        ("parameters", 5000, 5001, "max_parameters", ("5,001", "above 5,000")),
    ],
)
def test_behaviour_and_budgets(field: str, allowed: float, too_far: float, rule: str, words: tuple[str, ...]) -> None:
    assert decide_promotion(behaving(**{field: allowed}), None, BEHAVIOUR).promote
    decision = decide_promotion(behaving(**{field: too_far}), None, BEHAVIOUR)
    refused(decision, rule, *words)
    assert len(decision.reasons) == 1
    for value in BAD:
        refused(decide_promotion(behaving(**{field: value}), None, BEHAVIOUR), rule)
    assert decide_promotion(behaving(**{field: too_far}), None, GateConfig(floors={GENRE: 0.5})).promote


def test_what_is_in_the_first_ten_of_a_few_tracks_is_told_and_not_judged() -> None:
    far = behaving(silence=1.0, noise=1.0)
    for tracks, passes in ((49, True), (50, False), (None, False), (math.nan, False)):
        far["set"]["counts"]["test_tracks"] = tracks
        decision = decide_promotion(far, None, replace(BEHAVIOUR, floors={TITLE: 0.1}))
        assert decision.promote is passes, decision
        told = [note for note in decision.notes if "not judged, 49 test tracks are fewer than 50" in note]
        assert len(told) == 2 * passes
    assert not decide_promotion(without(far, "behaviour", "noise"), None, BEHAVIOUR).promote


def test_behaviour_and_cost_that_nobody_measured_refuse() -> None:
    decision = decide_promotion(report(), None, BEHAVIOUR)
    rules = [reason.partition(":")[0] for reason in decision.reasons]
    assert rules == ["max_intrusion"] * 2 + ["min_negation"] + ["max_encode_ms"] * 2 + ["max_parameters"]
    assert all("missing" in reason and "`mulan evaluate`" in reason for reason in decision.reasons)
    for broken in ({"behaviour": 3, "cost": []}, {"behaviour": {"silence": 1}, "cost": None}):
        assert not decide_promotion(report() | broken, None, BEHAVIOUR).promote


@pytest.mark.parametrize(
    "wrong", [{"slices": ("genres",)}, {"max_encode_ms": {"query": 1.0}}, {"margins": {GENRE: 0.1}}]
)
def test_rules_that_name_nothing_are_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=rf"gate\.{next(iter(wrong))}(\[0\])? (is|has|names)"):
        GateConfig(floors={GENRE: 0.5}, **wrong)


def test_the_decision_is_pure() -> None:
    candidate, champion = report(), report()
    before = copy.deepcopy((candidate, champion))
    assert decide_promotion(candidate, champion, RULES) == decide_promotion(candidate, champion, RULES)
    assert (candidate, champion) == before


def test_every_metric_name_has_a_count() -> None:
    assert ITEMS[-1][0] == ""

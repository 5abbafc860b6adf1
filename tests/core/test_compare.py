"""Two models on one set: differences against plain loops, exact zeros, a model that is better by construction."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_page import Page
from test_suite import CONFIG as SUITE_CONFIG
from test_suite import catalogue, content_of, embed_texts, evaluate_both

from mulan_core.config import GateConfig
from mulan_core.errors import UserError
from mulan_core.evaluation.bootstrap import bootstrap_weights
from mulan_core.evaluation.compare import compare
from mulan_core.evaluation.compare_report import to_markdown, write_comparison
from mulan_core.evaluation.comparison import MAX_NAMED, Comparison, Difference
from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.metric_labels import metric_label
from mulan_core.evaluation.metrics import average_precision, roc_auc
from mulan_core.evaluation.suite import evaluate
from mulan_core.evaluation.triplets import triplet_accuracy
from mulan_core.gate import decide_promotion

Made = tuple[dict[str, Any], Evidence]
RANKS = ("retrieval/title/median_rank", "retrieval/description/median_rank")
APART = set(catalogue()["audio"]["test"][0][::4])
CONFIG = replace(SUITE_CONFIG, bootstrap=20)


def vague(texts: list[str]) -> np.ndarray:
    """A worse text tower for the same tracks."""
    noise = np.random.default_rng(3).standard_normal((len(texts), 128)) * 0.06
    vectors = embed_texts(texts) + noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def made() -> tuple[Made, Made]:
    """A model of noisy tracks and vague texts, and a clearer one, on one set."""
    models = []
    for noise, tower in ((4.0, vague), (2.5, embed_texts)):
        arguments = catalogue(noise=noise) | {"embed_texts": tower}
        models.append(evaluate_both(**arguments, held_out=APART, config=CONFIG, set_info={"name": "made up"}))
    return models[0], models[1]


@pytest.fixture(scope="module")
def found(made: tuple[Made, Made]) -> Comparison:
    return compare(*made, names=("old", "new"))


def by_name(found: Comparison) -> dict[str, Difference]:
    return {one.name: one for one in found.metrics}


def test_both_values_are_those_of_the_reports(made: tuple[Made, Made], found: Comparison) -> None:
    (report_a, _), (report_b, _) = made
    assert list(by_name(found)) == list(report_b["metrics"])
    assert any(name.startswith("tagging/held_out/") for name in by_name(found))
    for name, one in by_name(found).items():
        assert one.a == pytest.approx(report_a["metrics"][name], abs=1e-6), name
        assert one.b == pytest.approx(report_b["metrics"][name], abs=1e-6), name
        assert one.interval is not None and one.interval[0] <= one.value <= one.interval[1], name


def plain_interval(differences: list[float], centre: float | None) -> list[float]:
    drawn = np.array(differences)
    if centre is not None:
        drawn = drawn - drawn.mean() + centre
    return [float(end) for end in np.quantile(drawn, [0.025, 0.975])]


def test_tagging_differences_are_those_of_a_plain_loop(made: tuple[Made, Made], found: Comparison) -> None:
    (_, evidence_a), (_, evidence_b) = made
    columns = [c for c, label in enumerate(evidence_a.classes) if label.startswith("mood:")]
    tracks = len(evidence_a.track_ids)

    def mean(evidence: Evidence, measure: Any, drawn: np.ndarray) -> float:
        scores_NC, positives_NC = evidence.class_scores()[drawn], evidence.positives_NC[drawn]
        return float(np.mean([measure(scores_NC[:, c], positives_NC[:, c]) for c in columns]))

    weights_BN = bootstrap_weights(tracks, resamples=CONFIG.bootstrap, seed=CONFIG.seed)
    for metric, measure in (("roc_auc", roc_auc), ("pr_auc", average_precision)):
        differences = []
        for weights_N in weights_BN:
            drawn = np.repeat(np.arange(tracks), weights_N)
            differences.append(mean(evidence_b, measure, drawn) - mean(evidence_a, measure, drawn))
        one = by_name(found)[f"tagging/mood/{metric}"]
        assert list(one.interval or ()) == pytest.approx(plain_interval(differences, one.value), abs=1e-9)


def test_retrieval_differences_are_those_of_a_plain_loop(made: tuple[Made, Made], found: Comparison) -> None:
    per_query = []
    for _, evidence in made:
        rows = []
        for q in evidence.queries_of("title"):
            scores_N = evidence.query_scores(np.array([q]))[0]
            right_N = np.isin(np.arange(len(scores_N)), evidence.relevant[q])
            best = scores_N[right_N].max()
            rank = (scores_N > best).sum() + ((scores_N == best).sum() + 1) / 2
            rows.append((average_precision(scores_N, right_N), float(rank)))
        per_query.append(np.array(rows))
    weights_BQ = bootstrap_weights(len(per_query[0]), resamples=CONFIG.bootstrap, seed=CONFIG.seed)
    means, medians = [], []
    for weights_Q in weights_BQ:
        drawn_a, drawn_b = (np.repeat(values, weights_Q, axis=0) for values in per_query)
        means.append(drawn_b[:, 0].mean() - drawn_a[:, 0].mean())
        medians.append(np.median(drawn_b[:, 1]) - np.median(drawn_a[:, 1]))
    for metric, differences in (("map", means), ("median_rank", medians)):
        one = by_name(found)[f"retrieval/title/{metric}"]
        assert list(one.interval or ()) == pytest.approx(plain_interval(differences, None), abs=1e-6), metric


def test_triplet_differences_are_those_of_a_plain_loop(made: tuple[Made, Made], found: Comparison) -> None:
    accuracies = []
    for report, evidence in made:
        protocol = report["set"]["protocol"]
        result = triplet_accuracy(
            *evidence.pairs_of("playlist"), num_triplets=protocol["num_triplets"], seed=protocol["seed"]
        )
        weights_BP = bootstrap_weights(len(result.right), resamples=CONFIG.bootstrap, seed=CONFIG.seed)
        accuracies.append([float((w * result.right).sum() / (w * result.count).sum()) for w in weights_BP])
    differences = [b - a for a, b in zip(*accuracies, strict=True)]
    one = by_name(found)["triplets/playlist/accuracy"]
    assert list(one.interval or ()) == pytest.approx(plain_interval(differences, None), abs=1e-9)


def test_pairing_makes_the_interval_narrower_than_those_of_the_reports(
    made: tuple[Made, Made], found: Comparison
) -> None:
    name = "tagging/genre/roc_auc"
    low, high = by_name(found)[name].interval or (0.0, 0.0)
    widths = [report["intervals"][name][1] - report["intervals"][name][0] for report, _ in made]
    assert high - low < np.hypot(*widths)


def test_a_model_against_itself_differs_by_exactly_nothing(made: tuple[Made, Made]) -> None:
    same = compare(made[0], made[0], names=("one", "one"))
    assert same.metrics and all(one.value == 0 and one.interval == (0.0, 0.0) for one in same.metrics)
    assert not any(one.stands for one in same.metrics)
    assert same.moved_classes() == ([], []) and set(same.moved_queries()) == {"title", "description"}
    assert same.verdict().startswith("0 of 31 differences stand: ") and same.verdict().endswith("would all the same.")


def test_a_model_that_is_better_by_construction_is_found(made: tuple[Made, Made], found: Comparison) -> None:
    stand = {one.name for one in found.metrics if one.stands}
    expected = {f"tagging/{facet}/roc_auc" for facet in ("genre", "instrument", "mood")}
    assert expected | {"retrieval/title/map", "retrieval/description/map"} <= stand
    assert all(one.gain > 0 for one in found.metrics if one.stands)
    assert f"{len(stand)} of {len(found.metrics)} differences stand" in found.verdict()
    named = found.verdict().partition("new is better than old in ")[2]
    shares = [one for one in found.metrics if one.stands and not one.lower_is_better]
    largest = max(shares, key=lambda one: one.gain)
    assert named.startswith(f"{metric_label(largest.name)} {largest.a:.3f} to {largest.b:.3f}; ")
    assert named.endswith(f"; and {len(stand) - MAX_NAMED} more.")
    turned = compare(made[1], made[0], names=("new", "old"))
    assert "old is worse than new in" in turned.verdict()
    for one, other in zip(found.metrics, turned.metrics, strict=True):
        assert one.value == pytest.approx(-other.value)
        ends = [-end for end in (other.interval or ())][::-1]
        assert list(one.interval or ()) == pytest.approx(ends, abs=1e-12)


def test_a_rank_that_falls_is_a_gain() -> None:
    fallen = Difference("retrieval/title/median_rank", 5.0, 3.0, (-3.0, -1.0), lower_is_better=True)
    assert (fallen.value, fallen.gain, fallen.gain_interval, fallen.stands) == (-2.0, 2.0, (1.0, 3.0), True)
    assert fallen.as_mapping()["better"] == "b"
    assert not Difference("x", 0.5, 0.6, (0.0, 0.2)).stands and not Difference("x", 0.5, 0.6).stands


def test_the_gate_judges_the_comparison(made: tuple[Made, Made], found: Comparison) -> None:
    (old, _), (new, _) = made
    rules = GateConfig(compare=tuple(new["metrics"]), margin=0.05, margins=dict.fromkeys(RANKS, 3.0), min_items=20)
    assert decide_promotion(new, old, rules, found.as_mapping()).promote
    turned = decide_promotion(old, new, rules, compare(made[1], made[0]).as_mapping())
    assert not turned.promote
    assert any(reason.startswith("compare: tagging/genre/roc_auc") for reason in turned.reasons)
    assert decide_promotion(old, old, rules, compare(made[0], made[0]).as_mapping()).promote
    refused = decide_promotion(new, old, rules, compare(made[1], made[0]).as_mapping())
    assert any("the comparison is of other models" in reason for reason in refused.reasons)


def test_classes_and_queries_are_sorted_by_what_they_gained(made: tuple[Made, Made], found: Comparison) -> None:
    (report_a, _), (report_b, _) = made
    written = found.as_mapping()
    gains = [row["difference"] for row in written["per_class"]]
    assert gains == sorted(gains, reverse=True)
    rows = [{row["label"]: row for row in report["per_class"] if row["tracks"] == "test"} for report, _ in made]
    assert {row["label"] for row in written["per_class"]} == rows[0].keys()
    for row in written["per_class"]:
        expected = rows[1][row["label"]]["roc_auc"] - rows[0][row["label"]]["roc_auc"]
        assert row["difference"] == pytest.approx(expected, abs=1e-6)
    aps = [{(row["query_set"], row["playlist_id"]): row["ap"] for row in r["per_query"]} for r in (report_a, report_b)]
    assert len(written["per_query"]) == len(aps[0])
    for row in written["per_query"]:
        key = (row["query_set"], row["query_id"])
        assert row["difference"] == pytest.approx(aps[1][key] - aps[0][key], abs=1e-6)


def test_the_order_of_the_tracks_does_not_matter(made: tuple[Made, Made], found: Comparison) -> None:
    report, evidence = made[1]
    order = np.random.default_rng(0).permutation(len(evidence.track_ids))
    place = np.argsort(order)
    turned = replace(
        evidence,
        track_ids=tuple(evidence.track_ids[n] for n in order),
        tracks_ND=evidence.tracks_ND[order],
        positives_NC=evidence.positives_NC[order],
        held_out_N=evidence.held_out_N[order],
        probe_NC=evidence.probe_NC[order],
        relevant=tuple(place[rows] for rows in evidence.relevant),
    )
    again = compare(made[0], (report, turned), names=("old", "new"))
    for one, other in zip(found.metrics, again.metrics, strict=True):
        assert (one.name, one.b) == (other.name, pytest.approx(other.b, abs=1e-6))


def test_what_only_one_model_has_is_left_out_and_said(made: tuple[Made, Made]) -> None:
    report, evidence = made[1]
    silent = copy.deepcopy(report)
    silent["metrics"] = {name: value for name, value in report["metrics"].items() if not name.startswith("probe/")}
    lacking = replace(evidence, probe_NC=evidence.probe_NC[:, :0], class_text_C=evidence.class_text_C.copy())
    lacking.class_text_C[evidence.classes.index("mood:Mood0")] = -1
    less = compare(made[0], (silent, lacking))
    assert not any(one.name.startswith("probe/") for one in less.metrics)
    assert any("Not of both models, so not compared: probe/genre/roc_auc" in note for note in less.notes)
    assert "tagging: 1 classes have a number of one model alone; the means leave them out." in less.notes
    kept = [row["roc_auc"] for row in made[0][0]["per_class"] if row["facet"] == "mood" and row["tracks"] == "test"]
    assert by_name(less)["tagging/mood/roc_auc"].a == pytest.approx(np.mean(kept[1:]), abs=1e-6)


def test_a_model_of_texts_alone_is_compared_on_texts(made: tuple[Made, Made]) -> None:
    arguments = catalogue()
    content = content_of(**{name: arguments[name] for name in ("audio", "labels", "playlists")}, held_out=APART)
    report, evidence = evaluate(content, {}, embed_texts=embed_texts, config=CONFIG)
    assert not evidence.track_ids
    for pair in ((made[0], (report, evidence)), ((report, evidence), made[0])):
        less = compare(*pair)
        assert [one.name for one in less.metrics] == ["triplets/playlist/accuracy"]
        assert any("not compared: tagging/genre/roc_auc" in note for note in less.notes)


def test_other_sets_and_evidence_of_others_are_refused(made: tuple[Made, Made]) -> None:
    (report, evidence), other = made
    elsewhere = copy.deepcopy(report)
    elsewhere["set"] |= {"hash": "f" * 64, "name": "other"}
    for wrong in (elsewhere, {**report, "set": {**report["set"], "hash": None}}):
        with pytest.raises(UserError, match="not measured on the same set"):
            compare((wrong, evidence), other)
    short = replace(evidence, track_ids=evidence.track_ids[:-1])
    with pytest.raises(UserError, match="not of one evaluation"):
        compare((report, short), other)
    renamed = replace(evidence, track_ids=("x", *evidence.track_ids[1:]))
    with pytest.raises(UserError, match="of other tracks"):
        compare((report, renamed), other)
    with pytest.raises(UserError, match="no metric in common"):
        compare((report | {"metrics": {}}, evidence), other)


def test_the_files_say_the_same_and_bear_awkward_names(found: Comparison, tmp_path: Path) -> None:
    awkward = replace(found, name_b="<new> | &", about=found.about | {"title": "A <set>"})
    paths = write_comparison(awkward, tmp_path / "out")
    assert [path.name for path in paths] == ["compare.md", "compare.html", "compare.json"]
    written = json.loads(paths[2].read_text())
    assert written == awkward.as_mapping()
    page = Page(paths[1].read_text())
    assert page.headings == [
        "Differences", "Classes that moved most", "Queries that moved most", "All metrics", "How it was measured",
    ]  # fmt: skip
    assert not {"script", "link", "img"} & page.tags
    assert not any(value.startswith(("http", "//")) for _, value in page.attributes)
    for text in (page.text, paths[0].read_text()):
        for one in found.metrics:
            assert f"{one.value:+.3f}" in text
        assert "paired" in text and "differences stand" in text
    assert "<new> \\| &" in to_markdown(awkward)

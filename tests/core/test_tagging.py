"""Zero-shot tagging against scikit-learn, and what is skipped."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mulan_core.errors import UserError
from mulan_core.evaluation.tagging import is_negation, label_texts, positives_of, score_classes, split_label

METRICS = ("roc_auc", "pr_auc")
CLASSES = ["genre:Jazz", "genre:Ska", "mood:Sad music", "calm"]


def drawn(seed: int = 0, tracks: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positives = rng.random((tracks, 4)) < 0.25
    scores = rng.standard_normal((tracks, 4)) + positives
    return np.round(scores, 1), positives  # rounded: ties


def test_class_and_facet_metrics_equal_scikit_learn() -> None:
    scores, positives = drawn()
    result = score_classes(scores.T, positives, CLASSES, resamples=0, seed=0)
    auc = [roc_auc_score(positives[:, c], scores[:, c]) for c in range(4)]
    ap = [average_precision_score(positives[:, c], scores[:, c]) for c in range(4)]
    assert [row.roc_auc for row in result.classes] == pytest.approx(auc, abs=1e-12)
    assert [row.pr_auc for row in result.classes] == pytest.approx(ap, abs=1e-12)
    assert result.metrics["genre/roc_auc"] == pytest.approx(np.mean(auc[:2]))
    assert result.metrics["genre/pr_auc"] == pytest.approx(np.mean(ap[:2]))
    assert result.metrics["mood/roc_auc"] == pytest.approx(auc[2])
    assert result.metrics["tag/roc_auc"] == pytest.approx(auc[3])
    assert not result.intervals
    assert not result.skipped


def test_chance_is_what_random_scores_get() -> None:
    _, positives = drawn()
    rng = np.random.default_rng(1)
    runs = [score_classes(rng.random((80, 4)).T, positives, CLASSES, resamples=0, seed=0) for _ in range(400)]
    for name, chance in runs[0].chance.items():
        values = [run.metrics[name] for run in runs]
        assert np.mean(values) == pytest.approx(chance, abs=5 * np.std(values) / 20)


def test_intervals_equal_a_literal_bootstrap() -> None:
    scores, positives = drawn()
    result = score_classes(scores.T, positives, CLASSES, resamples=300, seed=3)
    rng = np.random.default_rng(11)
    means = []
    for _ in range(120):
        drawn_rows = rng.integers(80, size=80)
        means.append(np.mean([roc_auc_score(positives[drawn_rows, c], scores[drawn_rows, c]) for c in range(2)]))
    low, high = result.intervals["genre/roc_auc"]
    assert low == pytest.approx(np.quantile(means, 0.025), abs=0.04)
    assert high == pytest.approx(np.quantile(means, 0.975), abs=0.04)
    for name, value in result.metrics.items():
        assert result.intervals[name][0] < value < result.intervals[name][1]
    again = score_classes(scores.T, positives, CLASSES, resamples=300, seed=3)
    assert again.intervals == result.intervals


def test_classes_without_a_positive_or_a_negative_are_skipped_and_named() -> None:
    scores, positives = drawn()
    positives[:, 0], positives[:, 2] = False, True
    result = score_classes(scores.T, positives, CLASSES, resamples=20, seed=0)
    assert result.skipped == (("genre:Jazz", "no track has it"), ("mood:Sad music", "every track has it"))
    assert set(result.metrics) == {"genre/roc_auc", "genre/pr_auc", "tag/roc_auc", "tag/pr_auc"}
    nothing = score_classes(scores[:0].T, positives[:0], CLASSES, resamples=20, seed=0)
    assert nothing.metrics == {}
    assert len(nothing.skipped) == 4


def test_scores_that_are_not_finite_are_refused() -> None:
    scores, positives = drawn()
    scores[3, 1] = np.nan
    with pytest.raises(UserError, match="not finite"):
        score_classes(scores.T, positives, CLASSES, resamples=0, seed=0)


def test_labels_and_their_texts() -> None:
    assert split_label("genre:Drum: and bass") == ("genre", "Drum: and bass")
    assert label_texts("genre:Jazz", ["the sound of {}", "{}"]) == ("the sound of Jazz", "Jazz")
    assert label_texts("calm", ["{}"]) == ("calm",)
    found = positives_of(["a", "b"], {"a": ["x", "unknown"], "c": ["y"]}, ["x", "y"])
    assert found.tolist() == [[True, False], [False, False]]


NO = "voice strings piano voices beat singing violin guitar vocal vocals flute singer drums"
NOT = "classical rock opera english"
MTAT_NEGATIONS = [f"no {word}" for word in NO.split()] + [f"not {word}" for word in NOT.split()]


def test_negations_are_told_by_their_first_word() -> None:
    assert len(MTAT_NEGATIONS) == 17
    assert all(is_negation(label) for label in [*MTAT_NEGATIONS, "tag:Without Drums", "genre:non-vocal"])
    assert not any(is_negation(label) for label in ("noise", "nothing", "genre:No wave", "old", "", "genre:Rock"))


def test_negations_are_averaged_apart() -> None:
    rng = np.random.default_rng(2)
    classes = ["rock", "no vocals", "mood:Sad", "not rock", "piano"]
    scores, positives = rng.standard_normal((80, 5)), rng.random((80, 5)) < 0.4
    result = score_classes(scores.T, positives, classes, resamples=50, seed=0)
    each = [roc_auc_score(positives[:, c], scores[:, c]) for c in range(5)]
    assert result.metrics["tag/roc_auc"] == pytest.approx(np.mean([each[c] for c in (0, 1, 3, 4)]), abs=1e-12)
    assert result.metrics["tag/negations/roc_auc"] == pytest.approx(np.mean([each[1], each[3]]), abs=1e-12)
    assert result.metrics["tag/without_negations/roc_auc"] == pytest.approx(np.mean([each[0], each[4]]), abs=1e-12)
    assert not any(name.startswith("mood/") and "negations" in name for name in result.metrics)
    assert result.metrics.keys() == result.chance.keys() == result.intervals.keys()
    alone = score_classes(scores[:, [1, 3]].T, positives[:, [1, 3]], ["no vocals", "not rock"], resamples=0, seed=0)
    assert set(alone.metrics) == {f"tag/{group}{metric}" for group in ("", "negations/") for metric in METRICS}

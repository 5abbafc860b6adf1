"""Ranking metrics against scikit-learn, against a literal restatement, and against Monte Carlo."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mulan_core.errors import UserError
from mulan_core.evaluation import metrics
from mulan_core.evaluation.bootstrap import bootstrap_mean, bootstrap_weights, percentile_interval
from mulan_core.evaluation.metrics import (
    average_precision,
    expected_average_precision,
    ranking_metrics,
    roc_auc,
    weighted_curves,
)


def scores_of(kind: str, rng: np.random.Generator, size: int) -> np.ndarray:
    if kind == "random":
        return rng.standard_normal(size)
    if kind == "tied":
        return rng.integers(0, 4, size).astype(float)
    if kind == "constant":
        return np.zeros(size)
    return np.where(rng.random(size) < 0.95, 0.5, rng.standard_normal(size) * 1e6)  # mostly one value, wild rest


@pytest.mark.parametrize("kind", ["random", "tied", "constant", "wild"])
@pytest.mark.parametrize("seed", range(5))
def test_single_rankings_equal_scikit_learn(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = scores_of(kind, rng, 57)
    positives = rng.random(57) < 0.3
    positives[:2] = True, False
    assert roc_auc(scores, positives) == pytest.approx(roc_auc_score(positives, scores), abs=1e-12)
    assert average_precision(scores, positives) == pytest.approx(average_precision_score(positives, scores), abs=1e-12)


def test_weighted_curves_equal_scikit_learn_sample_weights() -> None:
    rng = np.random.default_rng(3)
    scores, positives = rng.integers(0, 9, 40).astype(float), rng.random(40) < 0.4
    weights = bootstrap_weights(40, resamples=20, seed=5)
    auc, ap = weighted_curves(scores, positives, weights)
    for b, weight in enumerate(weights):
        assert auc[b] == pytest.approx(roc_auc_score(positives, scores, sample_weight=weight), abs=1e-12)
        assert ap[b] == pytest.approx(average_precision_score(positives, scores, sample_weight=weight), abs=1e-12)


def test_a_weighting_without_positives_is_nan() -> None:
    auc, ap = weighted_curves(np.array([3.0, 2.0, 1.0]), np.array([True, False, False]), np.array([[0.0, 2.0, 1.0]]))
    assert np.isnan(auc[0])
    assert np.isnan(ap[0])


def test_a_few_weightings_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    scores, positives = rng.integers(0, 9, 40).astype(float), rng.random(40) < 0.4
    weights = bootstrap_weights(40, resamples=20, seed=5)
    whole = weighted_curves(scores, positives, weights)
    monkeypatch.setattr(metrics, "_SCORES", 40 * 4 * 3)
    np.testing.assert_array_equal(weighted_curves(scores, positives, weights), whole)


def test_resamples_draw_with_replacement() -> None:
    rng = np.random.default_rng(7)
    drawn = rng.integers(30, size=(4, 30))
    expected = [[np.count_nonzero(row == item) for item in range(30)] for row in drawn]
    assert bootstrap_weights(30, resamples=4, seed=7).tolist() == expected


@pytest.mark.parametrize("positives", [[False] * 4, [True] * 4])
def test_degenerate_single_rankings_are_nan(positives: list[bool]) -> None:
    assert np.isnan(roc_auc([1.0, 2.0, 3.0, 4.0], positives))
    assert np.isnan(average_precision([1.0, 2.0, 3.0, 4.0], positives))


@pytest.mark.parametrize(
    ("scores", "positives", "word"),
    [
        ([1.0, np.nan], [True, False], "finite"),
        ([1.0, 2.0], [True], "length"),
        ([], [], "length"),
        ([1.0, 2.0], [0, 2], "true or false"),
    ],
)
def test_bad_input_is_refused(scores: list[float], positives: list[bool], word: str) -> None:
    with pytest.raises(UserError, match=word):
        roc_auc(scores, positives)
    with pytest.raises(UserError, match=word):
        average_precision(scores, positives)


def vectors(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Queries and candidates whose products are exact in any order of summation when they are meant to tie."""
    if kind == "random":
        return rng.standard_normal((23, 16)), rng.standard_normal((301, 16))
    if kind == "float32":
        return tuple(rng.standard_normal((n, 1)).astype(np.float32) for n in (23, 301))  # type: ignore[return-value]
    if kind == "tied":
        return rng.integers(-1, 2, (23, 4)).astype(float), rng.integers(-1, 2, (301, 4)).astype(float)
    if kind == "outlier":
        candidates = rng.standard_normal((301, 8))
        candidates[7] *= 1e12  # pushes all the others into one bucket
        return rng.standard_normal((23, 8)), candidates
    return np.zeros((23, 4)), np.ones((301, 4))


@pytest.mark.parametrize("kind", ["random", "float32", "tied", "outlier", "constant"])
@pytest.mark.parametrize("chunk", [1, 7, 128, None])
def test_ranking_metrics_equal_scikit_learn(kind: str, chunk: int) -> None:
    rng = np.random.default_rng(1)
    queries, candidates = vectors(kind, rng)
    relevant = [rng.choice(301, size=rng.choice([1, 3, 7, 60]), replace=False) for _ in queries]
    result = ranking_metrics(queries, candidates, relevant, chunk=chunk)
    assert result.num_skipped == 0
    for q, indices in enumerate(relevant):
        scores = queries[q] @ candidates.T
        positives = np.zeros(301, dtype=bool)
        positives[indices] = True
        assert result.auc[q] == pytest.approx(roc_auc_score(positives, scores), abs=1e-9)
        assert result.ap[q] == pytest.approx(average_precision_score(positives, scores), abs=1e-9)


def test_recall_and_best_rank_are_means_over_the_orders_of_ties() -> None:
    rng = np.random.default_rng(2)
    scores = np.array([3, 2, 2, 2, 2, 1, 1, 0], dtype=float)
    relevant = np.array([2, 3, 6])
    result = ranking_metrics(np.ones((1, 1)), scores[:, None], [relevant], ks=(1, 2, 3, 6))
    hits = dict.fromkeys(result.recall_at_k, 0.0)
    for _ in range(5_000):
        order = np.lexsort((rng.random(8), -scores))
        for k in hits:
            hits[k] += np.isin(order[:k], relevant).mean() * k / 3 / 5_000
    for k, expected in hits.items():
        assert result.recall_at_k[k][0] == pytest.approx(expected, abs=0.02)
    assert result.best_rank[0] == 1 + (4 + 1) / 2


def test_degenerate_queries_are_skipped_and_counted() -> None:
    candidates = np.arange(4.0)[:, None]
    result = ranking_metrics(np.ones((3, 1)), candidates, [[], [0, 1, 2, 3], [3, 3]])
    assert result.num_skipped == 2
    assert result.skipped.tolist() == [True, True, False]
    assert result.num_relevant.tolist() == [0, 4, 1]
    assert result.auc[2] == result.ap[2] == result.recall_at_k[1][2] == result.best_rank[2] == 1


@pytest.mark.parametrize(
    ("queries", "candidates", "relevant", "word"),
    [
        (np.ones((1, 2)), np.ones((3, 3)), [[0]], "must be"),
        (np.ones((1, 2)), np.ones((3, 2)), [[0], [1]], "lists of relevant"),
        (np.ones((1, 2)), np.ones((3, 2)), [[3]], "outside 0..2"),
        (np.ones((1, 2)), np.ones((3, 2)), [[-1]], "outside 0..2"),
        (np.full((1, 2), np.nan), np.ones((3, 2)), [[0]], "not finite"),
        (np.ones((1, 2)), np.ones((0, 2)), [[]], "at least one candidate"),
    ],
)
def test_ranking_refuses_what_does_not_fit(queries, candidates, relevant, word) -> None:
    with pytest.raises(UserError, match=word):
        ranking_metrics(queries, candidates, relevant)


@pytest.mark.parametrize(("num_relevant", "num_items"), [(1, 1), (1, 7), (3, 20), (10, 60), (59, 60)])
def test_expected_average_precision_equals_monte_carlo(num_relevant: int, num_items: int) -> None:
    rng = np.random.default_rng(0)
    ranks = np.sort(rng.random((10_000, num_items)).argsort(axis=1)[:, :num_relevant], axis=1) + 1
    simulated = (np.arange(1, num_relevant + 1) / ranks).mean(axis=1)
    error = 5 * simulated.std() / np.sqrt(len(simulated)) + 1e-12
    assert expected_average_precision(num_relevant, num_items) == pytest.approx(simulated.mean(), abs=error)


def test_expected_average_precision_refuses_nonsense() -> None:
    with pytest.raises(UserError):
        expected_average_precision(0, 5)
    with pytest.raises(UserError):
        expected_average_precision(6, 5)


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        low, high = bootstrap_mean(rng.standard_normal(60), resamples=200, seed=trial) or (1.0, 1.0)
        covered += low <= 0 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_bootstrap_is_seeded_and_honest_about_too_little() -> None:
    values = np.random.default_rng(0).random(30)
    assert bootstrap_mean(values, resamples=50, seed=1) == bootstrap_mean(values, resamples=50, seed=1)
    assert bootstrap_mean(values, resamples=50, seed=1) != bootstrap_mean(values, resamples=50, seed=2)
    assert bootstrap_mean([1.0], resamples=50, seed=1) is None
    assert bootstrap_mean(values, resamples=0, seed=1) is None
    assert (bootstrap_weights(30, resamples=4, seed=0).sum(axis=1) == 30).all()
    assert percentile_interval(np.array([np.nan, np.nan, 1.0])) is None

"""Playlist retrieval: means, chance against Monte Carlo, hits."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mulan_core.evaluation.retrieval import retrieve, top_hits


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((12, 8)),
        rng.standard_normal((60, 8)),
        [rng.choice(60, size=rng.integers(1, 9), replace=False) for _ in range(12)],
    )


def test_metrics_are_means_over_queries() -> None:
    queries, candidates, relevant = drawn()
    result = retrieve(queries, candidates, relevant, resamples=100, seed=0)
    auc, ap, recall = [], [], []
    for query, indices in zip(queries, relevant, strict=True):
        scores, positives = candidates @ query, np.isin(np.arange(60), indices)
        auc.append(roc_auc_score(positives, scores))
        ap.append(average_precision_score(positives, scores))
        recall.append(np.isin(np.argsort(-scores)[:10], indices).sum() / len(indices))
    assert result.metrics == pytest.approx(
        {"auc": np.mean(auc), "map": np.mean(ap), "recall_at_10": np.mean(recall)}, abs=1e-9
    )
    for name, (low, high) in result.intervals.items():
        assert low < result.metrics[name] < high


def test_chance_is_what_random_vectors_get() -> None:
    _, _, relevant = drawn()
    rng = np.random.default_rng(5)
    runs = [
        retrieve(rng.standard_normal((12, 8)), rng.standard_normal((60, 8)), relevant, resamples=0, seed=0)
        for _ in range(300)
    ]
    for name, chance in runs[0].chance.items():
        values = [run.metrics[name] for run in runs]
        assert np.mean(values) == pytest.approx(chance, abs=5 * np.std(values) / np.sqrt(300))


def test_a_query_that_everything_answers_is_left_out() -> None:
    queries, candidates, relevant = drawn()
    relevant[0] = np.arange(60)
    result = retrieve(queries, candidates, relevant, resamples=10, seed=0)
    rest = retrieve(queries[1:], candidates, relevant[1:], resamples=10, seed=0)
    assert result.ranking.num_skipped == 1
    assert result.metrics == pytest.approx(rest.metrics)
    assert result.chance == pytest.approx(rest.chance)
    alone = retrieve(queries[:1], candidates, relevant[:1], resamples=10, seed=0)
    assert alone.metrics == alone.chance == alone.intervals == {}


def test_top_hits_are_the_highest_scores_best_first() -> None:
    queries, candidates, _ = drawn()
    top, scores = top_hits(queries, candidates, k=5, chunk=5)
    full = queries @ candidates.T
    np.testing.assert_array_equal(top, np.argsort(-full, axis=1)[:, :5])
    np.testing.assert_allclose(scores, -np.sort(-full, axis=1)[:, :5])
    tied, _ = top_hits(np.ones((1, 1)), np.array([[1.0], [2.0], [1.0], [1.0]]), k=3)
    assert tied.tolist() == [[1, 0, 2]]
    assert top_hits(queries, candidates[:2], k=5)[0].shape == (12, 2)

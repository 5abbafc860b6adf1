"""Playlist retrieval: means, chance against Monte Carlo, hits."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mulan_core.errors import UserError
from mulan_core.evaluation.metrics import expected_median_rank
from mulan_core.evaluation.retrieval import retrieve


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
    expected: dict[str, list[float]] = {"auc": [], "map": [], "recall_at_1": [], "recall_at_5": [], "recall_at_10": []}
    best = []
    for query, indices in zip(queries, relevant, strict=True):
        scores, positives = candidates @ query, np.isin(np.arange(60), indices)
        expected["auc"].append(roc_auc_score(positives, scores))
        expected["map"].append(average_precision_score(positives, scores))
        order = np.argsort(-scores)
        for k in (1, 5, 10):
            expected[f"recall_at_{k}"].append(np.isin(order[:k], indices).sum() / len(indices))
        best.append(1 + np.flatnonzero(np.isin(order, indices))[0])
    means = {name: float(np.mean(values)) for name, values in expected.items()}
    assert result.metrics == pytest.approx(means | {"median_rank": np.median(best)}, abs=1e-9)
    assert set(result.intervals) == set(result.chance) == set(result.metrics)
    for name, (low, high) in result.intervals.items():
        assert low <= result.metrics[name] <= high


def test_chance_is_what_random_vectors_get() -> None:
    _, _, relevant = drawn()
    rng = np.random.default_rng(5)
    runs = [
        retrieve(rng.standard_normal((12, 8)), rng.standard_normal((60, 8)), relevant, resamples=0, seed=0)
        for _ in range(300)
    ]
    assert set(runs[0].chance) == set(runs[0].metrics)
    for name, chance in runs[0].chance.items():
        if name == "median_rank":
            continue  # below, over all queries together
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


@pytest.mark.parametrize(("num_items", "counts"), [(9, [1]), (10, [1]), (40, [1, 1, 7]), (30, [2, 2, 5, 30])])
def test_median_rank_by_chance_is_the_middle_of_random_orders(num_items: int, counts: list[int]) -> None:
    rng = np.random.default_rng(1)
    draws = 40_000
    best = np.concatenate(
        [rng.random((draws, num_items)).argsort(axis=1)[:, :count].min(axis=1) + 1 for count in counts]
    )
    chance = expected_median_rank(counts, num_items)
    assert np.mean(best < chance) <= 0.5 + 0.01
    assert np.mean(best > chance) <= 0.5 + 0.01
    if counts == [1]:
        assert chance == (num_items + 1) / 2


def test_median_rank_by_chance_needs_answers() -> None:
    with pytest.raises(UserError, match="1 to 5 relevant items"):
        expected_median_rank([0, 2], 5)


def test_captions_of_one_track_each() -> None:
    """The usual R@k and MedR of caption retrieval, from the full matrix."""
    rng = np.random.default_rng(3)
    tracks = rng.standard_normal((200, 16))
    captions = tracks + 1.5 * rng.standard_normal((200, 16))
    result = retrieve(captions, tracks, [np.array([n]) for n in range(200)], resamples=200, seed=0)
    scores = captions @ tracks.T
    rank = 1 + (scores > np.diag(scores)[:, None]).sum(axis=1)
    for k in (1, 5, 10):
        assert result.metrics[f"recall_at_{k}"] == np.mean(rank <= k)
        assert result.chance[f"recall_at_{k}"] == k / 200
    assert result.metrics["median_rank"] == np.median(rank) < result.chance["median_rank"] == 100.5
    low, high = result.intervals["median_rank"]
    assert low <= np.median(rank) <= high < 100.5


def test_top_hits_are_the_highest_scores_best_first() -> None:
    queries, candidates, relevant = drawn()
    result = retrieve(queries, candidates, relevant, resamples=0, seed=0)
    full = queries @ candidates.T
    np.testing.assert_array_equal(result.top, np.argsort(-full, axis=1)[:, :5])
    np.testing.assert_allclose(result.top_scores, -np.sort(-full, axis=1)[:, :5])
    few = retrieve(queries, candidates[:2], [np.array([0])] * 12, resamples=0, seed=0)
    assert few.top.shape == (12, 2)

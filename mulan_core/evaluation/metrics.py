"""Ranking metrics: ROC-AUC, average precision, recall at k, their chance levels and their intervals.

Shape letters: N items that are ranked, Q queries, D embedding size, B resamples, R relevant items of a query,
G groups of equal scores, K hits.

Ties never depend on the order of the items. ROC-AUC is the Mann-Whitney statistic with mid-ranks: a tied pair
counts half. Average precision has one threshold per distinct score, as scikit-learn's
``average_precision_score``: items with equal scores enter together. Recall at k is its expectation when equal
scores are ordered at random. Scores must be finite. Without a positive, or without a negative, a ranking says
nothing: the metrics are NaN and the caller counts them as skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mulan_core.errors import UserError
from mulan_core.evaluation.ranks import RankCounter, top_of

Floats = NDArray[np.float64]

_SCORES = 1 << 24
"""Scores in memory at once: 64 MiB of float32, whatever the number of candidates or of resamples."""


LOWER_IS_BETTER = ("median_rank",)
"""Last parts of the names of metrics that are better when lower; all others are better when higher."""


def is_better_lower(metric: str) -> bool:
    """Whether a metric, by its flat name, is better when lower.

    >>> is_better_lower("retrieval/title/median_rank"), is_better_lower("retrieval/title/auc")
    (True, False)
    """
    return metric.rpartition("/")[2] in LOWER_IS_BETTER


def roc_auc(scores_N: ArrayLike, positives_N: ArrayLike) -> float:
    """Probability that a positive scores above a negative, ties counted half; NaN without either kind.

    >>> roc_auc([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    0.875
    """
    scores, positives = _checked(scores_N, positives_N)
    return float(weighted_curves(scores, positives, np.ones((1, scores.size)))[0][0])


def average_precision(scores_N: ArrayLike, positives_N: ArrayLike) -> float:
    """Mean precision over the positives, one threshold per distinct score; NaN without positive or negative.

    >>> average_precision([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    0.8333333333333333
    """
    scores, positives = _checked(scores_N, positives_N)
    return float(weighted_curves(scores, positives, np.ones((1, scores.size)))[1][0])


def weighted_curves(
    scores_N: NDArray[np.floating], positives_N: NDArray[np.bool_], weights_BN: NDArray[Any]
) -> tuple[Floats, Floats]:
    """ROC-AUC and average precision of one ranking under B weightings of its items at once.

    One sort serves all weightings; a bootstrap resample is the weighting that counts how often an item was drawn. Only
    sums of weights down to the positives are kept, a few weightings at a time, so memory does not grow with B.

    Returns:
        auc_B and ap_B; NaN where a weighting leaves no positive or no negative.
    """
    order = np.argsort(-scores_N, kind="stable")
    ordered = scores_N[order]
    starts_G = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends_G = np.r_[starts_G[1:], ordered.size]
    places_P = np.flatnonzero(positives_N[order])
    group_P = np.searchsorted(starts_G, places_P, side="right") - 1
    held_U, first_P = np.unique(group_P, return_index=True)  # groups that hold a positive
    size = max(1, _SCORES // 4 // ordered.size)
    parts = [
        _curves(weights_BN[first : first + size, order], places_P, first_P, starts_G[held_U], ends_G[held_U])
        for first in range(0, len(weights_BN), size)
    ]
    return np.concatenate([auc for auc, _ in parts]), np.concatenate([ap for _, ap in parts])


def _curves(
    weights_bN: NDArray[Any],
    places_P: NDArray[np.int64],
    first_P: NDArray[np.int64],
    starts_U: NDArray[np.int64],
    ends_U: NDArray[np.int64],
) -> tuple[Floats, Floats]:
    """``weighted_curves`` of items that are in order: where positives and the groups that hold them are."""
    num_all = np.cumsum(weights_bN, axis=1, dtype=np.float64)
    total_b = num_all[:, -1]
    if places_P.size == 0:
        return np.full(len(total_b), np.nan), np.full(len(total_b), np.nan)
    from_bU = num_all[:, ends_U - 1]
    group_bU = from_bU - np.where(starts_U > 0, num_all[:, starts_U - 1], 0.0)
    positive_bU = np.add.reduceat(weights_bN[:, places_P].astype(np.float64), first_P, axis=1)
    positive_from_bU = np.cumsum(positive_bU, axis=1)
    num_positive = positive_from_bU[:, -1]
    num_negative = total_b - num_positive
    negative_below_bU = num_negative[:, None] - (from_bU - positive_from_bU)
    with np.errstate(divide="ignore", invalid="ignore"):
        right_bU = positive_bU * (negative_below_bU + (group_bU - positive_bU) / 2)
        auc_b = right_bU.sum(axis=1) / (num_positive * num_negative)
        precision_bU = np.where(from_bU > 0, positive_from_bU / from_bU, 0.0)
        ap_b = (positive_bU * precision_bU).sum(axis=1) / num_positive
    void_b = (num_positive <= 0) | (num_negative <= 0)
    return np.where(void_b, np.nan, auc_b), np.where(void_b, np.nan, ap_b)


@dataclass(frozen=True)
class RankingMetrics:
    """One value per query (shape Q), NaN for a skipped query (nothing relevant, or everything)."""

    auc: Floats
    """ROC-AUC."""
    ap: Floats
    """Average precision."""
    recall_at_k: dict[int, Floats]
    """k -> share of the relevant items within the first k."""
    best_rank: Floats
    """Mid-rank of the best relevant item, from 1."""
    num_relevant: NDArray[np.int64]
    """Distinct relevant items."""
    top: NDArray[np.int64]
    """Items with the highest scores, best first, equal ones by index: (Q, K); of skipped queries too."""
    top_scores: NDArray[np.floating]
    """Their scores: (Q, K)."""

    @property
    def skipped(self) -> NDArray[np.bool_]:
        """Queries without a number."""
        return np.isnan(self.auc)

    @property
    def num_skipped(self) -> int:
        """How many queries have no number."""
        return int(self.skipped.sum())


def ranking_metrics(
    queries_QD: NDArray[np.floating],
    candidates_ND: NDArray[np.floating],
    relevant: Sequence[ArrayLike],
    *,
    chunk: int | None = None,
    ks: tuple[int, ...] = (1, 5, 10),
    num_hits: int = 0,
) -> RankingMetrics:
    """Rank all candidates for each query by dot product and score the ranking.

    Streams over chunks of queries, so memory is ``2 * chunk * N`` scores: those that are counted and, beside it, the
    next product. It never sorts the N scores of a query: a histogram counts the candidates above each relevant one,
    and only candidates in a relevant item's bucket are compared exactly (``ranks``). Scores have the precision of the
    inputs.

    Args:
        queries_QD: query vectors.
        candidates_ND: vectors of what is ranked.
        relevant: per query, the indices into ``candidates_ND`` that answer it; repeats count once.
        chunk: queries scored at once; None takes as many as keep the scores under 64 MiB, at most 64.
        ks: cut-offs of recall.
        num_hits: K, how many of the best candidates to name.

    Raises:
        UserError: on shapes that do not fit, an index out of range, or scores that are not finite.
    """
    num_queries, num_items = len(queries_QD), len(candidates_ND)
    chunk = min(64, max(1, _SCORES // 2 // max(1, num_items))) if chunk is None else chunk
    _check_ranking(queries_QD, candidates_ND, relevant, chunk)
    hits = min(num_hits, num_items)
    result = RankingMetrics(
        auc=np.full(num_queries, np.nan),
        ap=np.full(num_queries, np.nan),
        recall_at_k={k: np.full(num_queries, np.nan) for k in ks},
        best_rank=np.full(num_queries, np.nan),
        num_relevant=np.zeros(num_queries, dtype=np.int64),
        top=np.zeros((num_queries, hits), dtype=np.int64),
        top_scores=np.zeros((num_queries, hits), dtype=np.result_type(queries_QD, candidates_ND)),
    )
    dtype = result.top_scores.dtype
    counter = RankCounter(num_items, dtype)
    buffers = [np.empty((min(chunk, num_queries), num_items), dtype) for _ in range(2)]

    def product(first: int) -> NDArray[np.floating]:
        queries_qD = queries_QD[first : first + chunk]
        return np.matmul(queries_qD, candidates_ND.T, out=buffers[first // chunk % 2][: len(queries_qD)])

    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(product, 0)
        for first in range(0, num_queries, chunk):
            scores_qN = upcoming.result()
            upcoming = pool.submit(product, first + chunk)  # of no query at the end
            for q, row_N in enumerate(scores_qN, start=first):
                _rank(result, q, row_N, np.asarray(relevant[q], np.int64), counter)
    return result


def _rank(
    result: RankingMetrics, q: int, row_N: NDArray[np.floating], indices: NDArray[np.int64], counter: RankCounter
) -> None:
    """Fill in query ``q`` from its scores and the indices of its relevant items."""
    span = row_N.min(), row_N.max()
    if not np.isfinite(span).all():  # NaN, too, is the minimum of a row that holds it
        raise UserError(f"the scores of query {q} are not finite")
    if hits := result.top.shape[1]:
        result.top[q] = top_of(row_N, hits)
        result.top_scores[q] = row_N[result.top[q]]
    indices_R = np.unique(indices)
    result.num_relevant[q] = indices_R.size
    if 0 < indices_R.size < row_N.size:
        at_R = np.sort(row_N[indices_R])[::-1]
        _fill(result, q, at_R, counter.above(row_N, at_R, span), row_N.size)


def _fill(
    result: RankingMetrics, q: int, at_R: NDArray[np.floating], counts: tuple[Floats, Floats], num_items: int
) -> None:
    """Metrics of query ``q`` from the descending scores of its relevant items and the counts above and equal."""
    above_R, equal_R = counts
    num = at_R.size
    relevant_above_R = np.searchsorted(-at_R, -at_R, side="left")
    relevant_from_R = np.searchsorted(-at_R, -at_R, side="right")
    negatives_above = above_R - relevant_above_R
    negatives_equal = equal_R - (relevant_from_R - relevant_above_R)
    wrong = (negatives_above + negatives_equal / 2).sum()
    result.auc[q] = 1.0 - wrong / (num * (num_items - num))
    result.ap[q] = np.mean(relevant_from_R / (above_R + equal_R))
    for k, values_Q in result.recall_at_k.items():
        values_Q[q] = np.mean(np.clip((k - above_R) / equal_R, 0.0, 1.0))
    result.best_rank[q] = above_R[0] + (equal_R[0] + 1) / 2


def expected_average_precision(num_relevant: int, num_items: int) -> float:
    """Exact mean of the average precision over all orders of N items, R of them relevant.

    ``(H_N + (R - 1) / (N - 1) * (N - H_N)) / N`` with the harmonic number H_N. Rank k is relevant with
    probability R / N, and then (k - 1)(R - 1) / (N - 1) relevant items are expected above it. For large N it tends
    to the prevalence R / N; for small N it is clearly above it.

    >>> expected_average_precision(1, 2)
    0.75
    """
    if num_items < 1 or not 0 < num_relevant <= num_items:
        raise UserError(f"need 1 <= num_relevant <= num_items, got {num_relevant} and {num_items}")
    if num_items == 1:
        return 1.0
    harmonic = float(np.sum(1.0 / np.arange(1, num_items + 1)))
    return (harmonic + (num_relevant - 1) / (num_items - 1) * (num_items - harmonic)) / num_items


def expected_median_rank(num_relevant_Q: ArrayLike, num_items: int) -> float:
    """Median over queries of the best relevant item's rank, when N items are ordered at random.

    The best of R relevant items is beyond rank m with probability ``C(N - m, R) / C(N, R)``; over the queries these
    are averaged. Where ranks m and m + 1 share the middle, as with one relevant item of an even N, it is m + 1/2.

    >>> expected_median_rank([1], 100)
    50.5
    """
    counts = np.asarray(num_relevant_Q, dtype=np.int64)
    if counts.size == 0 or counts.min() < 1 or counts.max() > num_items:
        raise UserError(f"every query needs 1 to {num_items} relevant items")
    num_R, share_R = np.unique(counts, return_counts=True)
    beyond, rank, first = np.ones(num_R.size), 0, 0  # beyond rank 0: certain
    while True:
        mean = float(beyond @ share_R) / counts.size
        if first == 0 and mean <= 0.5 + 1e-12:
            first = rank
        if mean < 0.5 - 1e-12:
            return (first + rank) / 2
        beyond = beyond * np.clip((num_items - rank - num_R) / (num_items - rank), 0.0, 1.0)
        rank += 1


def _checked(scores_N: ArrayLike, positives_N: ArrayLike) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    scores, positives = np.asarray(scores_N), np.asarray(positives_N)
    if scores.ndim != 1 or scores.shape != positives.shape or scores.size == 0:
        raise UserError(f"need scores and positives of one equal length, got {scores.shape} and {positives.shape}")
    if not np.isfinite(scores).all():
        raise UserError("scores must be finite numbers")
    if positives.dtype != bool and not np.isin(positives, (0, 1)).all():
        raise UserError("positives must be true or false")
    return scores.astype(np.float64), positives.astype(bool)


def _check_ranking(
    queries_QD: NDArray[np.floating], candidates_ND: NDArray[np.floating], relevant: Sequence[ArrayLike], chunk: int
) -> None:
    if queries_QD.ndim != 2 or candidates_ND.ndim != 2 or queries_QD.shape[1] != candidates_ND.shape[1]:
        raise UserError(f"queries {queries_QD.shape} and candidates {candidates_ND.shape} must be (Q, D) and (N, D)")
    if len(relevant) != len(queries_QD):
        raise UserError(f"{len(queries_QD)} queries but {len(relevant)} lists of relevant items")
    if len(candidates_ND) == 0 or chunk < 1:
        raise UserError(f"need at least one candidate and chunk >= 1, got {len(candidates_ND)} and {chunk}")
    for q, indices in enumerate(relevant):
        items = np.asarray(indices)
        if items.size and (items.min() < 0 or items.max() >= len(candidates_ND)):
            raise UserError(f"query {q}: a relevant index is outside 0..{len(candidates_ND) - 1}")

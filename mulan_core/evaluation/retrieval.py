"""Playlist retrieval: a playlist's title or description is the query, its tracks are the answers (section 4.3).

Shape letters: Q queries, N candidate tracks, D embedding size, K hits.

All test tracks are candidates for every query; metrics are means over queries. Recall at 10 is the share of a
playlist's tracks within the first 10, so it is at most 10 / R for a playlist of R tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mulan_core.evaluation.metrics import (
    RankingMetrics,
    bootstrap_mean,
    expected_average_precision,
    ranking_metrics,
)

RECALL_AT = 10


@dataclass(frozen=True)
class RetrievalResult:
    """One set of queries against one set of candidates."""

    ranking: RankingMetrics
    """Per-query values."""
    top: NDArray[np.int64]
    """Candidates with the highest scores, best first: (Q, K)."""
    top_scores: NDArray[np.floating]
    """Their scores: (Q, K)."""
    metrics: dict[str, float]
    """``auc``, ``map``, ``recall_at_10``: means over the queries that are not skipped."""
    intervals: dict[str, tuple[float, float]]
    """The same names -> 95 % percentile interval over resampled queries."""
    chance: dict[str, float]
    """The same names -> level of a random ranking."""


def retrieve(
    queries_QD: NDArray[np.floating],
    candidates_ND: NDArray[np.floating],
    relevant: Sequence[NDArray[np.int64]],
    *,
    resamples: int,
    seed: int,
    num_hits: int = 5,
) -> RetrievalResult:
    """Rank the candidates for every query; a query with nothing or everything relevant is skipped."""
    ranking = ranking_metrics(queries_QD, candidates_ND, relevant, ks=(1, 5, RECALL_AT))
    top_QK, top_scores_QK = top_hits(queries_QD, candidates_ND, k=num_hits)
    kept = ~ranking.skipped
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    chance: dict[str, float] = {}
    if kept.any():
        recall = ranking.recall_at_k[RECALL_AT]
        for name, values_Q in {"auc": ranking.auc, "map": ranking.ap, f"recall_at_{RECALL_AT}": recall}.items():
            metrics[name] = float(values_Q[kept].mean())
            interval = bootstrap_mean(values_Q[kept], resamples=resamples, seed=seed)
            if interval is not None:
                intervals[name] = interval
        num_items = len(candidates_ND)
        chance = {
            "auc": 0.5,
            "map": float(np.mean([expected_average_precision(int(r), num_items) for r in ranking.num_relevant[kept]])),
            f"recall_at_{RECALL_AT}": min(RECALL_AT, num_items) / num_items,
        }
    return RetrievalResult(ranking, top_QK, top_scores_QK, metrics, intervals, chance)


def top_hits(
    queries_QD: NDArray[np.floating], candidates_ND: NDArray[np.floating], *, k: int, chunk: int = 128
) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Indices and scores of the k best candidates of each query, best first; equal scores by index."""
    k = min(k, len(candidates_ND))
    indices, scores = [], []
    for first in range(0, len(queries_QD), chunk):
        scores_qN = queries_QD[first : first + chunk] @ candidates_ND.T
        for row_N in scores_qN:
            floor = np.partition(row_N, -k)[-k]
            near = np.flatnonzero(row_N >= floor)
            best_K = near[np.argsort(-row_N[near], kind="stable")[:k]]
            indices.append(best_K)
            scores.append(row_N[best_K])
    if not indices:
        return np.zeros((0, k), dtype=np.int64), np.zeros((0, k))
    return np.stack(indices), np.stack(scores)

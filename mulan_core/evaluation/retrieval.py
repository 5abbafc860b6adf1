"""Retrieval: a playlist's title or description is the query, or a caption; its tracks are the answers (section 4.3).

Shape letters: Q queries, N candidate tracks, D embedding size, K hits.

All test tracks are candidates for every query; metrics are means over queries. Recall at k is the share of a query's
tracks within the first k, so it is at most k / R for a playlist of R tracks, and for a caption of one track whether it
is there. The median rank (MedR) is the median over queries of the best answer's rank; it is better when lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mulan_core.evaluation.bootstrap import bootstrap_mean, bootstrap_median
from mulan_core.evaluation.metrics import (
    RankingMetrics,
    expected_average_precision,
    expected_median_rank,
    ranking_metrics,
)

CUTOFFS = (1, 5, 10)
"""Cut-offs k of recall."""
RECALL_AT = 10
"""The one that is kept per query."""


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
    """``auc``, ``map``, ``recall_at_<k>``: means over the queries that are not skipped; ``median_rank`` of them."""
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
    ranking = ranking_metrics(queries_QD, candidates_ND, relevant, ks=CUTOFFS, num_hits=num_hits)
    kept, num_items = ~ranking.skipped, len(candidates_ND)
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    chance: dict[str, float] = {}
    if kept.any():
        recalls = {f"recall_at_{k}": values_Q for k, values_Q in ranking.recall_at_k.items()}
        means = {"auc": ranking.auc, "map": ranking.ap} | recalls
        bounds: dict[str, tuple[float, float] | None] = {}
        for name, values_Q in means.items():
            metrics[name] = float(values_Q[kept].mean())
            bounds[name] = bootstrap_mean(values_Q[kept], resamples=resamples, seed=seed)
        metrics["median_rank"] = float(np.median(ranking.best_rank[kept]))
        bounds["median_rank"] = bootstrap_median(ranking.best_rank[kept], resamples=resamples, seed=seed)
        intervals = {name: interval for name, interval in bounds.items() if interval is not None}
        num_relevant_Q = ranking.num_relevant[kept]
        chance = {
            "auc": 0.5,
            "map": float(np.mean([expected_average_precision(int(r), num_items) for r in num_relevant_Q])),
            **{f"recall_at_{k}": min(k, num_items) / num_items for k in CUTOFFS},
            "median_rank": expected_median_rank(num_relevant_Q, num_items),
        }
    return RetrievalResult(ranking, ranking.top, ranking.top_scores, metrics, intervals, chance)

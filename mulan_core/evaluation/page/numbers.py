"""What the page draws beyond the report's own numbers: curves, histograms and the map, out of the evidence.

Shape letters: N tracks, D embedding size, K points of a curve, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mulan_core.evaluation.evidence import Evidence

RECALLS = np.linspace(0, 1, 41)
"""Where precision is drawn."""
BINS = 40
MAX_POINTS = 700
"""Tracks on a map, evenly drawn from all; more would hide each other and make the page heavy."""
MAX_QUERIES = 200
"""Queries whose scores are counted for a histogram, evenly drawn from all."""

Floats = NDArray[np.floating]


def interpolated_precision(scores_N: Floats, positives_N: NDArray[np.bool_]) -> Floats:
    """Best precision at each of ``RECALLS`` or beyond: precision_K. Equal scores enter together, as in the report."""
    order = np.argsort(-scores_N, kind="stable")
    hits_N = np.cumsum(positives_N[order])
    last_of_tie = np.append(np.diff(scores_N[order]) != 0, True)
    hits_T = hits_N[last_of_tie]
    precision = hits_T / (np.flatnonzero(last_of_tie) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    # Counts, not recalls, are compared: 0.35 * 20 must reach the seventh hit.
    wanted_K = np.ceil(np.round(RECALLS * hits_N[-1], 9))
    return np.asarray(best_from_here[np.searchsorted(hits_T, wanted_K)])


@dataclass(frozen=True)
class Histogram:
    """How the scores of right and wrong pairs are spread: shares of each, over the same bins."""

    low: float
    high: float
    right_B: Floats
    wrong_B: Floats
    num_right: int
    num_wrong: int


def histogram(right: Floats, wrong: Floats) -> Histogram | None:
    """Two histograms over common bins; None where one of them has nothing."""
    if not len(right) or not len(wrong):
        return None
    low, high = float(min(right.min(), wrong.min())), float(max(right.max(), wrong.max()))
    high = high if high > low else low + 1e-3
    right_B, wrong_B = (np.histogram(scores, BINS, (low, high))[0] / len(scores) for scores in (right, wrong))
    return Histogram(low, high, right_B, wrong_B, len(right), len(wrong))


def class_histogram(scores_NC: Floats, positives_NC: NDArray[np.bool_], columns: list[int]) -> Histogram | None:
    """Cosines of tracks and class texts, for some classes."""
    scores, positives = scores_NC[:, columns], positives_NC[:, columns]
    return histogram(scores[positives], scores[~positives])


def query_histogram(evidence: Evidence, query_set: str) -> Histogram | None:
    """Cosines of queries and tracks, for one set of queries."""
    queries = evenly(evidence.queries_of(query_set), MAX_QUERIES)
    scores_QN = evidence.query_scores(queries)
    positives_QN = np.zeros(scores_QN.shape, dtype=bool)
    for q, query in enumerate(queries):
        positives_QN[q, evidence.relevant[query]] = True
    return histogram(scores_QN[positives_QN], scores_QN[~positives_QN])


def pair_histogram(evidence: Evidence, pair_set: str) -> Histogram | None:
    """Cosines of anchors with their own and with the others' descriptions, for one set of triplets."""
    anchors_PD, descriptions_PD = evidence.pairs_of(pair_set)
    chosen = evenly(np.arange(len(anchors_PD)), 5 * MAX_QUERIES)
    scores_PP = anchors_PD[chosen] @ descriptions_PD[chosen].T
    own_PP = np.eye(len(chosen), dtype=bool)
    return histogram(scores_PP[own_PP], scores_PP[~own_PP])


def principal_plane(tracks_ND: Floats) -> tuple[Floats, float]:
    """Tracks on their first two principal components, points_N2, and the share of variance these hold.

    Signs are fixed by the largest loading, so that the same vectors give the same picture.
    """
    centred_ND = tracks_ND.astype(np.float64) - tracks_ND.mean(axis=0, dtype=np.float64)
    variances_D, axes_DD = np.linalg.eigh(centred_ND.T @ centred_ND)
    axes_D2 = axes_DD[:, [-1, -2]]
    axes_D2 = axes_D2 * np.sign(axes_D2[np.abs(axes_D2).argmax(axis=0), [0, 1]])
    total = float(variances_D.sum())
    return centred_ND @ axes_D2, float(variances_D[-2:].sum()) / total if total > 0 else 0.0


def evenly(items: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most this many of some items, evenly drawn in their order."""
    return items if len(items) <= most else items[np.linspace(0, len(items) - 1, most).astype(np.int64)]

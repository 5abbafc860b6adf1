"""How well an index finds what exact search finds, and how wide a graph must be searched for that.

A graph (HNSW) is searched along its own tracks. A query that lies elsewhere, as texts do, leads into it at worse
places, so recall of tracks as queries alone says little about what people ask. A filter takes most of the ways through
it, so recall without filters says nothing about that with them.

Shape letters: N tracks, Q queries, D embedding size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.filters import carries, up_to

PROBE_QUERIES = 64
PROBE_K = 10
EF_CANDIDATES = (1_024, 2_048, 4_096)
"""Of the search in a graph (``ef``); a build takes the least that reaches its floor. Pages ask for a thousand tracks at
once, so none is less; see ``pages.GRAPH_DEPTH``."""
FILTERED_GOAL = 0.99
"""Recall under filters for which a graph is searched wider than its floor asks for."""
SHARES = {"1": 0.01, "10": 0.1, "50": 0.5}
"""Of the tracks that the filters leave under which recall is measured, by their names in percent."""


def pick_queries(num_tracks: int) -> np.ndarray:
    """Places of the tracks that serve as queries; the same for the same number of tracks."""
    return np.random.default_rng(0).permutation(num_tracks)[:PROBE_QUERIES]


@dataclass(frozen=True)
class Filter:
    """A filter under which recall is measured."""

    percent: str
    """Which of ``SHARES`` it leaves."""
    expression: str
    passing: list[int]
    """Places of the tracks that it leaves."""


def pick_filters(ids: Sequence[str], labels: Sequence[Sequence[str]]) -> list[Filter]:
    """For each of ``SHARES`` the lowest ids, and the catalogue's label that is nearest to it.

    Tracks of a label lie together, those of some ids anywhere or by album. A label counts from half to twice the share.
    """
    order = sorted(range(len(ids)), key=ids.__getitem__)
    counts = Counter(label for track_labels in labels for label in set(track_labels))
    filters = []
    for percent, share in SHARES.items():
        lowest = order[: math.ceil(share * len(ids))]
        filters.append(Filter(percent, up_to("track_id", ids[lowest[-1]]), lowest))
        near = [label for label, count in counts.items() if 0.5 <= count / len(ids) / share <= 2]
        if near:
            label = min(near, key=lambda name: (abs(math.log(counts[name] / len(ids) / share)), name))
            filters.append(
                Filter(percent, carries(label), [i for i, track_labels in enumerate(labels) if label in track_labels])
            )
    return filters


def share_found(
    results: Sequence[Sequence[str]], queries_QD: np.ndarray, vectors_ND: np.ndarray, ids: Sequence[str]
) -> float:
    """Recall@10: the share of the exact ten best scores that the index found; tracks of equal score are as good.

    Args:
        results: track ids that the index gave for each query.
        queries_QD: the queries, unit vectors.
        vectors_ND: all tracks, unit vectors.
        ids: their ids.
    """
    k = min(PROBE_K, len(ids))
    exact_QN = queries_QD.astype(np.float64) @ vectors_ND.T
    worst_Q = np.partition(exact_QN, -k, axis=1)[:, -k]
    row_of = {track_id: i for i, track_id in enumerate(ids)}
    good = 0
    for query, track_ids in enumerate(results):
        scores = exact_QN[query, [row_of[track_id] for track_id in track_ids]]
        good += int((scores >= worst_Q[query] - 1e-5).sum())
    return good / (len(queries_QD) * k)

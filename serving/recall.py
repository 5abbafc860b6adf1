"""How well an index finds what exact search finds, and how wide a graph must be searched for that.

A graph (HNSW) is searched along its own tracks. A query that lies elsewhere, as texts do, leads into it at worse
places, so recall of tracks as queries alone says little about what people ask.

Shape letters: N tracks, Q queries, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PROBE_QUERIES = 64
PROBE_K = 10
WIDTHS = (128, 256, 512, 1_024, 2_048)
"""Of the search in a graph (``ef``); a build takes the least that reaches its floor."""


def pick_queries(num_tracks: int) -> np.ndarray:
    """Places of the tracks that serve as queries; the same for the same number of tracks."""
    return np.random.default_rng(0).permutation(num_tracks)[:PROBE_QUERIES]


def share_found(
    found: Sequence[Sequence[str]], queries_QD: np.ndarray, vectors_ND: np.ndarray, ids: Sequence[str]
) -> float:
    """Recall@10: the share of the exact ten best scores that the index found; tracks of equal score are as good.

    Args:
        found: track ids that the index gave for each query.
        queries_QD: the queries, unit vectors.
        vectors_ND: all tracks, unit vectors.
        ids: their ids.
    """
    k = min(PROBE_K, len(ids))
    exact_QN = queries_QD.astype(np.float64) @ vectors_ND.T
    worst_Q = np.partition(exact_QN, -k, axis=1)[:, -k]
    place = {track_id: i for i, track_id in enumerate(ids)}
    good = 0
    for query, of_query in enumerate(found):
        scores = exact_QN[query, [place[track_id] for track_id in of_query]]
        good += int((scores >= worst_Q[query] - 1e-5).sum())
    return good / (len(queries_QD) * k)

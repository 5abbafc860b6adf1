"""The one order of tracks under a query: best score first, and among equal scores by id.

Milvus's own scores differ in the last digits between a query alone and the same query among others, and equal ones come
in any order. So an order that holds across pages is made here: the cosine of a track is worked out again from its
vector, row by row, and rounded to the digits that people are shown.

Shape letters: N tracks, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SCORE_DIGITS = 6
"""Of a cosine; tracks that agree in these are equal and stand by id."""
NOISE = 1e-5
"""Milvus's score and the one made here are nearer to each other than half of this, with room to spare."""

MAX_DEPTH = 1_000
"""Ranks that pages go down to."""

Candidate = tuple[str, float]
"""A track's id and its score."""


def exact_scores(query_D: np.ndarray, vectors_ND: np.ndarray) -> np.ndarray:
    """Cosines (N,) to ``SCORE_DIGITS``; that of a track is the same whichever others stand beside it.

    (A matrix product's is not: it sums in another order at its edges.)
    """
    query_D, vectors_ND = query_D.astype(np.float64), vectors_ND.astype(np.float64)
    norms_N = np.sqrt((vectors_ND * vectors_ND).sum(axis=1)) * np.sqrt((query_D * query_D).sum())
    scores_N = (vectors_ND * query_D).sum(axis=1) / norms_N
    return np.asarray(np.round(scores_N, SCORE_DIGITS) + 0.0)  # no -0.0


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best score first, equal scores by id."""
    return sorted(candidates, key=lambda candidate: (-candidate[1], candidate[0]))


class Window:
    """The part of what was found in which some ranks must lie, whatever the last digits of the scores are.

    Args:
        candidates: with Milvus's scores, best first, of which none that has one of the ranks is missing.
        first, last: the ranks, from 0; ``last`` is not one of them.
    """

    def __init__(self, candidates: Sequence[Candidate], first: int, last: int) -> None:
        ranked = candidates[first:last]
        above = ranked[0][1] + NOISE if ranked else -np.inf
        below = ranked[-1][1] - NOISE if ranked else np.inf
        self._start = first - sum(score > above for _, score in candidates)
        self._number = last - first
        self.ids = [track_id for track_id, score in candidates if below <= score <= above]
        """What must be scored again."""

    def ranks(self, scored: Sequence[Candidate]) -> list[Candidate]:
        """The tracks of the ranks, in order, given ``ids`` with their exact scores."""
        return in_order(scored)[self._start : self._start + self._number]


class Best:
    """The first ``depth`` of all tracks that pass by, in order.

    Args:
        query_D: the query.
        depth: how many are kept.
    """

    def __init__(self, query_D: np.ndarray, depth: int) -> None:
        self._query_D, self._depth = query_D, depth
        self._length = float(np.linalg.norm(query_D))
        self.kept: list[Candidate] = []

    def add(self, ids: Sequence[str], vectors_ND: np.ndarray) -> None:
        """Some more tracks."""
        near_N = vectors_ND @ self._query_D / self._length  # to pass over most of them: fast, and nearly right
        near_N /= np.linalg.norm(vectors_ND, axis=1)
        least = -np.inf
        if len(ids) > self._depth:
            least = np.partition(near_N, -self._depth)[-self._depth]
        if len(self.kept) == self._depth:
            least = max(least, self.kept[-1][1])
        chosen = np.flatnonzero(near_N >= least - NOISE).tolist()
        scores = exact_scores(self._query_D, vectors_ND[chosen]).tolist()
        new = [(ids[i], score) for i, score in zip(chosen, scores, strict=True)]
        self.kept = in_order([*self.kept, *new])[: self._depth]

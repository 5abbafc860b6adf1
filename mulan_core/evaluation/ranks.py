"""Counting in one row of scores without sorting it: what stands above an item, and what stands on top.

Shape letters: N scores of a row, R values of interest, K hits.

A row of 100,000 scores takes longer to sort than to compute. Few of them matter: those near the relevant items, and
the best ones. Both are found in passes that only compare or count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BUCKETS = 4096
"""Coarse score classes of a row; only items that share one with a value of interest are sorted."""
_FEW = 6
"""Up to this many values are counted by comparing the row with each, which costs a tenth of the buckets a value."""
_BLOCK = 128
"""Neighbours of which the highest is looked at first for the top of a row."""


class RankCounter:
    """Counts in rows of one length; keeps the arrays that it works in, so that no row allocates anew.

    Args:
        num_items: N.
        dtype: of the rows.
    """

    def __init__(self, num_items: int, dtype: np.dtype) -> None:
        self._spread_N = np.empty(num_items, dtype)
        self._bucket_N = np.empty(num_items, np.int16)
        self._near_N = np.empty(num_items, bool)

    def above(
        self, row_N: NDArray[np.floating], at_R: NDArray[np.floating], span: tuple[np.floating, np.floating]
    ) -> tuple[Floats, Floats]:
        """Items of ``row_N`` strictly above, and equal to, each value of ``at_R``, which descends.

        ``span`` is the lowest and the highest score of the row; both are finite. Bucketing is monotone under
        rounding, so the counts are exact whatever the buckets are; N log N is never paid.
        """
        if at_R.size <= _FEW:
            above = [np.count_nonzero(row_N > value) for value in at_R]
            equal = [np.count_nonzero(row_N == value) for value in at_R]
            return np.array(above, np.float64), np.array(equal, np.float64)
        low, high = span
        if low == high:
            return np.zeros(at_R.size), np.full(at_R.size, float(row_N.size))
        with np.errstate(over="ignore"):
            scale = row_N.dtype.type(BUCKETS - 1) / (high - low)
        if not 0 < scale < np.inf:  # the spread or its inverse overflows: no buckets, still exact
            right, left = _places(np.sort(row_N), at_R)
            return (row_N.size - right).astype(np.float64), (right - left).astype(np.float64)
        np.subtract(row_N, low, out=self._spread_N)
        np.multiply(self._spread_N, scale, out=self._spread_N)
        np.copyto(self._bucket_N, self._spread_N, casting="unsafe")
        bucket_R = ((at_R - low) * scale).astype(np.int16)
        sizes = np.bincount(self._bucket_N, minlength=BUCKETS)
        wanted = np.zeros(BUCKETS, dtype=bool)
        wanted[bucket_R] = True
        np.take(wanted, self._bucket_N, out=self._near_N, mode="clip")
        near = np.sort(row_N.compress(self._near_N))
        # Among ``near``, everything above a value is either in its own bucket or in a higher wanted one; the
        # histogram knows the size of those, and of the buckets that nobody wanted.
        others = np.where(wanted, 0, sizes)
        others_above_R = others[::-1].cumsum()[::-1][bucket_R]
        right, left = _places(near, at_R)
        return (others_above_R + near.size - right).astype(np.float64), (right - left).astype(np.float64)


def _places(ordered: NDArray[np.floating], at_R: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.searchsorted(ordered, at_R, side="right"), np.searchsorted(ordered, at_R, side="left")


def top_of(row_N: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Indices of the k highest of ``row_N``, best first, equal ones by index; k is at most N."""
    # The k-th highest of the blocks' maxima is a floor for the k-th highest of all: few items reach it.
    whole = row_N[: row_N.size // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    peaks = np.append(whole.max(axis=1), row_N[whole.size :])
    near = np.flatnonzero(row_N >= np.partition(peaks, -k)[-k]) if k <= peaks.size else np.arange(row_N.size)
    return near[np.argsort(-row_N[near], kind="stable")[:k]]

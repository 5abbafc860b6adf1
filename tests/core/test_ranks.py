"""Counts in one row against plain comparisons, tops against a full sort, whatever the spread and the ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mulan_core.evaluation.ranks import RankCounter, top_of

rows = arrays.arrays(
    st.sampled_from([np.float32, np.float64]),
    st.integers(1, 400),
    elements=st.floats(-(2.0**120), 2.0**120, width=32) | st.sampled_from([0.0, 0.5, 1.0]),
)


def counts(row: np.ndarray, at: np.ndarray) -> tuple[list[float], list[float]]:
    above, equal = RankCounter(row.size, row.dtype).above(row, at, (row.min(), row.max()))
    return above.tolist(), equal.tolist()


@given(rows, st.integers(1, 40), st.integers(0, 2**31))
def test_counts_are_those_of_comparisons(row: np.ndarray, num: int, seed: int) -> None:
    at = np.sort(np.random.default_rng(seed).choice(row, num))[::-1]
    assert counts(row, at) == ([(row > value).sum() for value in at], [(row == value).sum() for value in at])


@pytest.mark.parametrize("spread", [1e-310, 1e-12, 1.0, 1e12, 3e306])
@pytest.mark.parametrize("num", [3, 40])
def test_counts_are_exact_in_every_spread(spread: float, num: int) -> None:
    row = np.random.default_rng(4).integers(0, 50, 500) * spread
    at = np.sort(row[:num])[::-1]
    assert counts(row, at) == ([(row > value).sum() for value in at], [(row == value).sum() for value in at])


def test_a_counter_forgets_the_row_before() -> None:
    rng = np.random.default_rng(0)
    counter = RankCounter(300, np.dtype(np.float64))
    for _ in range(3):
        row = rng.standard_normal(300)
        at = np.sort(row[:20])[::-1]
        above, _ = counter.above(row, at, (row.min(), row.max()))
        assert above.tolist() == [(row > value).sum() for value in at]


@given(rows, st.integers(1, 30))
def test_the_top_is_that_of_a_stable_sort(row: np.ndarray, k: int) -> None:
    k = min(k, row.size)
    assert top_of(row, k).tolist() == np.argsort(-row, kind="stable")[:k].tolist()


def test_the_top_of_a_long_row_with_ties() -> None:
    row = np.random.default_rng(1).integers(0, 300, 10_007).astype(np.float32)
    for k in (1, 5, 79, 80, 500):
        assert top_of(row, k).tolist() == np.argsort(-row, kind="stable")[:k].tolist()

"""Intervals of metrics by resampling their items.

Shape letters: N items, B resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def bootstrap_weights(num_items: int, *, resamples: int, seed: int) -> NDArray[np.uint16]:
    """How often each item is drawn in each of B resamples with replacement: weights_BN, rows sum to N."""
    rng = np.random.default_rng(seed)
    weights_BN = np.empty((resamples, num_items), np.uint16)
    for b in range(resamples):
        weights_BN[b] = np.bincount(rng.integers(num_items, size=num_items), minlength=num_items)
    return weights_BN


def percentile_interval(
    values_B: Floats, *, level: float = 0.95, centre: float | None = None
) -> tuple[float, float] | None:
    """Percentile interval of resampled values, leaving out NaN; None when fewer than half are numbers.

    With ``centre``, the resampled values of a metric in [0, 1] are first shifted so that their mean is there. Average
    precision needs it: a resample repeats items, repeats tie, and so its mean lies above the sample's value.
    """
    kept = values_B[~np.isnan(values_B)]
    if kept.size == 0 or 2 * kept.size < values_B.size:
        return None
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    if centre is not None:
        low, high = np.clip([low + centre - kept.mean(), high + centre - kept.mean()], 0.0, 1.0)
    return float(low), float(high)


def bootstrap_mean(
    values_N: ArrayLike, *, resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval of the mean of ``values_N`` over resampled items; None without two items."""
    values = np.asarray(values_N, dtype=np.float64)
    if values.size < 2 or resamples < 1:
        return None
    means_B = bootstrap_weights(values.size, resamples=resamples, seed=seed) @ values / values.size
    return percentile_interval(means_B, level=level)


def bootstrap_median(
    values_N: ArrayLike, *, resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval of the median of ``values_N`` over resampled items; None without two items."""
    values = np.asarray(values_N, dtype=np.float64)
    if values.size < 2 or resamples < 1:
        return None
    drawn = bootstrap_weights(values.size, resamples=resamples, seed=seed)
    return percentile_interval(np.array([np.median(np.repeat(values, weights)) for weights in drawn]), level=level)

"""Text triplets: is a title closer to its own description than to another's (section 4.4; text tower alone).

Shape letters: P pairs of anchor and description, D embedding size, T triplets.

The same function serves playlists (title, description) and an ontology (class label, its description). With P
pairs there are P (P - 1) triplets; all of them are used when that is not too many, which removes the noise of
sampling. Equal similarities count half. Chance is 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mulan_core.errors import UserError
from mulan_core.evaluation.bootstrap import bootstrap_weights, percentile_interval

CHUNK = 256
"""Anchors compared with all descriptions at once."""


@dataclass(frozen=True)
class TripletResult:
    """Right answers per anchor."""

    right: NDArray[np.float64]
    """(P,) triplets of the anchor that came out right; ties count half."""
    count: NDArray[np.int64]
    """(P,) triplets of the anchor; 0 if the sample drew none."""
    exhaustive: bool
    """True if every triplet was used."""

    @property
    def num_triplets(self) -> int:
        """Triplets used."""
        return int(self.count.sum())

    @property
    def accuracy(self) -> float:
        """Share of triplets that came out right."""
        return float(self.right.sum() / self.count.sum())

    def interval(self, *, resamples: int, seed: int) -> tuple[float, float] | None:
        """95 % percentile interval of the accuracy over resampled anchors."""
        if resamples < 1:
            return None
        weights_BP = bootstrap_weights(len(self.right), resamples=resamples, seed=seed)
        count_B = weights_BP @ self.count
        return percentile_interval((weights_BP @ self.right) / np.where(count_B, count_B, np.nan))


def triplet_accuracy(
    anchors_PD: NDArray[np.floating],
    descriptions_PD: NDArray[np.floating],
    *,
    num_triplets: int | None = None,
    seed: int = 0,
) -> TripletResult:
    """Compare each anchor with its own description and with the descriptions of others.

    Args:
        anchors_PD: unit vectors of titles or class labels.
        descriptions_PD: unit vectors; row p belongs to anchor p.
        num_triplets: if there are more triplets than this, draw this many distinct ones; None uses all.
        seed: seed of the draw.

    Raises:
        UserError: with fewer than two pairs, or vectors that are not finite.
    """
    if anchors_PD.shape != descriptions_PD.shape or len(anchors_PD) < 2:
        raise UserError(
            f"triplets need two or more pairs of anchor and description, got {anchors_PD.shape} and "
            f"{descriptions_PD.shape}"
        )
    if not (np.isfinite(anchors_PD).all() and np.isfinite(descriptions_PD).all()):
        raise UserError("triplet vectors are not finite")
    num_pairs = len(anchors_PD)
    if num_triplets is None or num_pairs * (num_pairs - 1) <= num_triplets:
        right_P = _right_of_all(anchors_PD, descriptions_PD)
        return TripletResult(right_P, np.full(num_pairs, num_pairs - 1), exhaustive=True)
    anchor_T, other_T = _draw(num_pairs, num_triplets, seed)
    # Row-wise products, so that equal descriptions tie exactly.
    own_P = np.einsum("pd,pd->p", anchors_PD, descriptions_PD)
    other_similarity_T = np.einsum("td,td->t", anchors_PD[anchor_T], descriptions_PD[other_T])
    right_T = _right(own_P[anchor_T], other_similarity_T)
    drawn_right_P = np.zeros(num_pairs)
    np.add.at(drawn_right_P, anchor_T, right_T)
    return TripletResult(drawn_right_P, np.bincount(anchor_T, minlength=num_pairs), exhaustive=False)


def _right(own: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.where(own == other, 0.5, own > other)


def _right_of_all(anchors_PD: NDArray[np.floating], descriptions_PD: NDArray[np.floating]) -> NDArray[np.float64]:
    # A matrix product may round equal columns differently: equal descriptions share one column, so that they tie.
    unique_UD, column_P = np.unique(descriptions_PD, axis=0, return_inverse=True)
    column_P = column_P.reshape(-1)
    sizes_U = np.bincount(column_P)
    right_P = np.empty(len(anchors_PD))
    for first in range(0, len(anchors_PD), CHUNK):
        rows = slice(first, first + CHUNK)
        similarity_pU = anchors_PD[rows] @ unique_UD.T
        own_p = np.take_along_axis(similarity_pU, column_P[rows, None], axis=1)
        right_P[rows] = _right(own_p, similarity_pU) @ sizes_U - 0.5  # less the anchor's own, a tie with itself
    return right_P


def _draw(num_pairs: int, num_triplets: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct (anchor, other) pairs, other never the anchor."""
    rng = np.random.default_rng(seed)
    flat_T = rng.choice(num_pairs * (num_pairs - 1), size=num_triplets, replace=False, shuffle=False)
    anchor_T, other_T = np.divmod(flat_T, num_pairs - 1)
    return anchor_T, other_T + (other_T >= anchor_T)

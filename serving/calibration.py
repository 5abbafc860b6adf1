"""What a score is worth: the chance that a track with this cosine fits, by the release's own catalogue.

A cosine says little by itself: what is high for one model is low for another, and between a text and a track it is
smaller than between two tracks. The catalogue's labels say which pairs fit, so two curves are fitted to its own pairs,
by logistic regression of one number:

    words   (label, track)  fits where the track carries the label
    audio   (track, track)  fits where the two share at least half of their labels; those that share some are left out

A curve's value at a score is the share of fitting pairs among those with about that score: of tracks with a match of
0.8, four in five fit. That is a statement on queries like the catalogue's labels; a long text is judged by the same
curve.

Shape letters: N tracks, L labels, D embedding size, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mulan_core.evaluation.logistic import fit_logistic

Kind = Literal["words", "audio"]

GOOD_MATCH = 0.5
"""An answer whose best hit is less likely to fit than not has no good match."""
MIN_PAIRS = 20
"""Fewer pairs that fit, or do not, say nothing."""


@dataclass(frozen=True)
class Curve:
    """Score to the chance that the track fits."""

    slope: float
    intercept: float

    def __call__(self, score: float) -> float:
        """The chance, 0 to 1."""
        return 1 / (1 + math.exp(-min(max(self.slope * score + self.intercept, -700), 700)))


@dataclass(frozen=True)
class Calibration:
    """The curves of a release; None where its catalogue has too few labels to fit one."""

    words: Curve | None = None
    audio: Curve | None = None

    def match(self, score: float, kinds: Collection[Kind]) -> float | None:
        """The chance that a track with this score fits; the lower one for a query of words and audio."""
        curves = [self.words if kind == "words" else self.audio for kind in sorted(kinds)]
        if not curves or None in curves:
            return None
        return min(curve(score) for curve in curves if curve is not None)


def calibrate(
    tracks_ND: np.ndarray,
    labels_of_N: Sequence[Collection[str]],
    words_LD: np.ndarray,
    labels: Sequence[str],
) -> Calibration:
    """Fit both curves.

    Args:
        tracks_ND: unit vectors of a sample of the catalogue.
        labels_of_N: labels of each track.
        words_LD: unit vectors of the labels, as words.
        labels: the labels, in the same order.
    """
    if not len(labels) or not len(tracks_ND):
        return Calibration()
    carries_NL = np.array([[label in track_labels for label in labels] for track_labels in labels_of_N], dtype=bool)
    words = _fit((tracks_ND @ words_LD.T).ravel(), carries_NL.ravel())
    shared_NN = carries_NL.astype(np.float32) @ carries_NL.T.astype(np.float32)
    sizes_N = carries_NL.sum(axis=1)
    either_NN = sizes_N[:, None] + sizes_N[None, :] - shared_NN
    half = shared_NN >= np.maximum(either_NN, 1) / 2
    # Each pair once, and only where it is clear what it is.
    clear = np.triu(half | (shared_NN == 0), k=1) & (sizes_N > 0)[:, None] & (sizes_N > 0)[None, :]
    return Calibration(words, _fit((tracks_ND @ tracks_ND.T)[clear], half[clear]))


def _fit(scores_P: np.ndarray, fits_P: np.ndarray) -> Curve | None:
    if min(int(fits_P.sum()), int((~fits_P).sum())) < MIN_PAIRS:
        return None
    mean, spread = float(scores_P.mean()), max(float(scores_P.std()), 1e-9)
    (weights_K1,) = fit_logistic(((scores_P - mean) / spread)[:, None], fits_P[:, None], [1e3], device="cpu")
    slope, intercept = float(weights_K1[0, 0]) / spread, float(weights_K1[1, 0])
    if slope <= 0:  # the model does not tell them apart, so every score is worth the share of fitting pairs
        share = float(fits_P.mean())
        return Curve(0.0, math.log(share / (1 - share)))
    return Curve(slope, intercept - slope * mean)

"""Linear probe: one logistic regression per class on the frozen track vectors (paper, section 4.2).

Shape letters: N tracks, C classes, D embedding size.

The paper states neither scaling nor regularisation. Here every dimension is standardised with the training split's
mean and deviation; the regularisation strength is one number for all classes, the one with the best mean ROC-AUC
on the validation split; the probe is then used as trained, on the training split alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mulan_core.evaluation.metrics import roc_auc


@dataclass(frozen=True)
class Probe:
    """What was trained and how it was chosen."""

    scores: NDArray[np.float64]
    """Decision values of the test tracks, (N, C); NaN columns for classes that could not be trained."""
    trained: NDArray[np.bool_]
    """Classes, (C,), with a positive and a negative in the training split."""
    strength: float
    """Inverse regularisation C in use."""
    valid_auc: dict[float, float]
    """Strength -> mean ROC-AUC on the validation split; empty when that split could not choose."""


def linear_probe(
    train: tuple[NDArray[np.floating], NDArray[np.bool_]],
    valid: tuple[NDArray[np.floating], NDArray[np.bool_]],
    test_ND: NDArray[np.floating],
    *,
    strengths: Sequence[float],
    device: str | None = None,
) -> Probe:
    """Train the probe, choose its strength, score the test tracks.

    Args:
        train: vectors_ND and positives_NC of the training split.
        valid: the same of the validation split; may have no rows. Then the strength nearest to 1 is used.
        test_ND: vectors to score.
        strengths: values of C to try; smaller is more regularised.
        device: where to train, torch's name of it; None takes a GPU where there is one.
    """
    train_ND, train_NC = train
    valid_ND, valid_NC = valid
    mean_D, deviation_D = train_ND.mean(axis=0), train_ND.std(axis=0)
    deviation_D = np.where(deviation_D > 1e-8, deviation_D, 1.0)  # a dead dimension stays at zero
    train_ND, valid_ND, test_ND = ((part - mean_D) / deviation_D for part in (train_ND, valid_ND, test_ND))
    trained_C = _decidable(train_NC)
    usable_C = trained_C & _decidable(valid_NC)

    fitted = dict(zip(strengths, _fit(train_ND, train_NC, trained_C, strengths, device), strict=True))
    valid_auc: dict[float, float] = {}
    if usable_C.any():
        for strength, weights_DC in fitted.items():
            scores_NC = _scores(valid_ND, weights_DC)
            valid_auc[strength] = float(
                np.mean([roc_auc(scores_NC[:, c], valid_NC[:, c]) for c in np.flatnonzero(usable_C)])
            )
        best = max(strengths, key=lambda strength: (valid_auc[strength], -strength))  # of equals the more regularised
    else:
        best = min(strengths, key=lambda strength: abs(np.log(strength)))
    scores_NC = _scores(test_ND, fitted[best])
    scores_NC[:, ~trained_C] = np.nan
    return Probe(scores_NC, trained_C, float(best), valid_auc)


def _decidable(positives_NC: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Classes with a positive and a negative."""
    count_C = positives_NC.sum(axis=0)
    return (count_C > 0) & (count_C < len(positives_NC))


def _fit(
    train_ND: NDArray[np.floating],
    train_NC: NDArray[np.bool_],
    trained_C: NDArray[np.bool_],
    strengths: Sequence[float],
    device: str | None,
) -> list[NDArray[np.float64]]:
    """Weights of all classes for each strength, the intercept last: (D + 1, C); zeros for untrained classes."""
    weights_SKC = [np.zeros((train_ND.shape[1] + 1, len(trained_C))) for _ in strengths]
    if trained_C.any():
        from mulan_core.evaluation.logistic import fit_logistic  # here: it imports torch

        fitted = fit_logistic(train_ND, train_NC[:, trained_C], strengths, device=device)
        for weights_KC, found_KC in zip(weights_SKC, fitted, strict=True):
            weights_KC[:, trained_C] = found_KC
    return weights_SKC


def _scores(vectors_ND: NDArray[np.floating], weights_DC: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors_ND @ weights_DC[:-1] + weights_DC[-1]

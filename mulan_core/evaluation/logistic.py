"""Logistic regression of many classes on the same vectors: all classes at once, on a CPU or a GPU.

Shape letters: N examples, D features, K columns of weights (D and the intercept), C classes.

The problem is scikit-learn's: a class's ``|w|^2 / 2 + strength * sum of its log losses``, the intercept free. It is
solved by Newton's method, each step by conjugate gradients, whose products are matrix products over all classes. In
the basis of the features' principal axes the curvature is nearly diagonal, which makes them few.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_CELLS = 1 << 22
"""Examples times classes worked on at once: some 200 MiB, whatever the number of classes."""
_MAX_STEPS, _MAX_PRODUCTS, _MAX_HALVINGS = 100, 200, 30


def fit_logistic(
    features_ND: NDArray[np.floating],
    positives_NC: NDArray[np.bool_],
    strengths: Sequence[float],
    *,
    tolerance: float = 1e-10,
    device: str | None = None,
) -> list[NDArray[np.float64]]:
    """Weights of all classes for each strength.

    Args:
        features_ND: standardised features.
        positives_NC: which example is of which class; each class has a positive and a negative.
        strengths: inverse regularisation, scikit-learn's C.
        tolerance: largest entry of a class's gradient of the mean loss at the end, scikit-learn's ``tol``.
        device: torch's name of it; None takes a GPU where there is one.

    Returns:
        weights_KC float64 for each strength, in the order given, the intercept last.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    features = torch.from_numpy(np.ascontiguousarray(features_ND, dtype=np.float64)).to(where)
    scales_D, axes_DD = torch.linalg.eigh(features.T @ features)
    inputs_NK = torch.cat([features @ axes_DD, torch.ones_like(features[:, :1])], dim=1)
    # Curvature of a column for one unit of weight: its sum of squares.
    curvature_K = torch.cat([scales_D.clamp_min(0.0), torch.full_like(scales_D[:1], len(features))])
    order = sorted(range(len(strengths)), key=lambda i: strengths[i])
    solutions = [np.zeros((inputs_NK.shape[1], positives_NC.shape[1])) for _ in strengths]
    size = max(1, _CELLS // len(features))
    for first in range(0, positives_NC.shape[1], size):
        targets_NC = torch.from_numpy(positives_NC[:, first : first + size]).to(where, torch.float64)
        share_C = targets_NC.mean(dim=0)
        weights_KC = torch.zeros(inputs_NK.shape[1], targets_NC.shape[1], dtype=torch.float64, device=where)
        weights_KC[-1] = torch.log(share_C / (1 - share_C))
        for i in order:  # the more regularised solution is a good start for the next
            problem = _Problem(inputs_NK, targets_NC, curvature_K, strengths[i])
            weights_KC = problem.solve(weights_KC, tolerance)
            rotated_KC = torch.cat([axes_DD @ weights_KC[:-1], weights_KC[-1:]])
            solutions[i][:, first : first + size] = rotated_KC.cpu().numpy()
    return solutions


class _Problem:
    """The mean loss of some classes at one strength; all terms are divided by ``strength * N``."""

    def __init__(self, inputs_NK: Tensor, targets_NC: Tensor, curvature_K: Tensor, strength: float) -> None:
        self.inputs, self.targets = inputs_NK, targets_NC
        self.curvature = curvature_K[:, None] / len(inputs_NK)
        self.penalty = torch.full_like(self.curvature, 1 / (strength * len(inputs_NK)))
        self.penalty[-1] = 0.0

    def solve(self, weights_KC: Tensor, tolerance: float) -> Tensor:
        weights_KC = weights_KC.clone()
        active = torch.arange(weights_KC.shape[1], device=weights_KC.device)
        for _ in range(_MAX_STEPS):
            now_KC, targets_NC = weights_KC[:, active], self.targets[:, active]
            margins_NC = self.inputs @ now_KC
            probabilities_NC = torch.sigmoid(margins_NC)
            gradient_KC = self.inputs.T @ (probabilities_NC - targets_NC) / len(self.inputs) + self.penalty * now_KC
            open_C = gradient_KC.abs().amax(dim=0) > tolerance
            if not open_C.any():
                break
            active, now_KC, targets_NC = active[open_C], now_KC[:, open_C], targets_NC[:, open_C]
            margins_NC, gradient_KC = margins_NC[:, open_C], gradient_KC[:, open_C]
            probabilities_NC = probabilities_NC[:, open_C]
            step_KC = self._newton_step(probabilities_NC * (1 - probabilities_NC), gradient_KC)
            weights_KC[:, active] = self._line_search(now_KC, step_KC, margins_NC, targets_NC, gradient_KC)
        return weights_KC

    def _newton_step(self, weight_NC: Tensor, gradient_KC: Tensor) -> Tensor:
        """Preconditioned conjugate gradients; the tighter, the nearer the optimum (Dembo et al., 1982)."""
        diagonal_KC = self.curvature * weight_NC.mean(dim=0) + self.penalty
        diagonal_KC = diagonal_KC.clamp_min(1e-12)
        size_C = gradient_KC.norm(dim=0)
        enough_C = size_C * size_C.sqrt().clamp(max=0.1)
        step_KC = torch.zeros_like(gradient_KC)
        residual_KC = -gradient_KC
        scaled_KC = residual_KC / diagonal_KC
        direction_KC = scaled_KC.clone()
        product_C = (residual_KC * scaled_KC).sum(dim=0)
        for _ in range(_MAX_PRODUCTS):
            curved_KC = self.inputs.T @ (weight_NC * (self.inputs @ direction_KC)) / len(self.inputs)
            curved_KC += self.penalty * direction_KC
            length_C = product_C / (direction_KC * curved_KC).sum(dim=0).clamp_min(1e-300)
            step_KC += length_C * direction_KC
            residual_KC -= length_C * curved_KC
            if (residual_KC.norm(dim=0) <= enough_C).all():
                break
            scaled_KC = residual_KC / diagonal_KC
            next_C = (residual_KC * scaled_KC).sum(dim=0)
            direction_KC = scaled_KC + next_C / product_C.clamp_min(1e-300) * direction_KC
            product_C = next_C
        return step_KC

    def _line_search(
        self, now_KC: Tensor, step_KC: Tensor, margins_NC: Tensor, targets_NC: Tensor, gradient_KC: Tensor
    ) -> Tensor:
        """Halve a class's step until its loss falls enough (Armijo)."""
        slope_C = (gradient_KC * step_KC).sum(dim=0)
        before_C = self._loss(margins_NC, targets_NC, now_KC)
        change_NC = self.inputs @ step_KC
        length_C = torch.ones_like(before_C)
        for _ in range(_MAX_HALVINGS):
            after_C = self._loss(margins_NC + length_C * change_NC, targets_NC, now_KC + length_C * step_KC)
            # Near the optimum the loss changes by less than its rounding.
            bad_C = after_C > before_C + 1e-4 * length_C * slope_C + 1e-14 * before_C.abs()
            if not bad_C.any():
                break
            length_C = torch.where(bad_C, length_C / 2, length_C)
        return now_KC + length_C * step_KC

    def _loss(self, margins_NC: Tensor, targets_NC: Tensor, weights_KC: Tensor) -> Tensor:
        fit_C = (functional.softplus(margins_NC) - targets_NC * margins_NC).mean(dim=0)
        return fit_C + (self.penalty * weights_KC.square()).sum(dim=0) / 2

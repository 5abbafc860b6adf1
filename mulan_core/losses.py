"""The published loss and its relatives, in log space, for one process or many.

Shape letters: B pairs of the global batch, b pairs of this process, D embedding size.

With ``s_ij = audio_i . text_j / tau``, the forms are, for pair i:

    mulan      logaddexp(LSE_{j!=i} s_ij, LSE_{j!=i} s_ji) - s_ii      Huang et al., 2022, equation 1
    averaged   (LSE_{j!=i} s_ij + LSE_{j!=i} s_ji) / 2 - s_ii          decoupled, mean of two logarithms
    infonce    (LSE_j s_ij + LSE_j s_ji) / 2 - s_ii                    as in CLIP; the positive is below, too
    siglip     softplus(-(s_ii + c)) + sum_{j!=i} softplus(s_ij + c)   as in SigLIP, with c = -ln(B - 1)

LSE is log-sum-exp. In ``mulan`` the positive is not in the denominator and the negatives of both directions
share one logarithm. It has no lower bound: once each positive beats its negatives it falls without limit as
tau falls, so tau needs a floor and a negative loss is no fault. SigLIP learns its constant c; here it is the
log-odds that a random pair of the batch belongs together, so that all-zero similarities are a calibrated guess.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

Form = Literal["mulan", "averaged", "infonce", "siglip"]
Reduction = Literal["mean", "sum", "none"]


def contrastive_loss(
    audio_BD: Tensor,
    text_BD: Tensor,
    temperature: Tensor | float,
    *,
    form: Form = "mulan",
    reduction: Reduction = "mean",
) -> Tensor:
    """The loss of B pairs of unit vectors, float32 even under autocast (float64 for float64 input).

    Args:
        audio_BD: audio i belongs to text i.
        text_BD: as many.
        temperature: tau > 0; may carry gradient.
        form: see the module docstring.
        reduction: ``mean`` over pairs, ``sum`` (as the paper prints it), or ``none`` for (B,).

    Raises:
        ValueError: if the shapes differ or there are fewer than two pairs.
    """
    _check(audio_BD, text_BD, len(audio_BD))
    with torch.autocast(audio_BD.device.type, enabled=False):
        similarity_BB = _at_least_float(audio_BD) @ _at_least_float(text_BD).T / temperature
        return _reduce(_pair_losses(similarity_BB, similarity_BB.T, 0, form), reduction)


def distributed_contrastive_loss(
    audio_bD: Tensor, text_bD: Tensor, temperature: Tensor | float, *, form: Form = "mulan"
) -> Tensor:
    """The local part of the loss of a batch spread over all processes of the default group.

    Each process scores its b local pairs against the gathered features: two (b, B) blocks, not (B, B).
    It returns the mean over its own pairs, so the mean of the returned values over processes is the mean
    loss of the global batch. The gradient is exact: what other processes' losses say about the local features
    flows back through the gather (summed over processes). Under DistributedDataParallel, which averages
    gradients over processes, parameters and temperature get the gradient of the global mean, as one process
    with the whole batch would compute it.

    Args:
        audio_bD: local audio vectors; every process must hold equally many pairs.
        text_bD: local text vectors.
        temperature: tau > 0, the same on every process.
        form: see the module docstring.

    Without an initialised process group, or alone in it, this is ``contrastive_loss``.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return contrastive_loss(audio_bD, text_bD, temperature, form=form)
    num_local, num_dims = audio_bD.shape
    _check(audio_bD, text_bD, num_local * dist.get_world_size())
    with torch.autocast(audio_bD.device.type, enabled=False):
        audio_bD, text_bD = _at_least_float(audio_bD), _at_least_float(text_bD)
        both_BD2 = _Gather.apply(torch.cat([audio_bD, text_bD], dim=1))  # one collective instead of two
        audio_BD, text_BD = both_BD2.split(num_dims, dim=1)
        rows_bB, columns_bB = audio_bD @ text_BD.T / temperature, text_bD @ audio_BD.T / temperature
        return _pair_losses(rows_bB, columns_bB, dist.get_rank() * num_local, form).mean()


def chance_level(batch_size: int, form: Form = "mulan") -> float:
    """The mean loss of a model that tells nothing apart: all similarities equal (``siglip``: all 0).

    A training loss that stays here means that the towers have collapsed.
    """
    others = batch_size - 1
    if form == "mulan":
        return math.log(2 * others)
    if form == "averaged":
        return math.log(others)
    if form == "infonce":
        return math.log(batch_size)
    return math.log(batch_size) + others * math.log1p(1 / others)


def _pair_losses(rows_bB: Tensor, columns_bB: Tensor, offset: int, form: Form) -> Tensor:
    """Loss (b,) of the pairs offset..offset+b from their rows s_ij and columns s_ji."""
    positive_b = rows_bB.diagonal(offset)
    if form == "infonce":
        return (rows_bB.logsumexp(1) + columns_bB.logsumexp(1)) / 2 - positive_b
    own_bB = torch.zeros_like(rows_bB, dtype=torch.bool)
    own_bB.diagonal(offset).fill_(True)
    if form == "siglip":
        constant = -math.log(rows_bB.shape[1] - 1)
        # The positive's softplus has the other sign. Columns hold the same pairs, seen by other examples.
        signed_bB = torch.where(own_bB, -(rows_bB + constant), rows_bB + constant)
        return functional.softplus(signed_bB).sum(1)
    row_b = rows_bB.masked_fill(own_bB, -torch.inf).logsumexp(1)
    column_b = columns_bB.masked_fill(own_bB, -torch.inf).logsumexp(1)
    if form == "averaged":
        return (row_b + column_b) / 2 - positive_b
    if form == "mulan":
        return torch.logaddexp(row_b, column_b) - positive_b
    raise ValueError(f"unknown loss form {form!r}; known: mulan, averaged, infonce, siglip")


class _Gather(torch.autograd.Function):
    """Rows of all processes; the gradient of a row is the sum of what all processes say about it."""

    @staticmethod
    def forward(ctx: Any, local_bD: Tensor) -> Tensor:
        gathered_BD = local_bD.new_empty(dist.get_world_size() * local_bD.shape[0], *local_bD.shape[1:])
        dist.all_gather_into_tensor(gathered_BD, local_bD.contiguous())
        return gathered_BD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient_BD = gradients[0].contiguous()
        local_bD = gradient_BD.new_empty(len(gradient_BD) // dist.get_world_size(), *gradient_BD.shape[1:])
        dist.reduce_scatter_tensor(local_bD, gradient_BD)
        return local_bD


def _at_least_float(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()


def _reduce(losses_b: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return losses_b
    return losses_b.sum() if reduction == "sum" else losses_b.mean()


def _check(audio_bD: Tensor, text_bD: Tensor, num_pairs: int) -> None:
    if audio_bD.ndim != 2 or audio_bD.shape != text_bD.shape:
        raise ValueError(f"expected two (pairs, D) blocks, got {tuple(audio_bD.shape)} and {tuple(text_bD.shape)}")
    if num_pairs < 2:
        raise ValueError("the loss compares pairs: it needs at least 2 of them")

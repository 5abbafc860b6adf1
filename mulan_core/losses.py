"""The published loss and its relatives: log space, closed-form gradient, in chunks, on one process or many.

Shape letters: B pairs of the global batch, b pairs of this process, c rows of one chunk, D embedding size.

With ``s_ij = audio_i . text_j / tau``, the forms are, for pair i:

    mulan      logaddexp(LSE_{j!=i} s_ij, LSE_{j!=i} s_ji) - s_ii      Huang et al., 2022, equation 1
    averaged   (LSE_{j!=i} s_ij + LSE_{j!=i} s_ji) / 2 - s_ii          decoupled, mean of two logarithms
    infonce    (LSE_j s_ij + LSE_j s_ji) / 2 - s_ii                    as in CLIP; the positive is below, too
    siglip     softplus(-(s_ii + c)) + sum_{j!=i} softplus(s_ij + c)   as in SigLIP, with c = -ln(B - 1)

LSE is log-sum-exp. In ``mulan`` the positive is not in the denominator and the negatives of both directions
share one logarithm. It has no lower bound: once each positive beats its negatives it falls without limit as
tau falls, so tau needs a floor and a negative loss is no fault. SigLIP learns its constant c; here it is the
log-odds that a random pair of the batch belongs together, so that all-zero similarities are a calibrated guess.

The gradient. With the vectors ``u_i`` and ``v_j`` under which a form divides its exponentials (``mulan``: both
are ``m_i = logaddexp(row_i, column_i)``; the others: the LSE of the row and of the column),

    dL/ds_ij = w (exp(s_ij - u_i) + exp(s_ij - v_j)) - [i = j]         w = 1 for ``mulan``, 1/2 for the others

so backward needs 2 B numbers and a second pass over the similarities: never the (B, B) matrix. Every
exponent is at most 0, whatever tau is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

Form = Literal["mulan", "averaged", "infonce", "siglip"]
Reduction = Literal["mean", "sum", "none"]

FORMS: tuple[Form, ...] = ("mulan", "averaged", "infonce", "siglip")

CHUNK_ELEMENTS = 2**20
"""Similarities held at once by default: 4 MiB of float32, which stay in a CPU's cache between two passes."""


def contrastive_loss(
    audio_bD: Tensor,
    text_bD: Tensor,
    temperature: Tensor | float,
    *,
    form: Form = "mulan",
    reduction: Reduction = "mean",
    ids_b2: Tensor | None = None,
    chunk_rows: int | None = None,
    distributed: bool = False,
) -> Tensor:
    """The loss of b pairs of unit vectors, float32 even under autocast (float64 for float64 input).

    Args:
        audio_bD: audio i belongs to text i.
        text_bD: as many.
        temperature: tau > 0; may carry gradient.
        form: see the module docstring.
        reduction: ``mean`` over pairs, ``sum`` (as the paper prints it), or ``none`` for (b,).
        ids_b2: int64 (b, 2), the numbers of each pair's track and text. Two pairs that share either are
            then no negatives of each other. None compares all with all, as the paper does as far as is known.
            A pair that is left without negatives counts as 0.
        chunk_rows: rows of similarities in memory at once; any number gives the same result.
        distributed: the batch is spread over all processes of the default group, ``b`` pairs on each. Every
            process scores its audio against the texts of all and returns the loss of its own pairs; the mean
            over processes is that of the global batch. The gradient is exact: what other processes' pairs say
            about the local vectors is in it, so that parameters whose gradient is *averaged* over processes
            get the gradient of the global mean, as one process with the whole batch would compute it.

    Raises:
        ValueError: if the shapes differ, the form is unknown, or there are fewer than two pairs.
    """
    world = dist.get_world_size() if distributed and dist.is_initialized() else 1
    if audio_bD.ndim != 2 or audio_bD.shape != text_bD.shape:
        raise ValueError(f"expected two (pairs, D) blocks, got {tuple(audio_bD.shape)} and {tuple(text_bD.shape)}")
    if len(audio_bD) * world < 2:
        raise ValueError("the loss compares pairs: it needs at least 2 of them")
    if form not in FORMS:
        raise ValueError(f"unknown loss form {form!r}; known: {', '.join(FORMS)}")
    if ids_b2 is not None and ids_b2.shape != (len(audio_bD), 2):
        raise ValueError(f"expected ids of shape ({len(audio_bD)}, 2), got {tuple(ids_b2.shape)}")
    if chunk_rows is None:
        chunk_rows = max(1, CHUNK_ELEMENTS // (len(text_bD) * world))
    dtype = torch.float64 if audio_bD.dtype == torch.float64 else torch.float32
    tau = torch.as_tensor(temperature, dtype=dtype, device=audio_bD.device)
    arguments = (audio_bD.to(dtype), text_bD.to(dtype), tau, ids_b2, form, chunk_rows, world)
    losses_b: Tensor = _PairLosses.apply(*arguments)
    if reduction == "none":
        return losses_b
    return losses_b.sum() if reduction == "sum" else losses_b.mean()


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


class _PairLosses(torch.autograd.Function):
    """Losses (b,) of the local pairs; see the module docstring for the gradient."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any,
        audio_bD: Tensor,
        text_bD: Tensor,
        tau: Tensor,
        ids_b2: Tensor | None,
        form: Form,
        rows: int,
        world: int,
    ) -> Tensor:
        with torch.autocast(audio_bD.device.type, enabled=False):
            block = _Block(audio_bD / tau, text_bD, ids_b2, form=form, chunk_rows=rows, world=world)
            if form == "siglip":
                losses_b = torch.cat([_siglip_losses(block, s_cB, own_c) for _, s_cB, own_c in block.chunks()])
                under_b2, counts_b = losses_b.new_zeros(len(losses_b), 2), torch.ones_like(losses_b)
            else:
                losses_b, under_b2, counts_b = _softmax_losses(block)
        ctx.block, ctx.tau = block, tau
        ctx.save_for_backward(under_b2, counts_b)
        return losses_b

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        under_b2, counts_b = ctx.saved_tensors
        block, tau = ctx.block, ctx.tau
        upstream_b = gradients[0] * counts_b
        with torch.autocast(upstream_b.device.type, enabled=False):
            # What a pair of another process says about a local vector needs that pair's v and upstream gradient.
            under_column_B, upstream_B = block.gather(torch.stack([under_b2[:, 1], upstream_b], dim=1)).unbind(1)
            audio_grad_bD, text_grad_BD = torch.empty_like(block.audio_bD), torch.zeros_like(block.text_BD)
            sum_of_products = block.audio_bD.new_zeros(())
            for rows, s_cB, own_c in block.chunks():
                up_c1 = upstream_b[rows, None]
                if block.form == "siglip":
                    grad_cB = s_cB.add_(block.siglip_constant).sigmoid_().mul_(up_c1)
                    own_grad_c = torch.sigmoid(-(own_c + block.siglip_constant))
                else:
                    grad_cB = torch.sub(s_cB, under_b2[rows, :1]).exp_().mul_(up_c1)
                    grad_cB.addcmul_(s_cB.sub_(under_column_B).exp_(), upstream_B)
                    if block.form != "mulan":
                        grad_cB.mul_(0.5)
                    own_grad_c = torch.ones_like(own_c)
                block.own(grad_cB, rows).sub_(own_grad_c * up_c1[:, 0])
                towards_text_cD = grad_cB @ block.text_BD
                audio_grad_bD[rows] = towards_text_cD / tau
                text_grad_BD.addmm_(grad_cB.T, block.audio_bD[rows])
                sum_of_products += (block.audio_bD[rows] * towards_text_cD).sum()
            return audio_grad_bD, block.scatter(text_grad_BD), -sum_of_products / tau, None, None, None, None


class _Block:
    """The local audio (already divided by tau) against the texts of all processes, a chunk of rows at a time."""

    def __init__(
        self, audio_bD: Tensor, text_bD: Tensor, ids_b2: Tensor | None, *, form: Form, chunk_rows: int, world: int
    ) -> None:
        self.form, self.chunk_rows, self.world = form, chunk_rows, world
        self.audio_bD, self.text_BD = audio_bD, self.gather(text_bD)
        self.ids_b2, self.ids_B2 = ids_b2, None if ids_b2 is None else self.gather(ids_b2)
        self.offset = dist.get_rank() * len(text_bD) if world > 1 else 0

    @property
    def siglip_constant(self) -> float:
        return -math.log(len(self.text_BD) - 1)

    def own(self, block_cB: Tensor, rows: slice) -> Tensor:
        """The entries of a chunk where audio and text are of one pair, as a view (c,)."""
        return block_cB.diagonal(self.offset + rows.start)

    def chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Rows, their similarities with -inf where there is no negative, and those of the pairs themselves.

        All chunks share one buffer, which the caller may overwrite.
        """
        num_rows = len(self.audio_bD)
        buffer_cB = self.audio_bD.new_empty(min(self.chunk_rows, num_rows), len(self.text_BD))
        for start in range(0, num_rows, self.chunk_rows):
            rows = slice(start, min(start + self.chunk_rows, num_rows))
            s_cB = torch.mm(self.audio_bD[rows], self.text_BD.T, out=buffer_cB[: rows.stop - start])
            own_c = self.own(s_cB, rows).clone()
            if self.ids_b2 is not None and self.ids_B2 is not None:
                track_c, text_c = self.ids_b2[rows].unbind(1)
                same_cB = (track_c[:, None] == self.ids_B2[:, 0]) | (text_c[:, None] == self.ids_B2[:, 1])
                s_cB.masked_fill_(same_cB, -torch.inf)
            # InfoNCE alone has the positive among what it divides by.
            self.own(s_cB, rows).copy_(own_c if self.form == "infonce" else torch.full_like(own_c, -torch.inf))
            yield rows, s_cB, own_c

    def gather(self, local: Tensor) -> Tensor:
        """Rows of all processes, in order of rank."""
        if self.world == 1:
            return local
        everywhere = local.new_empty(self.world * len(local), *local.shape[1:])
        dist.all_gather_into_tensor(everywhere, local.contiguous())
        return everywhere

    def scatter(self, rows_BD: Tensor) -> Tensor:
        """The sum over processes of what each found for the local rows; the transpose of ``gather``."""
        if self.world == 1:
            return rows_BD
        local_bD = rows_BD.new_empty(len(rows_BD) // self.world, *rows_BD.shape[1:])
        dist.reduce_scatter_tensor(local_bD, rows_BD)
        return local_bD


def _siglip_losses(block: _Block, s_cB: Tensor, own_c: Tensor) -> Tensor:
    constant = block.siglip_constant
    return functional.softplus(-(own_c + constant)) + functional.softplus(s_cB.add_(constant)).sum(1)


def _softmax_losses(block: _Block) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (b,), the vectors u and v of the module docstring (b, 2), and 1 for pairs that have negatives (b,)."""
    row_b, own_b = (block.audio_bD.new_empty(len(block.audio_bD)) for _ in range(2))
    column_B = block.audio_bD.new_full((len(block.text_BD),), -torch.inf)
    for rows, s_cB, own_c in block.chunks():
        row_b[rows], own_b[rows] = s_cB.logsumexp(1), own_c
        column_B = torch.logaddexp(column_B, s_cB.logsumexp(0))
    # Each process has seen its own audio only; a column is complete with the parts of all.
    column_B = block.gather(column_B[None]).logsumexp(0)
    column_b = column_B[block.offset : block.offset + len(row_b)]
    if block.form == "mulan":
        row_b = column_b = torch.logaddexp(row_b, column_b)
    losses_b = (row_b + column_b) / 2 - own_b
    alone_b = row_b.isneginf()
    under_b2 = torch.stack([row_b, column_b], dim=1).masked_fill(alone_b[:, None], torch.inf)
    return losses_b.masked_fill(alone_b, 0.0), under_b2, (~alone_b).to(losses_b.dtype)

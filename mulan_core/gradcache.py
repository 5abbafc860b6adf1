"""Exact steps of large batches in the memory of a small one: gradient caching (Gao et al., 2021), tower by tower.

A contrastive loss ties all pairs of a batch together, so a batch cannot be split as in gradient accumulation.
But it ties them only through their vectors. Hence:

    1. encode the batch chunk by chunk without a graph; keep the vectors and each chunk's random state
    2. take the loss of all vectors and its gradient towards each vector
    3. encode each chunk again from its random state, with a graph, and send that gradient through it

A second forward pass buys memory that no longer grows with the batch. The chunks mean the same with and
without caching: what differs is only whether graphs are kept or made again, so dropout draws the same masks
and both give the same gradient (tested).

BatchNorm would make vectors depend on how a batch is cut. It is handled on purpose: its statistics are those of
a chunk (ghost batch norm, Hoffer et al., 2017), in both passes, with gradient through them. The statistics of
the whole batch would need one more pass for each normalised layer. So where chunks do not change, neither the
number of workers nor caching changes a step. The running statistics move once a step, by the mean over the
chunks of all workers; ``freeze_batch_norm`` uses them instead and lets only scale and shift train.

Shape letters: B pairs of this process, c of one chunk, D embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Encoding:
    """One tower's part of a step."""

    encode: Callable[[Tensor], Tensor]
    """Row numbers int64 (c,) to vectors (c, D); must draw its random numbers from torch's generators."""
    chunks: Sequence[Tensor]
    """Row numbers encoded at once; together every row of the batch exactly once, in any order."""
    module: nn.Module
    """The tower, for its BatchNorm layers and its device."""

    def in_order(self, parts: Sequence[Tensor]) -> Tensor:
        """The vectors (B, D) in the order of the batch, of the vectors of each chunk."""
        return torch.cat(list(parts))[torch.argsort(torch.cat(list(self.chunks))).to(parts[0].device)]


def backward_through_vectors(
    encodings: Sequence[Encoding], loss_of: Callable[..., Tensor], *, caching: bool
) -> tuple[Tensor, list[Tensor]]:
    """Add the gradient of a loss of all vectors of a batch to the towers' parameters.

    Args:
        encodings: the towers.
        loss_of: vectors (B, D), one block for each tower, to a scalar.
        caching: make the graph of a chunk again instead of keeping it. A tower of one chunk keeps its own.

    Returns:
        The loss and the vectors of each tower, detached.
    """
    blocks, replays = [], []
    with ExitStack() as stack:
        for encoding in encodings:
            cached = caching and len(encoding.chunks) > 1
            statistics = stack.enter_context(_Statistics(encoding.module))
            states, parts = [], []
            with torch.set_grad_enabled(not cached):
                for rows in encoding.chunks:
                    states.append(_random_state(encoding.module))
                    parts.append(encoding.encode(rows))
                    statistics.count()
            block_BD = encoding.in_order(parts)
            if cached:
                replays.append((encoding, states, block_BD.requires_grad_()))
            blocks.append(block_BD)
        loss = loss_of(*blocks)
        loss.backward()
        for encoding, states, block_BD in replays:
            after = _random_state(encoding.module)
            for rows, state in zip(encoding.chunks, states, strict=True):
                _set_random_state(encoding.module, state)
                encoding.encode(rows).backward(block_BD.grad[rows.to(block_BD.device)])  # type: ignore[index]
            _set_random_state(encoding.module, after)
    return loss.detach(), [block_BD.detach() for block_BD in blocks]


class _Statistics:
    """BatchNorm's running statistics over one step: they move once, by the mean over all chunks of all workers.

    Left alone they would move once a chunk and once more in the second pass, in the order of the chunks, and
    differently on each worker. Layers without running statistics have nothing to move. Whatever happens inside, each
    layer leaves with its own momentum; a step that failed moves nothing.
    """

    def __init__(self, module: nn.Module) -> None:
        self._norms = [norm for norm in _training_norms(module) if norm.running_mean is not None]
        self._num_chunks = 0

    def __enter__(self) -> _Statistics:
        norms = self._norms
        self._momenta = [norm.momentum for norm in norms]
        self._steps = [norm.num_batches_tracked.clone() for norm in norms]
        self._buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
        self._before = [buffer.clone() for buffer in self._buffers]
        self._total = [torch.zeros_like(buffer) for buffer in self._buffers]
        for norm in norms:
            norm.momentum = 1.0  # after each chunk the buffers then hold the statistics of that chunk alone
        return self

    def count(self) -> None:
        """Note the statistics of the chunk that was just encoded."""
        if self._buffers:
            torch._foreach_add_(self._total, self._buffers)
        self._num_chunks += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Move the running statistics; what a step that was not finite has left in them is dropped."""
        for norm, momentum, steps in zip(self._norms, self._momenta, self._steps, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(steps if kind else steps + 1)
        if kind:
            for buffer, before in zip(self._buffers, self._before, strict=True):
                buffer.copy_(before)
            return
        average_over_workers(self._total)
        shares = [share for norm in self._norms for share in (_share_of_a_step(norm),) * 2]
        for buffer, before, total, share in zip(self._buffers, self._before, self._total, shares, strict=True):
            moved = torch.lerp(before, total / self._num_chunks, share)
            buffer.copy_(torch.where(torch.isfinite(moved), moved, before))


def _share_of_a_step(norm: Any) -> float:
    """Share of a step's statistics in the running ones; a momentum of None is torch's word for a plain mean."""
    return 1.0 / int(norm.num_batches_tracked) if norm.momentum is None else float(norm.momentum)


def freeze_batch_norm(module: nn.Module) -> None:
    """Let BatchNorm use its running statistics, in training too; call it after ``module.train()``."""
    for norm in _training_norms(module):
        norm.eval()


def average_over_workers(tensors: Sequence[Tensor], *, bucket_bytes: int = 2**26) -> None:
    """Replace tensors by their mean over all processes, in place, with few large messages."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    bucket: list[Tensor] = []
    for i, tensor in enumerate(tensors):
        bucket.append(tensor)
        if i + 1 == len(tensors) or sum(t.nbytes for t in bucket) >= bucket_bytes:
            flat = torch.cat([t.reshape(-1) for t in bucket])
            dist.all_reduce(flat)
            for t, mean in zip(
                bucket, flat.div_(dist.get_world_size()).split([t.numel() for t in bucket]), strict=True
            ):
                t.copy_(mean.view_as(t))
            bucket = []


def _training_norms(module: nn.Module) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]


def _random_state(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    device = next(module.parameters()).device
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(module: nn.Module, state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], next(module.parameters()).device)

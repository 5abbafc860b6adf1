"""The closed-form, chunked loss beside autograd on the full matrix, forward and backward, in the same run.

    python benchmarks/contrastive_loss.py [--batch 6144] [--dims 128] [--rounds 7] [--device cuda]

Both compute the published loss and its gradient for the same vectors in float32. Memory is the peak above the
inputs: on a CPU the resident set of a fresh process for each side, on a GPU the allocator's. Claim in
docs/performance.md: at B = 6144, D = 128 at least twice as fast in under a tenth of the memory, gradients equal.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable

import numpy as np
import torch
from memory import peak_bytes
from torch import Tensor
from torch.nn import functional

from mulan_core.losses import contrastive_loss


def full_matrix_loss(audio_BD: Tensor, text_BD: Tensor, tau: Tensor) -> Tensor:
    """The published loss as one would write it in a line: the matrix, a mask, two log-sum-exps."""
    similarity_BB = audio_BD @ text_BD.T / tau
    own_BB = torch.eye(len(audio_BD), dtype=torch.bool, device=audio_BD.device)
    negatives_BB = similarity_BB.masked_fill(own_BB, -torch.inf)
    below_B = torch.logaddexp(negatives_BB.logsumexp(1), negatives_BB.logsumexp(0))
    return (below_B - similarity_BB.diagonal()).mean()


SIDES: dict[str, Callable[..., Tensor]] = {
    "autograd, full matrix": full_matrix_loss,
    "closed form, chunked": contrastive_loss,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=6144)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    size = (arguments.batch, arguments.dims, arguments.device)
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    results = {}
    tensors = _vectors(*size)
    for _ in range(arguments.rounds + 1):
        for name in SIDES:
            taken, results[name] = _step(name, tensors)
            seconds[name].append(taken)
    memory = {name: _peak_bytes(name, *size) for name in SIDES}
    print(f"B = {arguments.batch}, D = {arguments.dims}, {arguments.device}, {torch.get_num_threads()} threads")
    for name in SIDES:
        times = seconds[name][1:]  # the first round warms up
        print(f"{name:22} median {np.median(times) * 1000:8.1f} ms   peak {memory[name] / 2**20:8.1f} MiB")
    slow, fast = (np.array(seconds[name][1:]) for name in SIDES)
    plain, ours = SIDES
    print(f"times faster, median of the rounds' ratios: {np.median(slow / fast):.2f}")
    print(f"share of the memory: {memory[ours] / memory[plain]:.3f}")
    worst = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(results[plain], results[ours], strict=True))
    print(f"largest difference of loss and gradients, relative: {worst:.1e}")


def _vectors(batch: int, dims: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    audio_BD, text_BD = (
        functional.normalize(torch.randn(batch, dims, generator=generator), dim=1).to(device).requires_grad_()
        for _ in range(2)
    )
    return audio_BD, text_BD, torch.tensor(0.07, device=device, requires_grad=True)


def _step(name: str, tensors: tuple[Tensor, Tensor, Tensor]) -> tuple[float, list[Tensor]]:
    for tensor in tensors:
        tensor.grad = None
    _wait(tensors[0])
    started = time.perf_counter()
    loss = SIDES[name](*tensors)
    loss.backward()
    _wait(tensors[0])
    taken = time.perf_counter() - started
    return taken, [loss.detach(), *(t.grad.clone() for t in tensors if t.grad is not None)]


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def _peak_bytes(name: str, batch: int, dims: int, device: str) -> float:
    """Above the inputs; a process of its own, so that neither side finds memory the other has left."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_measure_peak, args=(name, batch, dims, device, answer))
    process.start()
    peak = float(answer.get())
    process.join()
    return peak


def _measure_peak(name: str, batch: int, dims: int, device: str, answer: multiprocessing.Queue) -> None:
    _step(name, _vectors(256, dims, device))  # kernels and threads are loaded now
    tensors = _vectors(batch, dims, device)
    answer.put(peak_bytes(lambda: _step(name, tensors), device))


if __name__ == "__main__":
    main()

"""Training steps with one and with two workers on the cores that are here: how much of the second one is gained.

    python benchmarks/scaling.py [--batch 64] [--steps 20]

Processes with gloo over loopback and one thread each, the loop's own step (gathered negatives, averaged gradients),
small towers with random weights. *Strong*: the same global batch on two workers. *Weak*: the same share for each, so
twice the batch. Beside them one worker that has both cores as threads. Efficiency is clips a second, over workers (or
threads) times those of one. Claim in docs/performance.md; the communication of larger runs is `mulan estimate`'s.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import time

import torch
import torch.distributed as dist
from gradient_caching import SMALL, SMALL_TEXT

from mulan_core.config import TrainConfig
from mulan_core.gradcache import average_over_workers
from mulan_core.model import MuLanModel
from mulan_core.tasks import Batch, ContrastiveTask
from mulan_core.training import build_optimizer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ways = {
        "1 worker, 1 thread": (1, 1, arguments.batch),
        "1 worker, 2 threads": (1, 2, arguments.batch),
        "2 workers, strong": (2, 1, arguments.batch),
        "2 workers, weak": (2, 1, 2 * arguments.batch),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):  # in turn, so that what else the machine does hits all of them
        for way, (workers, threads, batch) in ways.items():
            rates[way].append(_clips_per_s(workers, threads, batch, arguments.steps))
    one = statistics.median(rates["1 worker, 1 thread"])
    print(f"{os.cpu_count()} cores, global batch {arguments.batch} (weak: {2 * arguments.batch})")
    print("way                    clips/s   over 1 worker   efficiency")
    for way, (workers, threads, _) in ways.items():
        rate = statistics.median(rates[way])
        print(f"{way:20}   {rate:7.1f}   {rate / one:13.2f}   {rate / one / (workers * threads):10.2f}")


def _clips_per_s(workers: int, threads: int, batch: int, steps: int) -> float:
    """Of the median step, as the first worker sees it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    processes = [
        context.Process(target=_work, args=(rank, workers, threads, batch, steps, port, answer))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    rate = answer.get(timeout=600)
    for process in processes:
        process.join()
    return float(rate)


def _work(  # noqa: PLR0917 - a process takes its arguments by position
    rank: int, workers: int, threads: int, batch: int, steps: int, port: int, answer: multiprocessing.Queue
) -> None:
    torch.set_num_threads(threads)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if workers > 1:
        dist.init_process_group("gloo", rank=rank, world_size=workers)
    config = TrainConfig(batch_size=batch, num_workers=workers, audio_chunk=16, precision="fp32")
    model = MuLanModel.from_config(SMALL, text_config=SMALL_TEXT)
    task = ContrastiveTask(model, config)
    optimizer = build_optimizer(task, config)
    parameters = [p for p in model.parameters() if p.requires_grad]
    task.train()
    share, seconds = batch // workers, []
    torch.manual_seed(rank)
    inputs = {
        "waveforms": torch.randn(share, round(SMALL.frontend.window_s * SMALL.frontend.sample_rate_hz)) * 0.1,
        "spec_masks": torch.zeros(share, 4, dtype=torch.int64),
        "input_ids": torch.randint(1000, 2000, (share, 16)),
        "attention_mask": torch.ones(share, 16, dtype=torch.int64),
        "ids": torch.arange(2 * share).reshape(share, 2),
    }
    for step in range(3 + steps):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        task.forward_backward(Batch(step=step, inputs=inputs, sources=()), bf16=False)
        average_over_workers([p.grad for p in parameters if p.grad is not None])
        optimizer.step()
        if step >= 3:
            seconds.append(time.perf_counter() - started)
    if rank == 0:
        answer.put(batch / statistics.median(seconds))
    if workers > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()

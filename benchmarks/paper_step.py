"""The paper's training step on a GPU: what each setting brings, and how much of the card it uses.

    python benchmarks/paper_step.py --config configs/resnet50.yaml [--batch 6144] [--compile]
    python benchmarks/paper_step.py --config configs/ast.yaml --batch 5120

Rows, each the one before with one thing more, each a process of its own; ratios are against the first:

    fp32            gradient caching in the configuration's chunks, images in NCHW, texts padded to the longest
    bf16            towers under autocast
    channels_last   the audio tower's weights and images in NHWC
    by length       text chunks in order of length, each padded to its own longest
    compile         both encoders through torch.compile (only with --compile: it takes minutes)

The share is the step's arithmetic (counted by torch.utils.flop_counter on one chunk of each tower; caching's second
forward pass counts) over what one large bfloat16 product reaches on this card in this run. Needs torch,
transformers and numpy alone. On a CPU it runs with small towers, to see that it runs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import replace
from typing import Any

import torch
from gradient_caching import SMALL, SMALL_TEXT, batch_of
from memory import peak_bytes
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from mulan_core.config import Config, ModelConfig, TrainConfig, load_config
from mulan_core.model import MuLanModel
from mulan_core.tasks import Batch, ContrastiveTask
from mulan_core.training import build_optimizer

ROWS = ("fp32", "bf16", "channels_last", "by length", "compile")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=None, help="a YAML file; without it small towers and windows of 1 s")
    parser.add_argument("--batch", type=int, default=None, help="default: the configuration's")
    parser.add_argument("--chunk", type=int, default=None, help="windows encoded at once; default: the configuration's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    peak = _product_flops(arguments.device)
    print(f"{arguments.config or 'small towers'} on {name}; one bfloat16 product reaches {peak / 1e12:.1f} TFLOP/s")
    print("row              s a step   times fp32   clips/s   peak MiB   TFLOP   share of the product's")
    first = None
    for row in ROWS if arguments.compile else ROWS[:-1]:
        measured = _in_a_process(row, arguments)
        if measured is None:
            print(f"{row:16} failed or out of memory")
            continue
        seconds, mebibytes, flops, batch = measured
        first = first or seconds
        print(
            f"{row:16} {seconds:8.3f}   {first / seconds:10.2f}   {batch / seconds:7.0f}   {mebibytes:8.0f}   "
            f"{flops / 1e12:5.2f}   {flops / seconds / peak:.2f}",
            flush=True,
        )


def _product_flops(device: str, size: int = 8192) -> float:
    """Operations a second of a square bfloat16 product, the best of ten."""
    size = size if device == "cuda" else 512
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        left @ right
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _in_a_process(row: str, arguments: argparse.Namespace) -> tuple[float, float, float, int] | None:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_measure, args=(row, vars(arguments), answer))
    process.start()
    process.join()
    return None if answer.empty() else answer.get()


def _measure(row: str, options: dict[str, Any], answer: multiprocessing.Queue) -> None:
    """Median step after a warm-up step, its peak memory and its arithmetic."""
    on = ROWS[: ROWS.index(row) + 1]
    config = load_config(options["config"]) if options["config"] else Config(model=SMALL)
    device = options["device"]
    # No weights are fetched: what they are does not change what a step costs.
    numbers = replace(config.model, audio=replace(config.model.audio, pretrained=None))
    batch_size = options["batch"] or (config.train.batch_size if options["config"] else 64)
    chunk = options["chunk"] or config.train.audio_chunk or batch_size
    train = replace(
        config.train,
        num_workers=1,
        batch_size=batch_size,
        audio_chunk=min(chunk, batch_size),
        text_chunk=min(config.train.text_chunk or batch_size, batch_size),
        gradient_caching=True,
        compile="compile" in on,
    )
    model = MuLanModel.from_config(numbers, text_config=BertConfig() if options["config"] else SMALL_TEXT)
    step = _step(model, train, on, device)
    batch = batch_of(batch_size, numbers)
    if "by length" not in on:
        batch = _padded(batch, numbers)
    step(batch)
    seconds: list[float] = []
    peak = peak_bytes(lambda: seconds.extend(step(batch) for _ in range(options["steps"])), device)
    flops = _flops(model, train, batch)
    answer.put((sorted(seconds)[len(seconds) // 2], peak / 2**20, flops, batch_size))


def _step(model: MuLanModel, train: TrainConfig, on: tuple[str, ...], device: str) -> Any:
    task = ContrastiveTask(model, train)
    torch.nn.Module.to(model, device)
    if "channels_last" in on:
        torch.nn.Module.to(model, memory_format=torch.channels_last)
    task.train()
    optimizer = build_optimizer(task, train)

    def step(batch: Batch) -> float:
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        task.forward_backward(batch, bf16="bf16" in on)
        optimizer.step()
        _wait(device)
        return time.perf_counter() - started

    return step


def _padded(batch: Batch, numbers: ModelConfig) -> Batch:
    """The batch as a loop without an eye for lengths has it: every text counts as long as the longest."""
    return replace(batch, inputs=batch.inputs | {"attention_mask": torch.ones_like(batch.inputs["attention_mask"])})


def _flops(model: MuLanModel, train: TrainConfig, batch: Batch) -> float:
    """Arithmetic of one cached step: forward twice and backward, counted on one chunk of each tower."""
    audio, text = train.audio_chunk or train.batch_size, train.text_chunk or train.batch_size
    device = next(model.parameters()).device
    mask = batch.inputs["attention_mask"]
    order = torch.argsort(mask.sum(1), stable=True)
    total = 0.0
    with FlopCounterMode(display=False) as counter:
        model.get_audio_features(batch.inputs["waveforms"][:2].to(device)).sum().backward()
    total += counter.get_total_flops() / 2 * train.batch_size * (4 / 3 if audio < train.batch_size else 1)
    for rows in order.split(text):
        longest = int(mask[rows].sum(1).max())
        with FlopCounterMode(display=False) as counter:
            ids, ones = batch.inputs["input_ids"][rows[:2], :longest], mask[rows[:2], :longest]
            model.get_text_features(ids.to(device), ones.to(device)).sum().backward()
        total += counter.get_total_flops() / len(rows[:2]) * len(rows) * (4 / 3 if text < train.batch_size else 1)
    return total


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

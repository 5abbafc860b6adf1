"""Peak memory and time of one contrastive step with and without gradient caching, batch after batch.

    python benchmarks/gradient_caching.py [--batches 256 1024 6144] [--chunk 64] [--device cuda]
    python benchmarks/gradient_caching.py --config configs/resnet50.yaml --device cuda    # the paper's model

Every line is a process of its own: peak is the resident set (on a GPU the allocator's peak) above what stood
before the step, the batch included. The models start from random weights, so nothing is fetched. Claim in
docs/performance.md: with caching the memory does not grow with the batch.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import replace

import torch
from memory import peak_bytes
from transformers import BertConfig

from mulan_core.config import AudioTowerConfig, Config, FrontendConfig, ModelConfig, TextTowerConfig, load_config
from mulan_core.model import MuLanModel
from mulan_core.tasks import Batch, ContrastiveTask
from mulan_core.training import build_optimizer, uses_bf16

SMALL = ModelConfig(
    frontend=FrontendConfig(window_s=1.0),
    audio=AudioTowerConfig(layer_type="basic", embedding_size=16, hidden_sizes=(16, 32, 64, 128), depths=(1, 1, 1, 1)),
    text=TextTowerConfig(pretrained=None, max_tokens=32),
)
SMALL_TEXT = BertConfig(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096, 6144])
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--config", default=None, help="a YAML file; without it small towers and windows of 1 s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    print(f"{arguments.config or 'small towers'}, {arguments.device}, chunks of {arguments.chunk}")
    print("batch   caching   peak MiB   s a step   clips/s")
    peaks: dict[tuple[int, bool], float] = {}
    for batch in arguments.batches:
        for caching in (False, True):
            measured = _in_a_process(batch, arguments.chunk, caching, arguments.config, arguments.device)
            if measured is None:
                print(f"{batch:5}   {caching!s:7}   out of memory")
                continue
            peaks[batch, caching], seconds = measured
            print(f"{batch:5}   {caching!s:7}   {peaks[batch, caching]:8.0f}   {seconds:8.2f}   {batch / seconds:7.0f}")
    first, last = arguments.batches[0], arguments.batches[-1]
    for caching in (False, True):
        if (first, caching) in peaks and (last, caching) in peaks:
            growth = peaks[last, caching] / peaks[first, caching]
            print(f"caching {caching!s:5}: {last // first} times the batch takes {growth:.1f} times the memory")


def _in_a_process(batch: int, chunk: int, caching: bool, config: str | None, device: str) -> tuple[float, float] | None:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_measure, args=(batch, chunk, caching, config, device, answer))
    process.start()
    process.join()
    return None if answer.empty() else answer.get()


def _measure(  # noqa: PLR0917 - a process takes its arguments by position
    batch: int, chunk: int, caching: bool, path: str | None, device: str, answer: multiprocessing.Queue
) -> None:
    """One warm-up step of one chunk, then the step that is measured."""
    config = load_config(path) if path else Config(model=SMALL)
    # No weights are fetched: what they are does not change what a step costs.
    numbers = replace(config.model, audio=replace(config.model.audio, pretrained=None))
    model = MuLanModel.from_config(numbers, text_config=BertConfig() if path else SMALL_TEXT)
    train = replace(
        config.train,
        num_workers=1,
        batch_size=batch,
        audio_chunk=chunk,
        text_chunk=chunk,
        gradient_caching=caching,
    )
    task = ContrastiveTask(model, train)
    torch.nn.Module.to(model, device)
    torch.nn.Module.to(model, memory_format=torch.channels_last)
    task.train()
    optimizer = build_optimizer(task, train)
    bf16 = uses_bf16(train.precision, torch.device(device))

    def step(made: Batch) -> float:
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        task.forward_backward(made, bf16=bf16)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    step(batch_of(chunk, numbers))
    whole, seconds = batch_of(batch, numbers), []
    peak = peak_bytes(lambda: seconds.append(step(whole)), device)
    answer.put((peak / 2**20, seconds[0]))


def batch_of(size: int, numbers: ModelConfig) -> Batch:
    """Noise, and texts whose lengths are the paper's mix: mostly tags of a few tokens (PAPER: Table 2)."""
    generator = torch.Generator().manual_seed(0)
    samples = round(numbers.frontend.window_s * numbers.frontend.sample_rate_hz)
    lengths = torch.distributions.Geometric(0.15).sample((size,)).long().clamp(0, numbers.text.max_tokens - 3) + 3
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return Batch(
        step=0,
        inputs={
            "waveforms": torch.randn(size, samples, generator=generator).mul_(0.1),
            "spec_masks": torch.zeros(size, 4, dtype=torch.long),
            "input_ids": torch.randint(1000, 30_000, mask.shape, generator=generator) * mask,
            "attention_mask": mask,
            "ids": torch.arange(2 * size).view(size, 2),
        },
        sources=(),
    )


if __name__ == "__main__":
    main()

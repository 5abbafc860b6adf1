"""The demo's training step beside plainer ways to take it, and the real loop beside the bare step.

    mulan prepare                                  # the demo's shards, if they are not there yet
    python benchmarks/training_step.py [--prepared .mulan/data/prepared] [--rounds 30]
    python benchmarks/training_step.py --loop      # the loop on Ray Train, with MLflow, beside the bare step

Sides, on the same batches in memory, one thread, a worker's share of a batch:

    ours            towers as configured, the closed-form loss, texts remembered by the frozen encoder
    ours, new texts the same, but every text is met for the first time
    plain           float32, images in NCHW, every text encoded as it comes, loss by autograd on the full matrix
    ClapModel style plain, with the loss of transformers' ClapModel: two cross entropies over the full matrix

Ratios are medians over rounds in which every side takes one step. Claims in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contrastive_loss import full_matrix_loss
from torch import Tensor
from torch.nn import functional

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from mulan_core.config import Config, load_config
from mulan_core.data.batches import TrainingBatches
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor
from mulan_core.tasks import Batch, ContrastiveTask
from mulan_core.training import build_optimizer, uses_bf16

FIRST_STEP = 50
"""By then the cache of decoded clips is warm, and most texts have been met once."""
LOOP_STEPS, BLOCK = 250, 25


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--prepared", type=Path, default=Path(".mulan/data/prepared"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--loop", action="store_true", help="compare the loop with the bare step instead")
    parser.add_argument("--readers", type=int, default=0, help="train.num_loader_workers with --loop")
    parser.add_argument("--threads", type=int, help="torch's threads with --loop; one less than cores frees the reader")
    arguments = parser.parse_args()
    config = load_config(arguments.params)
    if arguments.loop:
        _compare_loop(
            replace(config, train=replace(config.train, num_loader_workers=arguments.readers)),
            arguments.prepared.resolve(),
            arguments.threads or os.cpu_count() or 1,
        )
        return
    torch.set_num_threads(1)
    made = _batches(config, arguments.prepared)
    batches = [made[step] for step in range(FIRST_STEP, FIRST_STEP + arguments.rounds)]
    steps = {
        "ours": _ours(config, forget=False),
        "ours, new texts": _ours(config, forget=True),
        "plain": _plain(config, full_matrix_loss),
        "ClapModel style": _plain(config, _clap_loss),
    }
    for batch in batches:
        steps["ours"](batch)  # meets every text
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for batch in batches:
        for name, step in steps.items():
            started = time.perf_counter()
            step(batch)
            seconds[name].append(time.perf_counter() - started)
    share = len(batches[0].inputs["waveforms"])
    print(f"{share} pairs a step, one thread, bf16 {uses_bf16(config.train.precision, torch.device('cpu'))}")
    ours = np.array(seconds["ours"])
    for name, values in seconds.items():
        times = np.median(np.array(values) / ours)
        print(f"{name:16} median {np.median(values) * 1000:7.1f} ms   {times:.2f} times ours")


def _batches(config: Config, prepared: Path) -> TrainingBatches:
    processor = MuLanProcessor.from_config(config.model)
    return TrainingBatches.of_pairs(
        prepared, config.train, lambda texts: processor(text=texts), frontend=config.model.frontend
    )


def _ours(config: Config, *, forget: bool) -> Callable[[Batch], None]:
    model = MuLanModel.from_config(config.model)
    task = ContrastiveTask(model, config.train)
    torch.nn.Module.to(model, memory_format=torch.channels_last)
    task.train()
    optimizer = build_optimizer(task, config.train)
    bf16 = uses_bf16(config.train.precision, torch.device("cpu"))

    def step(batch: Batch) -> None:
        if forget:
            task.train()  # forgets the texts
        optimizer.zero_grad(set_to_none=True)
        task.forward_backward(batch, bf16=bf16)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_grad_norm)
        optimizer.step()
        task.after_step()

    return step


def _plain(config: Config, loss_of: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Batch], None]:
    model = MuLanModel.from_config(config.model)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.train.audio_lr)

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        inputs = batch.inputs
        audio_BD = model.get_audio_features(inputs["waveforms"], spec_masks=inputs["spec_masks"])
        tower = model.text_tower
        hidden_BLH = tower.encoder(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
        mask_BL1 = inputs["attention_mask"].unsqueeze(-1)
        pooled_BH = (hidden_BLH * mask_BL1).sum(1) / mask_BL1.sum(1)
        text_BD = functional.normalize(tower.projection(pooled_BH), dim=-1)
        loss_of(audio_BD, text_BD, model.tau).backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.train.clip_grad_norm)
        optimizer.step()

    return step


def _clap_loss(audio_BD: Tensor, text_BD: Tensor, tau: Tensor) -> Tensor:
    logits_BB = text_BD @ audio_BD.T / tau
    own_B = torch.arange(len(logits_BB))
    return (functional.cross_entropy(logits_BB, own_B) + functional.cross_entropy(logits_BB.T, own_B)) / 2


def _compare_loop(config: Config, prepared: Path, threads: int) -> None:
    """Run the real loop on Ray Train, one worker, stopping it every BLOCK steps to take the same steps bare."""
    import mlflow
    import ray

    import flows.pipeline.train
    from flows.runtime.settings import read_settings

    read_settings()
    train_config = replace(config.train, num_workers=1, steps=LOOP_STEPS, checkpoint_every=LOOP_STEPS, log_every=BLOCK)
    config = replace(config, train=train_config)
    real_worker = flows.pipeline.train.train_worker
    with tempfile.TemporaryDirectory() as folder:
        timings = Path(folder) / "timings.json"

        def worker(settings: dict[str, Any]) -> None:
            beside = _Beside(config, threads)
            from_step = TrainingBatches.from_step
            TrainingBatches.from_step = lambda batches, first: beside.interleave(from_step(batches, first))
            real_worker(settings)
            timings.write_text(json.dumps([beside.loop, beside.waited, beside.bare]))

        flows.pipeline.train.train_worker = worker
        ray.init(address="local", num_cpus=4, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        uri = f"sqlite:///{folder}/mlflow.db"
        trained = flows.pipeline.train.fit_model(
            config, prepared, data_hash="benchmark", mlflow_uri=uri, home=Path(folder), checkpoints=f"{folder}/ray"
        )
        points = len(mlflow.MlflowClient(uri).get_metric_history(trained.run_id, "loss"))
        ray.shutdown()
        loop, waited, bare = (np.array(seconds)[FIRST_STEP // BLOCK :] for seconds in json.loads(timings.read_text()))
    clips = BLOCK * config.train.batch_size
    print(f"{threads} torch threads, {config.train.num_loader_workers} readers, {points} points in MLflow")
    print(f"loop on Ray Train: median {np.median(clips / loop):.0f} clips/s")
    print(f"bare step:         median {np.median(clips / bare):.0f} clips/s")
    print(f"loop over bare:    median {np.median(bare / loop):.2f} of {len(bare)} blocks", end="; ")
    print(f"the loop waits for its reader {waited.sum() / loop.sum():.1%} of its time")


class _Beside:
    """Takes every block of the loop's steps again, bare: a second model that has met exactly the same texts."""

    def __init__(self, config: Config, threads: int) -> None:
        self._threads = threads
        self._step = _ours(config, forget=False)
        self.loop: list[float] = []
        self.waited: list[float] = []
        self.bare: list[float] = []

    def interleave(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches; seconds of each block are noted, of the loop and of the bare step."""
        torch.set_num_threads(self._threads)
        while True:
            block, waited, started = [], 0.0, time.perf_counter()
            for _ in range(BLOCK):
                asked = time.perf_counter()
                batch = next(batches, None)
                waited += time.perf_counter() - asked
                if batch is None:
                    return
                block.append(batch)
                yield batch
            self.loop.append(time.perf_counter() - started)
            self.waited.append(waited)
            started = time.perf_counter()
            for batch in block:
                self._step(batch)
            self.bare.append(time.perf_counter() - started)


if __name__ == "__main__":
    main()

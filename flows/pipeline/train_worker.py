"""What runs in each of Ray Train's workers: build the task, restore, fit, report to MLflow and Ray.

Workers import this file and nothing of Prefect.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import ray.train
import ray.train.torch
import torch

from flows.pipeline.checkpoint_recovery import STATE_FILE, read_state
from flows.pipeline.gauges import TrainingGauges
from flows.runtime.storage import MODEL_FOLDER
from mulan_core.classifier import AudioClassifier
from mulan_core.config import Config, ModelConfig, TrainConfig, from_mapping
from mulan_core.data.batches import TrainingBatches, validation_batch
from mulan_core.errors import UserError
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor
from mulan_core.tasks import Batch, ClassifierTask, ContrastiveTask, Task
from mulan_core.training import fit, uses_bf16

VALID_LOSS = "valid/loss"
"""The metric of a checkpoint by which the best is chosen."""


@dataclass(frozen=True)
class Built:
    """What a worker trains."""

    task: Task
    batches: TrainingBatches
    save_model: Callable[[Path], None]
    """Writes the model's folder."""
    valid_loss: Callable[[], float] | None = None
    """The loss on the validation split; None where there is none."""


def train_worker(settings: dict[str, Any]) -> None:
    """Run in each Ray Train worker: build, restore, fit, report."""
    config = from_mapping(Config, settings["config"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    train_config = replace(config.train, num_workers=world)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    build = {"contrastive": _contrastive, "tagging": _classifier}[settings["task"]]
    built = build(config.model, train_config, Path(settings["prepared"]), rank)
    client = mlflow.MlflowClient(settings["mlflow_uri"]) if rank == 0 else None
    gauges = TrainingGauges(context.get_experiment_name())
    # Steps between the last checkpoint and a kill are done again, to the same numbers; MLflow has their points already.
    logged = _last_point(client, settings["run_id"]) if client else 0
    metrics: dict[str, float] = {}

    def report(step: int, values: dict[str, float]) -> None:
        metrics.update(values)
        if client:
            if step > logged:
                _log_point(client, settings["run_id"], step, values)
            gauges.set(step, values)

    def save(step: int, state: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if rank == 0:
                if built.valid_loss:
                    report(step, {VALID_LOSS: built.valid_loss()})
                torch.save(state, Path(folder) / STATE_FILE)
                built.save_model(Path(folder) / MODEL_FOLDER)
                checkpoint = ray.train.Checkpoint.from_directory(folder)
            # Every worker reports: it is a barrier, so no worker runs ahead of a checkpoint.
            ray.train.report({"step": step, **metrics}, checkpoint=checkpoint)

    fit(
        built.task,
        built.batches.from_step,
        config=train_config,
        report=report,
        save=save,
        state=_restore(settings["salvaged"]),
        device=ray.train.torch.get_device(),
    )


def _contrastive(model_config: ModelConfig, config: TrainConfig, prepared: Path, rank: int) -> Built:
    model = MuLanModel.from_config(model_config, seed=config.seed)
    processor = MuLanProcessor.from_config(model_config)

    def save_model(folder: Path) -> None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)

    def tokenize(texts: list[str]) -> Mapping[str, torch.Tensor]:
        return processor(text=texts)

    frontend, task = model_config.frontend, ContrastiveTask(model, config)
    batches = TrainingBatches.of_pairs(prepared, config, tokenize, frontend=frontend, rank=rank)
    valid = validation_batch(prepared, config, tokenize, frontend=frontend) if rank == 0 else None

    if valid is None and rank == 0 and config.checkpoint_selection == "best":
        raise UserError(
            "train.checkpoint_selection is best, but fewer than two validation tracks have a text; take last"
        )

    def measure(batch: Batch) -> float:
        return task.validation_loss(batch, bf16=uses_bf16(config.precision, task.device))

    return Built(task, batches, save_model, partial(measure, valid) if valid else None)


def _classifier(model_config: ModelConfig, config: TrainConfig, prepared: Path, rank: int) -> Built:
    batches, labels = TrainingBatches.of_labels(prepared, config, frontend=model_config.frontend, rank=rank)
    model = AudioClassifier.from_config(model_config, labels, seed=config.seed)
    return Built(ClassifierTask(model, config), batches, model.save_pretrained)


def _restore(salvaged: str | None) -> dict[str, Any] | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return read_state(salvaged) if salvaged else None
    with checkpoint.as_directory() as folder:
        return read_state(folder)


def _log_point(client: mlflow.MlflowClient, run_id: str, step: int, values: dict[str, float]) -> None:
    """Write one metric point; a tracking server that is away must not stop training."""
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    with suppress(mlflow.exceptions.MlflowException):
        client.log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value in values.items()])


def _last_point(client: mlflow.MlflowClient, run_id: str) -> int:
    """The last step of a run that MLflow has a loss of; 0 before the first, or while it is away."""
    with suppress(mlflow.exceptions.MlflowException):
        return max((point.step for point in client.get_metric_history(run_id, "loss")), default=0)
    return 0

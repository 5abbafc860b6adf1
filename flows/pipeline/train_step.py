"""Training on Ray Train: workers run ``mulan_core.training.fit`` and report to MLflow and Ray.

A run is named by what goes into it (data, model, training numbers). Started again after a kill it
goes on from its last checkpoint, in the same MLflow run; started again after its end it returns at
once what it made.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import mlflow
import ray.train
import ray.train.torch
import torch
from mlflow.entities import Run

from flows.pipeline.checkpoint_recovery import STATE_FILE, read_state, salvage
from flows.pipeline.gauges import TrainingGauges
from flows.runtime.storage import MODEL_FOLDER, address_of, fetch_model, open_storage
from flows.runtime.tracking import EXPERIMENT, find_run, log_config, tracking
from mulan_core.classifier import AudioClassifier
from mulan_core.config import Config, ModelConfig, TrainConfig, from_mapping, to_mapping
from mulan_core.data.batches import TrainingBatches, validation_batch
from mulan_core.data.shards import shard_paths
from mulan_core.errors import UserError
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor
from mulan_core.tasks import Batch, ClassifierTask, ContrastiveTask, Task
from mulan_core.training import fit, uses_bf16

OPERATION = {"min_workers", "max_failures"}
"""Numbers of a run that change how it survives, and nothing of what comes out."""

TaskName = Literal["contrastive", "tagging"]
VALID_LOSS = "valid/loss"


@dataclass(frozen=True)
class Built:
    """What a worker trains."""

    task: Task
    batches: TrainingBatches
    save_model: Callable[[Path], None]
    """Writes the model's folder."""
    valid_loss: Callable[[], float] | None = None
    """The loss on the validation split; None where there is none."""


@dataclass(frozen=True)
class Trained:
    """A finished training run."""

    run_id: str
    model: Path
    steps: int


def run_key(config: Config, data_hash: str, task: TaskName = "contrastive") -> str:
    """Name a training run by everything that decides its outcome."""
    numbers = {name: value for name, value in to_mapping(config.train).items() if name not in OPERATION}
    parts = {"task": task, "model": to_mapping(config.model), "train": numbers, "data": data_hash}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def train(
    config: Config,
    prepared: Path,
    *,
    data_hash: str,
    mlflow_uri: str,
    home: Path,
    checkpoints: str,
    task: TaskName = "contrastive",
    name: str = "train",
    tags: dict[str, str] | None = None,
) -> Trained:
    """Train a model, or go on with a run that was cut off, or return one that is done.

    Args:
        config: the numbers.
        prepared: the prepared folder; every worker must see it.
        data_hash: DVC's hash of that folder.
        mlflow_uri: where metrics go.
        home: folder of local state; a model whose checkpoint lies on a server is copied there.
        checkpoints: folder or URL (s3://bucket/path, ...) where checkpoints are kept; every worker must reach it.
        task: ``contrastive``, or ``tagging``: the audio tower alone as a classifier of the tracks' labels.
        name: first part of the run's name in MLflow.
        tags: more tags for the MLflow run (git commit, flow run).

    Raises:
        UserError: what the workers said, if training failed; if checkpoints cannot be written, or those of a run that
            was cut off cannot be read.
    """
    shard_paths(prepared, "train")  # workers that find nothing would be started three times
    key = run_key(config, data_hash, task)
    with tracking(mlflow_uri):
        known = find_run({"mulan.train_key": key, "mulan.kind": name})
        if known and (model := finished(known, home)):
            return Trained(run_id=known.info.run_id, model=model, steps=config.train.steps)
        storage = open_storage(checkpoints, variable="MULAN_CHECKPOINTS")
        salvaged = salvage(f"{checkpoints}/{name}-{key}")
        keep = config.train.checkpoint_selection if task == "contrastive" else "last"  # a classifier is not validated
        least, most = config.train.min_workers, config.train.num_workers
        num_workers: Any = (least, most) if least else most
        which = {"run_id": known.info.run_id} if known else {"run_name": f"{name}-{key}"}
        with mlflow.start_run(**which) as run:
            run_id = run.info.run_id
            mlflow.set_tags({"mulan.train_key": key, "mulan.kind": name, "mulan.data_hash": data_hash, **(tags or {})})
            log_config(config, run)
            trainer = _Trainer(
                train_worker,
                train_loop_config={
                    "task": task,
                    "config": to_mapping(config),
                    "prepared": str(prepared),
                    "mlflow_uri": mlflow_uri,
                    "run_id": run_id,
                    "salvaged": salvaged,
                },
                scaling_config=ray.train.ScalingConfig(
                    num_workers=num_workers,
                    use_gpu=config.train.use_gpu,
                    resources_per_worker={"CPU": 1 + config.train.num_loader_workers}
                    | ({"GPU": 1} if config.train.use_gpu else {}),
                ),
                run_config=ray.train.RunConfig(
                    name=f"{name}-{key}",
                    **storage.run_options(),
                    failure_config=ray.train.FailureConfig(max_failures=config.train.max_failures),
                    checkpoint_config=ray.train.CheckpointConfig(
                        num_to_keep=2,
                        checkpoint_score_attribute=VALID_LOSS if keep == "best" else None,
                        checkpoint_score_order="min",
                    ),
                ),
            )
            mlflow.set_tag("mulan.checkpoint", address_of(checkpoints, _fit(trainer, keep=keep).path))
        model = finished(mlflow.get_run(run_id), home)
    if model is None:
        raise UserError(f"training ended, but its last checkpoint is not in {checkpoints} any more")
    return Trained(run_id=run_id, model=model, steps=config.train.steps)


def finished(run: Run, home: Path) -> Path | None:
    """The model of a run that came to its end, on this machine; None where it was cut off or its files are gone."""
    checkpoint = run.data.tags.get("mulan.checkpoint")
    return fetch_model(checkpoint, home / "models" / run.info.run_id) if checkpoint else None


class _Trainer(ray.train.torch.TorchTrainer):
    """Without Ray's own handler of Ctrl-C: it stays when training is over, and swallows every later one."""

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def _fit(trainer: ray.train.torch.TorchTrainer, *, keep: str) -> ray.train.Checkpoint:
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise UserError(f"training failed: {_cause(error)}") from error
    if result.checkpoint is None:
        raise UserError("training ended without a checkpoint; see Ray's messages above")
    if keep == "best":
        kept: list[tuple[ray.train.Checkpoint, dict[str, Any]]] = result.best_checkpoints or []
        return min(kept, key=lambda one: one[1][VALID_LOSS])[0]
    return result.checkpoint


def _cause(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", None) or {}
    first: BaseException = next(iter(failures.values()), error)
    while getattr(first, "cause", None) or first.__cause__:
        first = getattr(first, "cause", None) or first.__cause__  # type: ignore[assignment]
    return str(first).strip().splitlines()[-1] if str(first).strip() else type(first).__name__


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
                log_point(client, settings["run_id"], step, values)
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


def log_point(client: mlflow.MlflowClient, run_id: str, step: int, values: dict[str, float]) -> None:
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


def latest_point(mlflow_uri: str, key: str) -> tuple[int, dict[str, float]] | None:
    """Read the newest step and metrics of a run that is training; None before its first point."""
    with suppress(mlflow.exceptions.MlflowException):
        client = mlflow.MlflowClient(mlflow_uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return None
        runs = client.search_runs([experiment.experiment_id], f"tags.`mulan.train_key` = '{key}'", max_results=1)
        if runs and "loss" in runs[0].data.metrics:
            history = client.get_metric_history(runs[0].info.run_id, "loss")
            return max(point.step for point in history), runs[0].data.metrics
    return None

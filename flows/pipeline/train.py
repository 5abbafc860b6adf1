"""The stage ``train``: one training run on Ray Train, live in MLflow.

A run is named by what goes into it (data, model, training numbers). Started again after a kill it
goes on from its last checkpoint, in the same MLflow run; started again after its end it returns at
once what it made.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlflow
from mlflow.entities import Run
from prefect import flow, runtime

from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.progress import bar, polled
from flows.runtime.project import code_version
from flows.runtime.session import Session, open_session
from flows.runtime.storage import address_of, fetch_model, open_storage
from flows.runtime.tracking import EXPERIMENT, find_run, lineage_tags, log_config, tracking
from mulan_core.config import Config, to_mapping
from mulan_core.data.shards import shard_paths
from mulan_core.errors import UserError
from mulan_core.text.statistics import TABLE

OPERATION = {"min_workers", "max_failures"}
"""Numbers of a run that change how it survives, and nothing of what comes out."""

TaskName = Literal["contrastive", "tagging"]


@dataclass(frozen=True)
class Trained:
    """A finished training run."""

    run_id: str
    model: Path
    steps: int


@flow(name="train", description="Contrastive training on Ray Train; goes on from its last checkpoint.", **FAILURE_HOOKS)
def train(
    manifest: str | None = None,
    playlists: str | None = None,
    params: str | None = None,
    task: TaskName = "contrastive",
) -> dict[str, Any]:
    """Train on the prepared data of a workspace; see ``prepare`` for the first arguments.

    Args:
        task: ``contrastive``; or ``tagging``, the audio tower alone as a classifier of the tracks' labels: a baseline
            that ``evaluate`` measures, and a warm start that ``model.audio.pretrained`` takes.
    """
    with open_session(manifest, playlists, params, ray_client=True) as session, session.stage("train"):
        config, uri = session.workspace.config, session.settings.mlflow_uri
        least = config.train.min_workers or config.train.num_workers
        session.check_gpus("train.use_gpu", least * config.train.use_gpu)
        data_hash = session.workspace.data_hash
        key = run_key(config, data_hash, task)
        with bar("train", total=config.train.steps) as update:

            def poll() -> None:
                point = latest_point(uri, key)
                if point:
                    step, metrics = point
                    speed = f"{metrics['clips_per_s']:.0f} clips/s"
                    tau = f"  tau {metrics['tau']:.3f}" if "tau" in metrics else ""
                    update(step, note=f"loss {metrics['loss']:.2f}{tau}  {speed}")

            with polled(poll):
                trained = fit_model(
                    config,
                    session.workspace.prepared,
                    data_hash=data_hash,
                    mlflow_uri=uri,
                    home=session.settings.home,
                    checkpoints=session.settings.checkpoints,
                    task=task,
                    name="train" if task == "contrastive" else task,
                    tags=lineage_tags(code_version(), runtime.flow_run.id),
                )
        table = session.workspace.texts / TABLE
        if table.exists():
            with tracking(uri) as client:
                client.log_text(trained.run_id, table.read_text(encoding="utf-8"), "texts.md")
        return {"run_id": trained.run_id, "model": str(trained.model), "steps": trained.steps}


def run_key(config: Config, data_hash: str, task: TaskName = "contrastive") -> str:
    """Name a training run by everything that decides its outcome."""
    numbers = {name: value for name, value in to_mapping(config.train).items() if name not in OPERATION}
    parts = {"task": task, "model": to_mapping(config.model), "train": numbers, "data": data_hash}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def fit_model(
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
        earlier_run = find_run({"mulan.train_key": key, "mulan.kind": name})
        if earlier_run and (model := finished(earlier_run, home)):
            return Trained(run_id=earlier_run.info.run_id, model=model, steps=config.train.steps)
        from flows.pipeline.checkpoint_recovery import salvage  # these import torch
        from flows.pipeline.trainer import train_on_ray

        storage = open_storage(checkpoints, variable="MULAN_CHECKPOINTS")
        salvaged = salvage(f"{checkpoints}/{name}-{key}")
        keep = config.train.checkpoint_selection if task == "contrastive" else "last"  # a classifier is not validated
        which = {"run_id": earlier_run.info.run_id} if earlier_run else {"run_name": f"{name}-{key}"}
        with mlflow.start_run(**which) as run:
            run_id = run.info.run_id
            mlflow.set_tags({"mulan.train_key": key, "mulan.kind": name, "mulan.data_hash": data_hash, **(tags or {})})
            log_config(config, run)
            worker_settings = {
                "task": task,
                "config": to_mapping(config),
                "prepared": str(prepared),
                "mlflow_uri": mlflow_uri,
                "run_id": run_id,
                "salvaged": salvaged,
            }
            path = train_on_ray(worker_settings, config.train, f"{name}-{key}", storage, keep=keep)
            mlflow.set_tag("mulan.checkpoint", address_of(checkpoints, path))
        model = finished(mlflow.get_run(run_id), home)
    if model is None:
        raise UserError(f"training ended, but its last checkpoint is not in {checkpoints} any more")
    return Trained(run_id=run_id, model=model, steps=config.train.steps)


def finished(run: Run, home: Path) -> Path | None:
    """The model of a run that came to its end, on this machine; None where it was cut off or its files are gone."""
    checkpoint = run.data.tags.get("mulan.checkpoint")
    return fetch_model(checkpoint, home / "models" / run.info.run_id) if checkpoint else None


def trained_run(session: Session) -> Trained:
    """The finished training run of the session's numbers and data.

    Raises:
        UserError: if there is none.
    """
    config, uri = session.workspace.config, session.settings.mlflow_uri
    with tracking(uri):
        run = find_run({"mulan.train_key": run_key(config, session.workspace.data_hash), "mulan.kind": "train"})
    model = finished(run, session.settings.home) if run else None
    if run is None or model is None:
        raise UserError("no finished training run for these numbers and this data; run `mulan train` first")
    return Trained(run_id=run.info.run_id, model=model, steps=config.train.steps)


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

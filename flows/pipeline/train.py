"""The flow ``train``: one training run on Ray Train, live in MLflow."""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime

from flows.pipeline import train_step as steps
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.progress import bar, polled
from flows.runtime.project import code_version
from flows.runtime.session import open_session
from flows.runtime.tracking import lineage_tags, tracking
from mulan_core.text.statistics import TABLE


@flow(name="train", description="Contrastive training on Ray Train; goes on from its last checkpoint.", **FAILURE_HOOKS)
def train(
    manifest: str | None = None,
    playlists: str | None = None,
    params: str | None = None,
    task: steps.TaskName = "contrastive",
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
        key = steps.run_key(config, data_hash, task)
        with bar("train", total=config.train.steps) as update:

            def poll() -> None:
                point = steps.latest_point(uri, key)
                if point:
                    step, metrics = point
                    speed = f"{metrics['clips_per_s']:.0f} clips/s"
                    tau = f"  tau {metrics['tau']:.3f}" if "tau" in metrics else ""
                    update(step, note=f"loss {metrics['loss']:.2f}{tau}  {speed}")

            with polled(poll):
                trained = steps.train(
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

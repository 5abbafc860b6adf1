"""One trial of a study, as Ray Tune runs it: train, measure, report.

An ablation's trial is measured on the test split, and its report logged like that of any run. A search must not see the
test split: its trials are measured on the validation split, as ``valid/...``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ray.tune
from numpy.typing import NDArray

from flows.pipeline.embed import TrackEmbedder, embed_prepared, plan_work
from flows.pipeline.evaluate_step import evaluate_model
from flows.pipeline.sets import own_set
from flows.pipeline.subjects import Subject
from flows.pipeline.train_step import Trained, train
from flows.runtime.stack import quiet_ray_data
from flows.runtime.tracking import tracking
from flows.runtime.workspace import Workspace
from mulan_core.config import Config, from_mapping
from mulan_core.data.shards import shard_paths
from mulan_core.errors import UserError
from mulan_core.evaluation.encoders import open_encoder
from mulan_core.evaluation.sets.playlists import OWN
from mulan_core.evaluation.sets.prepared import read_content
from mulan_core.evaluation.suite import Embed, evaluate

MEASURED = "mulan.measured"
"""Tag of a trial's run once it is measured: the split."""


def run_trial(space: dict[str, Any]) -> None:
    """Train and measure the trial ``space["trial"]`` of a study, and report it to Tune.

    The report: run_id, metrics and intervals as in an evaluation's.
    """
    quiet_ray_data()  # this is another process than the flow's
    trial = space["trials"][space["trial"]]
    config, workspace = from_mapping(Config, trial["config"]), Workspace(Path(space["workspace"]))
    uri, home, kind = space["mlflow_uri"], Path(space["home"]), space["kind"]
    trained = train(
        config,
        workspace.prepared,
        data_hash=workspace.data_hash,
        mlflow_uri=uri,
        home=home,
        checkpoints=space["checkpoints"],
        name=kind,
        tags={"mlflow.parentRunId": space["parent_run_id"], "mlflow.runName": space["trial"], **trial["tags"]},
    )
    if kind == "ablate":
        report, values = _on_test(config, workspace, trained, home=home, mlflow_uri=uri), {}
    else:
        report = on_valid(config, workspace, trained.model)
        values = {f"valid/{name}": value for name, value in report["metrics"].items()}
    with tracking(uri) as client:
        for name, value in values.items():
            client.log_metric(trained.run_id, name, value)
        client.set_tag(trained.run_id, MEASURED, "valid" if values else "test")
    ray.tune.report({"run_id": trained.run_id, "metrics": report["metrics"], "intervals": report["intervals"]})


def _on_test(config: Config, workspace: Workspace, trained: Trained, *, home: Path, mlflow_uri: str) -> dict[str, Any]:
    vectors = embed_prepared(
        trained.model,
        workspace.prepared,
        cache=home / "embeddings",
        batch_size=config.index.batch_size,
        num_actors=config.index.num_actors,
        use_gpu=config.index.use_gpu,
    )
    subject = Subject(name="a trial", path=str(trained.model), run_id=trained.run_id, data_hash=workspace.data_hash)
    return evaluate_model(subject, own_set(workspace), vectors, config.evaluate, mlflow_uri=mlflow_uri)


def on_valid(config: Config, workspace: Workspace, model: Path) -> dict[str, Any]:
    """Measure a model on the workspace's validation split, in this process.

    Returns:
        A report as of the suite; without the linear probe, whose regularisation that split chooses.
    """
    embedder = TrackEmbedder(str(model), None, config.index.batch_size, 1)
    work = plan_work(shard_paths(workspace.prepared, "valid"))
    clips = list(embedder({name: [item[name] for item in work] for name in ("shard", "group", "places")}))
    ids = [track_id for clip in clips for track_id in clip["track_id"].tolist()]
    vectors_ND = np.concatenate([clip["vector"] for clip in clips])
    return _measure_valid(workspace, ids, vectors_ND, open_encoder(model).embed_texts)


def check_metric(workspace: Workspace, metric: str) -> None:
    """Refuse a metric that the validation split does not have, before anything trains: random vectors tell.

    Raises:
        UserError: if it has none of that name, or there is no validation split.
    """
    rng = np.random.default_rng(0)
    ids = list(read_content(OWN, workspace.prepared, split="valid").tracks["test"])
    report = _measure_valid(
        workspace, ids, rng.normal(size=(len(ids), 2)), lambda texts: rng.normal(size=(len(texts), 2))
    )
    if metric not in report["metrics"]:
        known = ", ".join(report["metrics"])
        raise UserError(f"the validation split has no {metric} for tune.metric; it has {known}")


def _measure_valid(
    workspace: Workspace, ids: list[str], vectors_ND: NDArray[np.floating], embed_texts: Embed
) -> dict[str, Any]:
    content = read_content(OWN, workspace.prepared, split="valid")
    suites = [suite for suite in OWN.suites if suite != "probe"]
    config = workspace.config.evaluate
    return evaluate(content, {"test": (ids, vectors_ND)}, embed_texts=embed_texts, suites=suites, config=config)[0]

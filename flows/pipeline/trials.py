"""What an ablation and a search for hyper-parameters share: trials on Ray Tune, each trained by Ray Train and measured.

A study is one run in MLflow and its trials are the children. Tune's state lies beside the checkpoints: a study that was
killed and is started again with the same arguments goes on with the trials that are missing (``Tuner.restore``). Tune
may not have written down the last moments; so a trial is a training run like any other (``train.py``), named by what
goes into it: it goes on from its last checkpoint; one that is done is not trained again, even in a new study.

An ablation's trial is measured on the test split, and its report logged like that of any run. A search must not see the
test split: its trials are measured on the validation split, as ``valid/...``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import mlflow
import numpy as np
import ray.tune
from numpy.typing import NDArray

from flows.pipeline.embed import TrackEmbedder, embed_prepared, plan_work
from flows.pipeline.evaluate import evaluate_model
from flows.pipeline.sets import own_set
from flows.pipeline.subjects import Subject
from flows.pipeline.train import Trained, fit_model, latest_point, run_key
from flows.runtime.progress import bar, console, polled
from flows.runtime.session import Session
from flows.runtime.stack import need_ray, quiet_ray_data
from flows.runtime.storage import open_storage
from flows.runtime.tracking import EXPERIMENT, find_run, log_config, tracking
from flows.runtime.workspace import Workspace
from mulan_core.config import Config, from_mapping, to_mapping
from mulan_core.data.shards import shard_paths
from mulan_core.errors import UserError
from mulan_core.evaluation import suite
from mulan_core.evaluation.encoders import open_encoder
from mulan_core.evaluation.sets.playlists import OWN
from mulan_core.evaluation.sets.prepared import read_content

Kind = Literal["ablate", "tune"]

MEASURED = "mulan.measured"
"""Tag of a trial's run once it is measured: the split."""


@dataclass(frozen=True)
class Trial:
    """One training run of a study."""

    name: str
    """As people read it; no two trials of a study share it."""
    config: Config
    tags: Mapping[str, str] = field(default_factory=dict)
    """For its run in MLflow."""


@dataclass(frozen=True)
class StudyRun:
    """Where a study's trials run and are written down; every worker of Ray must see the folders."""

    kind: Kind
    workspace: Workspace
    home: Path
    """The folder of local state."""
    checkpoints: str
    """Folder or URL of checkpoints, and of what Tune remembers of the study."""
    mlflow_uri: str
    run_id: str
    """The study's own run, parent of the trials'."""
    max_concurrent: int = 1
    """Trials that train at the same time."""

    @classmethod
    def of(cls, session: Session, kind: Kind, run_id: str, *, max_concurrent: int) -> StudyRun:
        """The study of a session's workspace, kept where the session keeps all else."""
        settings = session.settings
        places = (settings.home, settings.checkpoints, settings.mlflow_uri)
        return cls(kind, session.workspace, *places, run_id, max_concurrent)


@contextmanager
def study_run(kind: Kind, config: Config, data_hash: str, *, mlflow_uri: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Open the run that this kind of study has for these numbers and this data, or a new one; yields its id.

    More rows, seeds or trials of the same numbers go on in it.
    """
    names = {"mulan.study": kind, "mulan.study_key": run_key(config, data_hash)}
    with tracking(mlflow_uri):
        earlier_run = find_run(names)
        which = (
            {"run_id": earlier_run.info.run_id} if earlier_run else {"run_name": f"{kind}-{names['mulan.study_key']}"}
        )
        with mlflow.start_run(**which) as run:
            mlflow.set_tags({**names, "mulan.data_hash": data_hash, **tags})
            log_config(config, run)
            yield str(run.info.run_id)


def run_trials(
    trials: Sequence[Trial],
    study: StudyRun,
    *,
    shown: Callable[[Mapping[str, float]], str],
) -> list[dict[str, Any]]:
    """Train and measure every trial that is not done yet.

    Args:
        trials: in the order in which they start.
        study: where.
        shown: the metrics of a finished trial's run -> what is printed behind its name.

    Returns:
        For each trial, in their order, what ``run_trial`` reported last.

    Raises:
        UserError: if a trial fails; the others are done by then, and are not trained again.
    """
    need_ray()
    space = {
        "trial": ray.tune.grid_search([trial.name for trial in trials]),
        "trials": {trial.name: {"config": to_mapping(trial.config), "tags": dict(trial.tags)} for trial in trials},
        "kind": study.kind,
        "workspace": str(study.workspace.folder),
        "home": str(study.home),
        "checkpoints": study.checkpoints,
        "mlflow_uri": study.mlflow_uri,
        "parent_run_id": study.run_id,
    }
    storage = open_storage(study.checkpoints, variable="MULAN_CHECKPOINTS")
    key = hashlib.sha256(json.dumps([space, study.workspace.data_hash], sort_keys=True).encode()).hexdigest()[:12]
    name = f"study-{study.kind}-{key}"
    trainable = ray.tune.with_resources(run_trial, {"CPU": 1})
    path, on = f"{storage.path}/{name}", storage.filesystem
    if ray.tune.Tuner.can_restore(path, storage_filesystem=on):
        tuner = ray.tune.Tuner.restore(path, trainable, restart_errored=True, storage_filesystem=on)
    else:
        tuner = ray.tune.Tuner(
            trainable,
            param_space=space,
            # One trial at a time where all share the cores: two at once would not finish sooner.
            tune_config=ray.tune.TuneConfig(
                max_concurrent_trials=study.max_concurrent,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=ray.tune.RunConfig(name=name, verbose=0, **storage.run_options()),
        )
    with _progress(trials, study, shown):
        results = tuner.fit()
    ended = [results[number] for number in range(len(results))]
    reported = {result.config["trial"]: result for result in ended if result.config}
    for trial in trials:
        if (error := reported[trial.name].error) is not None:
            last = str(error).strip().splitlines()[-1]
            raise UserError(f"trial {trial.name!r} failed: {last}; the others stay, start again to go on")
    return [dict(reported[trial.name].metrics or {}) for trial in trials]


@contextmanager
def _progress(trials: Sequence[Trial], study: StudyRun, shown: Callable[[Mapping[str, float]], str]) -> Iterator[None]:
    """One bar over the steps of all trials, and a line for each that is done."""
    data_hash = study.workspace.data_hash
    pending = {trial.name: (run_key(trial.config, data_hash), trial.config.train.steps) for trial in trials}
    total, before = sum(steps for _, steps in pending.values()), True
    done = 0
    client = mlflow.MlflowClient(study.mlflow_uri)
    with bar(study.kind, total=total) as update:

        def poll() -> None:
            nonlocal done, before
            under_way, note = 0, ""
            runs_by_key = {run.data.tags.get("mulan.train_key"): run for run in _runs(client, study.kind, data_hash)}
            for name, (key, steps) in list(pending.items()):
                run = runs_by_key.get(key)
                if run is not None and MEASURED in run.data.tags:
                    del pending[name]
                    done += steps
                    count = f"{len(trials) - len(pending)} of {len(trials)}"
                    earlier = ", done before" if before else ""
                    console.print(f"{name}: {shown(run.data.metrics)} ({count}{earlier})")
                elif run is not None and (point := latest_point(study.mlflow_uri, key)):
                    under_way += point[0]
                    state = f"loss {point[1]['loss']:.2f}" if point[0] < steps else "measuring"
                    note = f"{name}: {state}"
            before = False
            update(done + under_way, note=note)

        with suppress(mlflow.exceptions.MlflowException):
            poll()
        with polled(poll):
            yield
        poll()


def _runs(client: mlflow.MlflowClient, kind: Kind, data_hash: str) -> list[mlflow.entities.Run]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    where = f"tags.`mulan.kind` = '{kind}' and tags.`mulan.data_hash` = '{data_hash}'"
    return list(client.search_runs([experiment.experiment_id], where)) if experiment else []


def run_trial(space: dict[str, Any]) -> None:
    """Train and measure the trial ``space["trial"]`` of a study, and report it to Tune.

    The report: run_id, metrics and intervals as in an evaluation's.
    """
    quiet_ray_data()  # this is another process than the flow's
    trial = space["trials"][space["trial"]]
    config, workspace = from_mapping(Config, trial["config"]), Workspace(Path(space["workspace"]))
    uri, home, kind = space["mlflow_uri"], Path(space["home"]), space["kind"]
    trained = fit_model(
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
        names = ", ".join(report["metrics"])
        raise UserError(f"the validation split has no {metric} for tune.metric; it has {names}")


def _measure_valid(
    workspace: Workspace, ids: list[str], vectors_ND: NDArray[np.floating], embed_texts: suite.Embed
) -> dict[str, Any]:
    content = read_content(OWN, workspace.prepared, split="valid")
    suites = [name for name in OWN.suites if name != "probe"]
    config = workspace.config.evaluate
    return suite.evaluate(content, {"test": (ids, vectors_ND)}, embed_texts=embed_texts, suites=suites, config=config)[
        0
    ]

"""The flow ``tune``: a small search for hyper-parameters, judged on the validation split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlflow
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from flows.pipeline import tune_step as steps
from flows.pipeline.page import log_page
from flows.pipeline.study_step import Study, run_trials, study_run
from flows.pipeline.trial import check_metric
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.project import code_version
from flows.runtime.session import open_session
from flows.runtime.tracking import lineage_tags


@flow(
    name="tune",
    description="Training runs over a space of hyper-parameters; the best on the validation split.",
    **FAILURE_HOOKS,
)
def tune(manifest: str | None = None, playlists: str | None = None, params: str | None = None) -> dict[str, Any]:
    """Search the configuration's ``tune.space``, or go on with a search that was cut off; see ``prepare``.

    Returns:
        ``run_id`` of the search's run, ``page`` as Markdown, and what ``steps.outcome`` gives.
    """
    with open_session(manifest, playlists, params) as session, session.stage("tune"):
        workspace, settings = session.workspace, session.settings
        uri = settings.mlflow_uri
        config = workspace.config
        points: Mapping[str, Mapping[str, float]] = steps.points_of(config)
        rounds: list[list[dict[str, Any]]] = []
        first = steps.trials_of(config, points, 0)  # a value that the configuration refuses is said now
        metric, max_concurrent = config.tune.metric, config.tune.max_concurrent
        check_metric(workspace, metric)
        tags = lineage_tags(code_version(), runtime.flow_run.id)
        with study_run("tune", first[0].config, workspace.data_hash, mlflow_uri=uri, tags=tags) as run_id:
            place = Study(
                "tune", workspace, settings.home, settings.checkpoints, uri, run_id, max_concurrent=max_concurrent
            )
            for number in range(config.tune.rounds):
                trials = steps.trials_of(config, points, number)
                reports = run_trials(trials, place, shown=lambda found: f"{metric} {found[f'valid/{metric}']:.3f}")
                rounds.append(steps.scores_of(config, points, trials, reports))
                points = steps.best_third(points, rounds[-1])
            result = {"run_id": run_id} | steps.outcome(config, rounds)
            page = steps.to_markdown(result)
            log_page("search", page)
            mlflow.log_dict(result, "search.json")
            mlflow.log_metrics({f"best/{metric}": result["best"]["score"], f"gain/{metric}": result["gain"]})
        create_markdown_artifact(page, key="search", description="Hyper-parameters on the validation split")
        return result | {"page": page}

"""The flow ``tune``: a small search for hyper-parameters, judged on the validation split."""

from __future__ import annotations

from typing import Any

import mlflow
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from flows.session import open_session
from flows.steps import tune as steps
from flows.steps.page import log_page
from flows.steps.study import Study, run_trials, study_run
from flows.steps.tracking import git_commit, lineage_tags
from flows.workspace import PROJECT


@flow(name="tune", description="Training runs over a space of hyper-parameters; the best on the validation split.")
def tune(manifest: str | None = None, playlists: str | None = None, params: str | None = None) -> dict[str, Any]:
    """Search the configuration's ``tune.space``, or go on with a search that was cut off; see ``prepare``.

    Returns:
        ``run_id`` of the search's run, ``page`` as Markdown, and what ``steps.outcome`` gives.
    """
    with open_session(manifest, playlists, params) as session, session.stage("tune"):
        workspace, uri = session.workspace, session.settings.mlflow_uri
        config = workspace.config
        trials = steps.trials_of(config)
        metric, at_once = config.tune.metric, config.tune.at_once
        tags = lineage_tags(git_commit(PROJECT), runtime.flow_run.id)
        with study_run("tune", trials[0].config, workspace.data_hash, mlflow_uri=uri, tags=tags) as run_id:
            place = Study("tune", workspace, session.settings.home, uri, run_id, at_once=at_once, metric=metric)
            reported = run_trials(
                trials,
                place,
                shown=lambda metrics: f"{metric} {metrics[f'valid/{metric}']:.3f}",
                scheduler=steps.scheduler_of(config),
            )
            result = {"run_id": run_id} | steps.outcome(config, trials, reported)
            page = steps.to_markdown(result)
            log_page("search", page)
            mlflow.log_dict(result, "search.json")
            mlflow.log_metrics({f"best/{metric}": result["best"]["score"], f"gain/{metric}": result["gain"]})
        create_markdown_artifact(page, key="search", description="Hyper-parameters on the validation split")
        return result | {"page": page}

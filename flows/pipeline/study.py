"""The flow ``ablate``: the paper's study of text sources and filters over several seeds, as one page in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlflow
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from flows.pipeline import ablate_step as steps
from flows.pipeline.page import log_page
from flows.pipeline.study_step import Study, run_trials, study_run
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.progress import console
from flows.runtime.project import code_version
from flows.runtime.session import open_session
from flows.runtime.tracking import lineage_tags
from mulan_core.config import Runs
from mulan_core.errors import UserError
from mulan_core.evaluation import study as findings
from mulan_core.evaluation.plots import study_png
from mulan_core.ranges import fit


@flow(
    name="ablate",
    description="Training runs for each set of text sources, same budget and test set, several seeds.",
    **FAILURE_HOOKS,
)
def ablate(
    manifest: str | None = None,
    playlists: str | None = None,
    params: str | None = None,
    rows: list[str] | None = None,
    seeds: int | None = None,
) -> dict[str, Any]:
    """Run the ablation, or go on with one that was cut off; see ``prepare`` for the first arguments.

    Args:
        rows: rows to run; null runs those of the configuration that the data can tell apart.
        seeds: runs of each row; null takes the configuration's.

    Returns:
        ``run_id`` of the study's run; ``page`` as Markdown; ``rows`` with name, means and intervals; ``differences`` of
        every pair of rows, each with whether it stands, and in ``words``; ``trials``; ``notes``.
    """
    seeds = fit(Runs | None, seeds, "seeds")
    with open_session(manifest, playlists, params) as session, session.stage("ablate"):
        workspace, settings = session.workspace, session.settings
        uri = settings.mlflow_uri
        config = workspace.config
        chosen, notes = steps.usable(workspace.prepared, steps.rows_of(config, rows))
        if rows and notes:
            raise UserError("; ".join(notes))
        for note in notes:
            console.print(note)
        trials = steps.trials_of(config, chosen, seeds or config.ablate.seeds)
        tags = lineage_tags(code_version(), runtime.flow_run.id)
        budget = steps.budget(config)
        with study_run("ablate", budget, workspace.data_hash, mlflow_uri=uri, tags=tags) as run_id:
            place = Study(
                "ablate",
                workspace,
                settings.home,
                settings.checkpoints,
                uri,
                run_id,
                max_concurrent=config.ablate.max_concurrent,
            )
            reported = run_trials(trials, place, shown=_shown)
            measured = [
                {"row": trial.tags["mulan.ablation_row"], "seed": trial.config.train.seed}
                | {name: found[name] for name in ("run_id", "metrics", "intervals")}
                for trial, found in zip(trials, reported, strict=True)
            ]
            study = findings.Study.of_trials(measured)
            title = f"Ablation: {len(study.rows)} rows, {len(study.seeds)} seeds, {config.ablate.steps} steps"
            page = findings.to_markdown(study, title, notes=notes)
            result = {
                "run_id": run_id,
                "rows": study.summary(),
                "words": findings.in_words(study, study.differences()),
                "differences": [d.as_mapping() for d in study.differences()],
                "trials": measured,
                "notes": notes,
            }
            log_page("ablation", page, picture=study_png(study))
            mlflow.log_dict(result, "ablation.json")
        create_markdown_artifact(page, key="ablation", description="Text sources and filters: what stands over seeds")
        return result | {"page": page}


def _shown(metrics: Mapping[str, float]) -> str:
    columns = [column for _, of in findings.ablation_columns(metrics) for column in of]
    return ", ".join(f"{name} {metrics[metric]:.3f}" for name, metric, _ in columns[:4])

"""The flow ``ablate``: the paper's study of text sources, as one table in MLflow."""

from __future__ import annotations

from typing import Any

import mlflow
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from flows.progress import bar
from flows.session import open_session
from flows.steps import ablate as steps
from flows.steps.evaluate import evaluate_model
from flows.steps.models import Subject
from flows.steps.sets import own_set
from flows.steps.tracking import git_commit, lineage_tags, log_config, tracking
from flows.workspace import PROJECT
from mulan_core.evaluation.report import ablation_table


@flow(name="ablate", description="One training run for each set of text sources, same budget and test set.")
def ablate(
    manifest: str | None = None,
    playlists: str | None = None,
    params: str | None = None,
    rows: list[str] | None = None,
) -> dict[str, Any]:
    """Run the ablation; see ``prepare`` for the first arguments.

    Args:
        rows: rows to run; null runs those of the configuration.

    Returns:
        ``run_id`` of the parent run, ``table`` as Markdown, ``rows`` with their metrics.
    """
    with open_session(manifest, playlists, params) as session, session.stage("ablate"):
        config, uri, prepared = session.workspace.config, session.settings.mlflow_uri, session.workspace.prepared
        data_hash = session.workspace.data_hash
        names = rows or list(config.ablate.rows)
        steps.check_rows(names)  # said before the first one trains
        with tracking(uri), mlflow.start_run(run_name="ablation") as parent:
            mlflow.set_tags(lineage_tags(git_commit(PROJECT), runtime.flow_run.id) | {"mulan.data_hash": data_hash})
            log_config(config, parent)
        trained = steps.run_rows(
            config,
            names,
            prepared,
            data_hash=data_hash,
            mlflow_uri=uri,
            storage=session.settings.home / "ray_results",
            parent_run_id=parent.info.run_id,
        )
        own, results = own_set(session.workspace), []
        for row in trained:
            with bar(f"embed {row['row']}") as update:
                vectors = session.vectors(row["model"], progress=update)
            subject = Subject(name=row["row"], path=str(row["model"]), run_id=row["run_id"], data_hash=data_hash)
            report = evaluate_model(subject, own, vectors, config.evaluate, mlflow_uri=uri)
            results.append(
                {"name": row["row"], "run_id": row["run_id"]} | {k: report[k] for k in ("metrics", "intervals")}
            )
        table = ablation_table(results)
        with tracking(uri), mlflow.start_run(run_id=parent.info.run_id):
            mlflow.log_text(table, "ablation.md")
            mlflow.log_dict({"rows": results}, "ablation.json")
        create_markdown_artifact(table, key="ablation", description="Text sources, in the paper's layout")
        return {"run_id": parent.info.run_id, "table": table, "rows": results}

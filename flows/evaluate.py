"""The flow ``evaluate``: the suite on the test split, its report in MLflow and as an artifact of the flow run."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.progress import bar
from flows.session import open_session
from flows.steps.evaluate import evaluate_model
from mulan_core.evaluation.report import to_markdown


@flow(name="evaluate", description="Tagging, probe, retrieval and triplets on the test split.")
def evaluate(manifest: str | None = None, playlists: str | None = None, params: str | None = None) -> dict[str, Any]:
    """Evaluate the workspace's finished training run; see ``prepare`` for the arguments."""
    with open_session(manifest, playlists, params) as session, session.stage("evaluate"):
        trained = session.trained()
        with bar("embed") as update:
            vectors = session.vectors(trained.model, progress=update)
        report = evaluate_model(
            trained.model,
            session.workspace.prepared,
            vectors,
            session.workspace.config.evaluate,
            data_hash=session.workspace.data_hash,
            run_id=trained.run_id,
            mlflow_uri=session.settings.mlflow_uri,
        )
        create_markdown_artifact(to_markdown(report), key="evaluation", description="Test split, beside chance")
        return report

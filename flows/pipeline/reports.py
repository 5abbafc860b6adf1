"""Where reports and their evidence lie in MLflow: under ``evaluation/`` of the model's run, a folder for each set."""

from __future__ import annotations

import tempfile
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from flows.runtime.tracking import reading
from mulan_core.errors import UserError
from mulan_core.evaluation.evidence import FILE, Evidence
from mulan_core.evaluation.sets.playlists import OWN

REPORT_FOLDER = "evaluation"


def artifacts_of(name: str) -> str:
    """Folder of a set's report and evidence among the artifacts of a run."""
    return REPORT_FOLDER if name == OWN.name else f"{REPORT_FOLDER}/{name}"


def read_report(run_id: str, *, mlflow_uri: str, name: str = OWN.name) -> dict[str, Any]:
    """Read the report of an earlier run on a set back from MLflow."""
    with reading(mlflow_uri):
        uri = f"runs:/{run_id}/{artifacts_of(name)}/report.json"
        return mlflow.artifacts.load_dict(uri)  # type: ignore[no-any-return]


def read_evidence(run_id: str, *, mlflow_uri: str, name: str = OWN.name) -> Evidence:
    """Read what that report was computed from.

    Raises:
        UserError: if the run holds none.
    """
    try:
        with reading(mlflow_uri), tempfile.TemporaryDirectory() as folder:
            path = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{artifacts_of(name)}/{FILE}", dst_path=folder)
            return Evidence.load(path)
    except (MlflowException, OSError) as error:
        raise UserError(f"run {run_id} holds no evidence of an evaluation on {name}") from error

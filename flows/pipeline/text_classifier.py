"""Train the classifier of LF texts and log it to MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow

from flows.runtime.tracking import tracking
from mulan_core.config import TextClassifierConfig, to_mapping
from mulan_core.text.classifier import REPORT
from mulan_core.text.classifier_training import train_classifier
from mulan_core.text.fingerprint import fingerprint

KIND = "text_classifier"


def train_lf_classifier(
    labels: Mapping[str, bool],
    out: Path,
    config: TextClassifierConfig,
    *,
    mlflow_uri: str,
    tags: dict[str, str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Train on labelled lines, write the folder, log numbers, figures and ``classifier.json`` as one MLflow run.

    Returns:
        The report (mulan_core.text.classifier_training) with ``run_id`` and ``weights_hash``.

    Raises:
        UserError: if the lines do not suffice, or MLflow does not answer.
    """
    with tracking(mlflow_uri):
        classifier, report = train_classifier(labels, config, progress=progress)
        classifier.save_pretrained(out, report)
        weights = str(fingerprint(out)["classifier"])
        with mlflow.start_run(run_name=f"text-classifier-{weights}") as run:
            mlflow.set_tags(
                {"mulan.kind": KIND, "mulan.weights_hash": weights, "mulan.folder": str(out), **(tags or {})}
            )
            mlflow.log_params({f"{KIND}.{key}": value for key, value in to_mapping(config).items()})
            mlflow.log_params({key: report[key] for key in ("lines", "descriptions", "labels_hash")})
            for number, losses in enumerate(report["passes"], start=1):
                mlflow.log_metrics(losses, step=number)
            mlflow.log_metrics({f"held_out/{key}": value for key, value in report["held_out"].items()})
            mlflow.log_artifact(str(out / REPORT))
    return report | {"run_id": run.info.run_id, "weights_hash": weights}

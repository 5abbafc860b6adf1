"""Evaluation of a trained model on the test split; the report goes to MLflow as JSON, Markdown and PNG."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as pq

from flows.steps.embed import Vectors
from flows.steps.tracking import tracking
from mulan_core.config import EvaluateConfig, to_mapping
from mulan_core.data import shards
from mulan_core.embedding import embed_texts
from mulan_core.evaluation.encoders import weights_hash
from mulan_core.evaluation.evidence import FILE as EVIDENCE
from mulan_core.evaluation.report import write_report
from mulan_core.evaluation.suite import evaluate
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor

REPORT_FOLDER = "evaluation"


def evaluate_model(
    model_path: Path,
    prepared: Path,
    vectors: Vectors,
    config: EvaluateConfig,
    *,
    data_hash: str,
    run_id: str,
    mlflow_uri: str,
) -> dict[str, Any]:
    """Run the suite on a prepared folder's test split and log it on the training run, once.

    Returns:
        The report (mulan_core.evaluation.suite); the logged one where model, data and numbers are the same.
    """
    parts = {"weights": weights_hash(model_path), "data": data_hash, "evaluate": to_mapping(config)}
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    with tracking(mlflow_uri) as client:
        if client.get_run(run_id).data.tags.get("mulan.evaluation_key") == key:
            return read_report(run_id, mlflow_uri=mlflow_uri)
    rows = pq.read_table(prepared / shards.MANIFEST).to_pylist()
    playlists = prepared / shards.PLAYLISTS
    model, processor = MuLanModel.from_pretrained(model_path), MuLanProcessor.from_pretrained(model_path)
    report, evidence = evaluate(
        vectors,
        labels={row["track_id"]: row["labels"] for row in rows},
        held_out={row["track_id"] for row in rows if row.get("held_out")},
        playlists=[row for row in pq.read_table(playlists).to_pylist() if row["split"] == "test"]
        if playlists.exists()
        else [],
        embed_texts=lambda texts: embed_texts(model, processor, texts, batch_size=config.batch_size),
        config=config,
        own_texts={row["track_id"]: _own_text(row) for row in rows if row["split"] == "test"},
        set_info={
            "name": ", ".join(sorted({row["dataset"] for row in rows})) + ", test split",
            "audio_hash": shards.hash_split(prepared, "test"),
            "data_hash": data_hash,
            "model": run_id,
        },
    )
    with tracking(mlflow_uri), mlflow.start_run(run_id=run_id), tempfile.TemporaryDirectory() as folder:
        write_report(report, Path(folder))
        evidence.save(Path(folder) / EVIDENCE)
        mlflow.log_artifacts(folder, REPORT_FOLDER)
        mlflow.log_metrics(report["metrics"])
        mlflow.set_tag("mulan.evaluation_key", key)
    return report


def _own_text(row: dict[str, Any]) -> str:
    """A track's longest kept text of its own: it says most about the music. Playlist titles are not its own."""
    own = [text["text"] for text in row["texts"] if text["drop"] is None and text["source"] != "pl"]
    return max(own, key=len, default="")


def read_report(run_id: str, *, mlflow_uri: str) -> dict[str, Any]:
    """Read the report of an earlier run back from MLflow."""
    with tracking(mlflow_uri):
        return mlflow.artifacts.load_dict(f"runs:/{run_id}/{REPORT_FOLDER}/report.json")  # type: ignore[no-any-return]

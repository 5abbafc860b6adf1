"""Evaluation of a model on a set; whole reports go to MLflow, and to files, as JSON, Markdown, HTML and evidence."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from flows.pipeline.embed import Vectors
from flows.pipeline.reports import artifacts_of, read_report
from flows.pipeline.sets import PlacedSet
from flows.pipeline.subjects import Subject
from flows.runtime.tracking import MODEL_NAME, tracking
from mulan_core.config import EvaluateConfig, to_mapping
from mulan_core.data import shards
from mulan_core.evaluation.behaviour import measure_behaviour
from mulan_core.evaluation.cost import measure_cost
from mulan_core.evaluation.encoders import weights_hash
from mulan_core.evaluation.evidence import FILE as EVIDENCE
from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.report import write_report
from mulan_core.evaluation.suite import FORMAT, evaluate


def evaluate_model(
    subject: Subject,
    placed: PlacedSet,
    vectors: Vectors,
    config: EvaluateConfig,
    *,
    mlflow_uri: str,
    suites: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure a model on one set, log the whole report on its run, once, and write it to a folder.

    Args:
        subject: the model.
        placed: the set.
        vectors: of the set's tracks under the model; empty for a set of texts alone or a model without audio.
        config: the numbers.
        mlflow_uri: where a registered model's report is logged.
        suites: what to measure; None measures all that the set is for. A report of some alone is never logged.
        notes: what else the report should say.
        out: folder for the files, one below it for each set; None writes none.

    Returns:
        The report (mulan_core.evaluation.suite); the logged one where model, data and numbers are the same.

    Raises:
        UserError: if nothing can be measured, or what was given does not fit together.
    """
    chosen = _chosen(placed, suites)
    is_whole = chosen == list(placed.definition.suites)
    logged = subject.run_id if is_logged(subject, placed, suites) else None
    key = _key(subject, placed, config, notes)
    if logged and out is None and (known := _known(logged, placed, key, mlflow_uri)):
        return known
    encoder = subject.encoder
    report, evidence = evaluate(
        placed.content,
        vectors,
        embed_texts=encoder.embed_texts if encoder.has_text else None,
        unknown_texts=encoder.unknown_texts,
        class_prompts=encoder.class_prompts,
        suites=chosen,
        config=config,
        set_info=_set_info(subject, placed),
    )
    report["notes"] = [*notes, *report["notes"]]
    report["behaviour"] = measure_behaviour(encoder, evidence)
    report["cost"] = measure_cost(encoder)
    if logged:
        prefix = "" if placed.is_own else f"{placed.name}/"
        with tracking(mlflow_uri), mlflow.start_run(run_id=logged), tempfile.TemporaryDirectory() as folder:
            _write(report, evidence, Path(folder))
            mlflow.log_artifacts(folder, artifacts_of(placed.name))
            numbers = report["metrics"] | _behaviour(report)
            mlflow.log_metrics({prefix + name: value for name, value in numbers.items()})
            mlflow.set_tag(_key_tag(placed), key)
    if out is not None:
        _write(report, evidence, out / (placed.name if is_whole else f"{placed.name}-{'-'.join(chosen)}"))
    return report


def is_logged(subject: Subject, placed: PlacedSet, suites: Sequence[str] | None) -> bool:
    """Whether a report goes to MLflow: that of a model that has a run, with all the suites that the set is for."""
    return subject.run_id is not None and _chosen(placed, suites) == list(placed.definition.suites)


def _chosen(placed: PlacedSet, suites: Sequence[str] | None) -> list[str]:
    return [suite for suite in placed.definition.suites if suites is None or suite in suites]


def compare_with_champion(subject: Subject, report: dict[str, Any], *, mlflow_uri: str) -> str | None:
    """What to say where the champion was measured on another version of a report's set; None where all is well."""
    name = report["set"]["name"]
    with tracking(mlflow_uri) as client:
        try:
            champion = client.get_model_version_by_alias(MODEL_NAME, "champion")
            theirs = read_report(str(champion.run_id), mlflow_uri=mlflow_uri, name=name)["set"]["hash"]
        except MlflowException:
            return None  # no champion, or not measured on this set
    if str(champion.run_id) == subject.run_id or theirs == report["set"]["hash"]:
        return None
    return (
        f"the champion was measured on another version of {name} ({theirs[:12]}, this one is "
        f"{report['set']['hash'][:12]}): `mulan evaluate champion --on {name}` measures it on this one"
    )


def _key_tag(placed: PlacedSet) -> str:
    return "mulan.evaluation_key" + ("" if placed.is_own else f".{placed.name}")


def _key(subject: Subject, placed: PlacedSet, config: EvaluateConfig, notes: Sequence[str]) -> str:
    parts = {
        "format": FORMAT,
        "weights": weights_hash(subject.path, pooling=subject.pooling),
        "set": placed.name,
        "data": placed.data_hash,
        "evaluate": to_mapping(replace(config, sets={})),
        "notes": list(notes),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _known(run_id: str, placed: PlacedSet, key: str, mlflow_uri: str) -> dict[str, Any] | None:
    with tracking(mlflow_uri) as client:
        if client.get_run(run_id).data.tags.get(_key_tag(placed)) != key:
            return None
    return read_report(run_id, mlflow_uri=mlflow_uri, name=placed.name)


def _set_info(subject: Subject, placed: PlacedSet) -> dict[str, Any]:
    definition = placed.definition
    info = {"name": definition.name, "title": definition.title, "split": definition.split}
    if {"tagging", "probe"} & set(definition.suites):
        info["class_list"] = definition.class_list
    if not definition.is_text_only:
        info["audio_hash"] = shards.hash_split(placed.path, "test")
    return info | {"data_hash": placed.data_hash, "model": subject.describe()}


def _behaviour(report: dict[str, Any]) -> dict[str, float]:
    """Behaviour and cost as flat numbers, ``behaviour/silence/share`` and the like."""
    told = ("share", "below", "roc_auc")
    behaviour = {
        f"behaviour/{name}/{key}": of_name[key]
        for name, of_name in report["behaviour"].items()
        for key in told
        if key in of_name
    }
    cost = {f"cost/{key}": value for key, value in report["cost"].items() if isinstance(value, (int, float))}
    return behaviour | cost


def _write(report: dict[str, Any], evidence: Evidence, folder: Path) -> None:
    write_report(report, evidence, folder)
    evidence.save(folder / EVIDENCE)

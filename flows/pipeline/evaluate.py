"""The stage ``evaluate``: the workspace's trained run on its test split, or any model on any evaluation sets.

Whole reports go to MLflow, and to files, as JSON, Markdown, HTML and evidence.
"""

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
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.pipeline.embed import Vectors, track_vectors
from flows.pipeline.overlap import check_unseen
from flows.pipeline.reports import artifacts_of, read_report
from flows.pipeline.sets import PlacedSet, find_sets, read_sets
from flows.pipeline.subjects import Subject, find_subject
from flows.pipeline.train import trained_run
from flows.registry import Registry
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.progress import bar
from flows.runtime.session import Session, open_session
from flows.runtime.tracking import tracking
from mulan_core.config import EvaluateConfig, to_mapping
from mulan_core.data import shards
from mulan_core.evaluation import suite
from mulan_core.evaluation.behaviour import measure_behaviour
from mulan_core.evaluation.cost import measure_cost
from mulan_core.evaluation.encoders import weights_hash
from mulan_core.evaluation.evidence import FILE as EVIDENCE
from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.report import to_markdown, write_evaluation, write_report


@flow(
    name="evaluate", description="Tagging, probe, retrieval and triplets: a model on evaluation sets.", **FAILURE_HOOKS
)
def evaluate(
    manifest: str | None = None,
    playlists: str | None = None,
    params: str | None = None,
    *,
    model: str | None = None,
    sets: list[str] | None = None,
    suites: list[str] | None = None,
    pooling: str | None = None,
    allow_overlap: bool = False,
    out: str | None = None,
) -> dict[str, Any]:
    """Evaluate a model on sets; see ``prepare`` for the first arguments.

    Args:
        model: an alias or version of the registered model, a folder, a name on the hub, or a file of vectors; null
            takes the workspace's finished training run.
        sets: names of sets (`mulan data sets`), NAME=PATH, or paths; null takes the workspace's own test split.
        suites: what to measure: tagging, probe, retrieval, triplets; null measures all that a set is for.
        pooling: of a plain text or audio model: cls, mean, max or pooler.
        allow_overlap: measure a set all the same that shares recordings with the training data.
        out: folder for the reports; null takes one under ``.mulan/evaluations`` for a model that is not registered,
            and none for one that is, whose reports are in MLflow.

    Returns:
        ``model``: what was measured; ``sets``: name -> report; ``logged``: the sets whose reports are in MLflow;
        ``out``: the folder of the files; ``notes``: what concerns no set alone.
    """
    with open_session(manifest, playlists, params) as session, session.stage("evaluate"):
        workspace, uri = session.workspace, session.settings.mlflow_uri
        set_paths = find_sets(sets or (), workspace, home=session.settings.home, suites=suites)
        subject = _subject(session, model, pooling)
        placed = read_sets(set_paths, workspace)
        notes = {each.name: check_unseen(subject, each, workspace, allow=allow_overlap) for each in placed}
        folder = Path(out) if out else _folder(session, subject)
        reports: dict[str, Any] = {}
        for placed_set in placed:
            reports[placed_set.name] = evaluate_model(
                subject,
                placed_set,
                _vectors(session, subject, placed_set),
                workspace.config.evaluate,
                mlflow_uri=uri,
                suites=suites,
                notes=notes[placed_set.name],
                out=folder,
            )
            _show_in_prefect(subject, placed_set, reports[placed_set.name])
        remarks = [compare_with_champion(subject, report, session.registry) for report in reports.values()]
        result = {
            "model": next(iter(reports.values()))["set"]["model"] | subject.names,
            "sets": reports,
            "logged": [placed_set.name for placed_set in placed if is_logged(subject, placed_set, suites)],
            "out": str(folder) if folder else None,
            "notes": [note for note in remarks if note],
        }
        if folder:
            write_evaluation(result, folder)
        return result


def _show_in_prefect(subject: Subject, placed: PlacedSet, report: dict[str, Any]) -> None:
    description = f"{subject.name} on {placed.definition.title}, beside chance"
    create_markdown_artifact(to_markdown(report), key=_artifact_key(placed), description=description)


def _subject(session: Session, model: str | None, pooling: str | None) -> Subject:
    batch_size = session.workspace.config.evaluate.batch_size
    if model is not None:
        return find_subject(model, session.registry, pooling=pooling, batch_size=batch_size)
    trained = trained_run(session)
    return Subject(
        name="the trained run",
        path=str(trained.model),
        pooling=pooling,
        batch_size=batch_size,
        run_id=trained.run_id,
        data_hash=session.workspace.data_hash,
    )


def _folder(session: Session, subject: Subject) -> Path | None:
    if subject.run_id is not None:
        return None
    return session.settings.home / "evaluations" / f"{Path(subject.path).stem}-{subject.encoder.weights_hash}"


def _vectors(session: Session, subject: Subject, placed: PlacedSet) -> Vectors:
    if not (subject.has_audio and placed.content.tracks):
        return {}
    # What the index will want is kept now, while each clip is heard.
    windows = session.workspace.config.index.windows and placed.is_own and subject.run_id is not None
    with bar(f"embed {placed.name}") as update:
        return track_vectors(session, subject.path, update, pooling=subject.pooling, placed=placed, windows=windows)


def _artifact_key(placed: PlacedSet) -> str:
    """Prefect's artifact keys hold lower-case letters, digits and dashes."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in placed.name.lower())
    return "evaluation" if placed.is_own else f"evaluation-{kept}"


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
    if logged and out is None and (logged_report := _logged_report(logged, placed, key, mlflow_uri)):
        return logged_report
    encoder = subject.encoder
    report, evidence = suite.evaluate(
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
    return [name for name in placed.definition.suites if suites is None or name in suites]


def compare_with_champion(subject: Subject, report: dict[str, Any], registry: Registry) -> str | None:
    """What to say where the champion was measured on another version of a report's set; None where all is well."""
    name = report["set"]["name"]
    champion = registry.get("champion")
    if champion is None:
        return None
    try:
        champion_hash = read_report(champion.run_id, mlflow_uri=registry.uri, name=name)["set"]["hash"]
    except MlflowException:
        return None  # not measured on this set
    if champion.run_id == subject.run_id or champion_hash == report["set"]["hash"]:
        return None
    return (
        f"the champion was measured on another version of {name} ({champion_hash[:12]}, this one is "
        f"{report['set']['hash'][:12]}): `mulan evaluate champion --on {name}` measures it on this one"
    )


def _key_tag(placed: PlacedSet) -> str:
    return "mulan.evaluation_key" + ("" if placed.is_own else f".{placed.name}")


def _key(subject: Subject, placed: PlacedSet, config: EvaluateConfig, notes: Sequence[str]) -> str:
    parts = {
        "format": suite.FORMAT,
        "weights": weights_hash(subject.path, pooling=subject.pooling),
        "set": placed.name,
        "data": placed.data_hash,
        "evaluate": to_mapping(replace(config, sets={})),
        "notes": list(notes),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _logged_report(run_id: str, placed: PlacedSet, key: str, mlflow_uri: str) -> dict[str, Any] | None:
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
    keys = ("share", "below", "roc_auc")
    behaviour = {
        f"behaviour/{name}/{key}": values[key]
        for name, values in report["behaviour"].items()
        for key in keys
        if key in values
    }
    cost = {f"cost/{key}": value for key, value in report["cost"].items() if isinstance(value, (int, float))}
    return behaviour | cost


def _write(report: dict[str, Any], evidence: Evidence, folder: Path) -> None:
    write_report(report, evidence, folder)
    evidence.save(folder / EVIDENCE)

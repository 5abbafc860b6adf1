"""The flow ``evaluate``: the workspace's trained run on its test split, or any model on any evaluation sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.pipeline.evaluate_step import compare_with_champion, evaluate_model, is_logged
from flows.pipeline.overlap import check_unseen
from flows.pipeline.sets import PlacedSet, find_sets, read_sets
from flows.pipeline.subjects import Subject, find_subject
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.progress import bar
from flows.runtime.session import Session, open_session
from mulan_core.evaluation.report import to_markdown, write_evaluation


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
        workspace = session.workspace
        found = find_sets(sets or (), workspace, home=session.settings.home, suites=suites)
        subject = _subject(session, model, pooling)
        placed = read_sets(found, workspace)
        notes = {one.name: check_unseen(subject, one, workspace, allow=allow_overlap) for one in placed}
        folder = Path(out) if out else None
        if folder is None and subject.run_id is None:
            folder = session.settings.home / "evaluations" / f"{Path(subject.path).stem}-{subject.encoder.weights_hash}"
        reports: dict[str, Any] = {}
        for one in placed:
            vectors = {}
            if subject.has_audio and one.content.tracks:
                # What the index will want is kept now, while each clip is heard.
                windows = workspace.config.index.windows and one.is_own and subject.run_id is not None
                with bar(f"embed {one.name}") as update:
                    vectors = session.vectors(
                        subject.path, update, pooling=subject.pooling, placed=one, windows=windows
                    )
            reports[one.name] = evaluate_model(
                subject,
                one,
                vectors,
                workspace.config.evaluate,
                mlflow_uri=session.settings.mlflow_uri,
                suites=suites,
                notes=notes[one.name],
                out=folder,
            )
            description = f"{subject.name} on {one.definition.title}, beside chance"
            create_markdown_artifact(to_markdown(reports[one.name]), key=_key(one), description=description)
        uri = session.settings.mlflow_uri
        said = [compare_with_champion(subject, report, mlflow_uri=uri) for report in reports.values()]
        result = {
            "model": next(iter(reports.values()))["set"]["model"] | subject.names,
            "sets": reports,
            "logged": [one.name for one in placed if is_logged(subject, one, suites)],
            "out": str(folder) if folder else None,
            "notes": [note for note in said if note],
        }
        if folder:
            write_evaluation(result, folder)
        return result


def _subject(session: Session, model: str | None, pooling: str | None) -> Subject:
    batch_size = session.workspace.config.evaluate.batch_size
    if model is not None:
        uri, cache = session.settings.mlflow_uri, session.settings.home / "models"
        return find_subject(model, mlflow_uri=uri, cache=cache, pooling=pooling, batch_size=batch_size)
    trained = session.trained()
    return Subject(
        name="the trained run",
        path=str(trained.model),
        pooling=pooling,
        batch_size=batch_size,
        run_id=trained.run_id,
        data_hash=session.workspace.data_hash,
    )


def _key(placed: PlacedSet) -> str:
    """Prefect's artifact keys hold lower-case letters, digits and dashes."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in placed.name.lower())
    return "evaluation" if placed.is_own else f"evaluation-{kept}"

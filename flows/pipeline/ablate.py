"""The stage ``ablate``: the paper's study of text sources and filters over several seeds, as one page in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from flows.pipeline.page import log_page
from flows.pipeline.trials import StudyRun, Trial, run_trials, study_run
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.progress import console
from flows.runtime.project import code_version
from flows.runtime.session import open_session
from flows.runtime.tracking import lineage_tags
from mulan_core.config import PAPER_ROWS, AblateRow, Config, Runs
from mulan_core.data.split import Split
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
        workspace, uri = session.workspace, session.settings.mlflow_uri
        config = workspace.config
        chosen, notes = usable(workspace.prepared, rows_of(config, rows))
        if rows and notes:
            raise UserError("; ".join(notes))
        for note in notes:
            console.print(note)
        trials = trials_of(config, chosen, seeds or config.ablate.seeds)
        tags = lineage_tags(code_version(), runtime.flow_run.id)
        shared = budget(config)
        with study_run("ablate", shared, workspace.data_hash, mlflow_uri=uri, tags=tags) as run_id:
            study = StudyRun.of(session, "ablate", run_id, max_concurrent=config.ablate.max_concurrent)
            reported = run_trials(trials, study, shown=_shown)
            measured = [
                {"row": trial.tags["mulan.ablation_row"], "seed": trial.config.train.seed}
                | {name: report[name] for name in ("run_id", "metrics", "intervals")}
                for trial, report in zip(trials, reported, strict=True)
            ]
            compared = findings.Study.of_trials(measured)
            title = f"Ablation: {len(compared.rows)} rows, {len(compared.seeds)} seeds, {config.ablate.steps} steps"
            page = findings.to_markdown(compared, title, notes=notes)
            result = {
                "run_id": run_id,
                "rows": compared.summary(),
                "words": findings.in_words(compared, compared.differences()),
                "differences": [d.as_mapping() for d in compared.differences()],
                "trials": measured,
                "notes": notes,
            }
            log_page("ablation", page, picture=study_png(compared))
            mlflow.log_dict(result, "ablation.json")
        create_markdown_artifact(page, key="ablation", description="Text sources and filters: what stands over seeds")
        return result | {"page": page}


def _shown(metrics: Mapping[str, float]) -> str:
    columns = [column for _, table_columns in findings.ablation_columns(metrics) for column in table_columns]
    return ", ".join(f"{name} {metrics[metric]:.3f}" for name, metric, _ in columns[:4])


def rows_of(config: Config, names: Sequence[str] | None = None) -> dict[str, AblateRow]:
    """Rows by name: those asked for, of the configuration or the paper; without names the configuration's.

    Raises:
        UserError: for a name that neither has, a name given twice, a source without weight, or two rows that are one.
    """
    by_name = PAPER_ROWS | {name: row or PAPER_ROWS[name] for name, row in config.ablate.rows.items()}
    names = list(config.ablate.rows) if names is None else names
    for number, name in enumerate(names):
        if name not in by_name:
            raise UserError(f"there is no ablation row {name!r}; the rows are {', '.join(by_name)}")
        for source in by_name[name].sources:
            if not config.train.source_weights.get(source):
                raise UserError(f"ablation row {name} trains on {source}, which train.source_weights leaves out")
        for other in names[:number]:
            if name == other:
                raise UserError(f"ablation row {name} is asked for twice")
            if _what(by_name[name]) == _what(by_name[other]):
                raise UserError(f"ablation rows {other} and {name} train on the same; leave one out")
    return {name: by_name[name] for name in names}


def trials_of(config: Config, rows: Mapping[str, AblateRow], seeds: int) -> list[Trial]:
    """The runs of an ablation, seed by seed, so that what is there early compares."""
    return [
        Trial(
            name=f"{name}, seed {config.train.seed + number}",
            config=row_config(config, row, config.train.seed + number),
            tags={"mulan.ablation_row": name},
        )
        for number in range(seeds)
        for name, row in rows.items()
    ]


def row_config(config: Config, row: AblateRow, seed: int) -> Config:
    """The numbers of one run: only text sources, filters and seed differ from run to run."""
    weights = {
        source: config.train.source_weights[source] if source in row.sources else 0.0
        for source in config.train.source_weights
    }
    train = replace(budget(config).train, source_weights=weights, use_filtered_text=row.filtered, seed=seed)
    return replace(config, train=train)


def budget(config: Config) -> Config:
    """The numbers that all runs of the ablation share."""
    return replace(config, train=replace(config.train, steps=config.ablate.steps))


def usable(prepared: Path, rows: Mapping[str, AblateRow]) -> tuple[dict[str, AblateRow], list[str]]:
    """The rows that this data can tell apart, and for each other one a sentence: it finds no text, or another's.

    Raises:
        UserError: if none is left.
    """
    clips = Split(prepared, "train", ["texts"])
    kept: dict[str, AblateRow] = {}
    seen: dict[tuple[frozenset[str], bool], str] = {}
    notes = []
    for name, row in rows.items():
        has = clips.sources(use_filtered=row.filtered)
        there = frozenset(source for source in row.sources if source in has and has[source].any())
        lacking = ", ".join(source for source in row.sources if source not in there)
        if not there:
            notes.append(f"row {name} left out: no training track has a text of {lacking}")
        elif other := seen.get((there, row.filtered)):
            notes.append(f"row {name} left out: it is {other}, since no training track has a text of {lacking}")
        else:
            kept[name], seen[there, row.filtered] = row, name
    if not kept:
        raise UserError(f"nothing to ablate: {'; '.join(notes)}")
    return kept, notes


def _what(row: AblateRow) -> tuple[frozenset[str], bool]:
    return frozenset(row.sources), row.filtered

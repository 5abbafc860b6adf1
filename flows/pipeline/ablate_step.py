"""The ablation over text sources and filters: which rows there are, and the runs that each of them takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flows.pipeline.study_step import Trial
from mulan_core.config import PAPER_ROWS, AblateRow, Config
from mulan_core.data.split import Split
from mulan_core.errors import UserError


def rows_of(config: Config, names: Sequence[str] | None = None) -> dict[str, AblateRow]:
    """Rows by name: those asked for, of the configuration or the paper; without names the configuration's.

    Raises:
        UserError: for a name that neither has, a name given twice, a source without weight, or two rows that are one.
    """
    known = PAPER_ROWS | {name: row or PAPER_ROWS[name] for name, row in config.ablate.rows.items()}
    names = list(config.ablate.rows) if names is None else names
    for number, name in enumerate(names):
        if name not in known:
            raise UserError(f"there is no ablation row {name!r}; the rows are {', '.join(known)}")
        for source in known[name].sources:
            if not config.train.source_weights.get(source):
                raise UserError(f"ablation row {name} trains on {source}, which train.source_weights leaves out")
        for other in names[:number]:
            if name == other:
                raise UserError(f"ablation row {name} is asked for twice")
            if _what(known[name]) == _what(known[other]):
                raise UserError(f"ablation rows {other} and {name} train on the same; leave one out")
    return {name: known[name] for name in names}


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

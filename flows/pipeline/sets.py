"""Where evaluation sets lie: those of the registry, those of ``evaluate.sets`` in params.yaml, and any path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.runtime.workspace import Workspace
from mulan_core.config import SET_NAME
from mulan_core.data import shards
from mulan_core.errors import UserError
from mulan_core.evaluation.sets import SETS, find_set
from mulan_core.evaluation.sets.content import Content
from mulan_core.evaluation.sets.definition import SUITES, EvaluationSet, check_suites
from mulan_core.evaluation.sets.playlists import OWN, any_folder
from mulan_core.evaluation.sets.prepared import hash_set, read_content
from mulan_core.evaluation.sets.texts import any_table


@dataclass(frozen=True)
class PlacedSet:
    """An evaluation set that is there."""

    definition: EvaluationSet
    path: Path
    """A prepared folder, or the file of a set of texts alone."""
    data_hash: str
    """Identity of its files."""
    content: Content

    @property
    def name(self) -> str:
        """The name in reports."""
        return self.definition.name

    @property
    def is_own(self) -> bool:
        """Whether it is the workspace's own test split, whose report the gate reads."""
        return self.name == OWN.name


def find_sets(
    words: Sequence[str], workspace: Workspace, *, home: Path, suites: Sequence[str] | None = None
) -> list[tuple[EvaluationSet, Path]]:
    """Find the sets that a command names, and where they lie; nothing is read yet.

    Args:
        words: each a name, NAME=PATH, or a path; see docs/evaluation-sets.md. None at all is the workspace's own set.
        workspace: whose own set, and whose ``evaluate.sets``.
        home: the folder of local state, where fetched data sets lie.
        suites: what is asked of them; None asks nothing special.

    Raises:
        UserError: for a name or a suite that nobody knows, a set that is not prepared, or is not for these suites.
    """
    asked = check_suites(suites) if suites is not None else SUITES
    placed = [_place(word, workspace, home) for word in dict.fromkeys(words or [OWN.name])]
    names = [definition.name for definition, _ in placed]
    for definition, _ in placed:
        if names.count(definition.name) > 1:
            raise UserError(f"two sets are called {definition.name}; give one another name with NAME=PATH")
        if not set(asked).intersection(definition.suites):
            able = ", ".join(definition.suites)
            raise UserError(
                f"{definition.name} is a set for {able}, not for {', '.join(asked)}; leave the set or the suite out"
            )
    return placed


def read_sets(placed: Sequence[tuple[EvaluationSet, Path]], workspace: Workspace) -> list[PlacedSet]:
    """Read what ``find_sets`` has found, all of it before any is measured.

    Raises:
        UserError: if files are not what a set needs.
    """
    return [_read(definition, path, workspace) for definition, path in placed]


def own_set(workspace: Workspace) -> PlacedSet:
    """The workspace's own test split."""
    return _read(OWN, workspace.prepared, workspace)


def describe_sets(workspace: Workspace, name: str | None = None, *, home: Path) -> list[dict[str, Any]]:
    """Every set, or the one of this name, with what it needs and where it lies, for ``mulan data sets``.

    Raises:
        UserError: if there is none of this name.
    """
    configured = [any_folder(definition) for definition in workspace.config.evaluate.sets if definition not in SETS]
    chosen = [*SETS.values(), *configured] if name is None else [_find(name, workspace, home)[0]]
    rows = []
    for definition in chosen:
        try:
            path: Path | None = _find(definition.name, workspace, home)[1]
        except UserError:
            path = None
        rows.append(
            {
                "name": definition.name,
                "title": definition.title,
                "suites": list(definition.suites),
                "split": definition.split,
                "classes": None if definition.classes is None else len(definition.classes),
                "class_list": definition.class_list if {"tagging", "probe"} & set(definition.suites) else None,
                "needs": definition.needs or "evaluate.sets in params.yaml, then mulan prepare",
                "prepared": str(path) if path is not None and path.exists() else None,
            }
        )
    return rows


def _read(definition: EvaluationSet, path: Path, workspace: Workspace) -> PlacedSet:
    if definition is OWN:
        data_hash = workspace.data_hash
        content = read_content(definition, path)
        datasets = pq.read_table(path / shards.MANIFEST, columns=["dataset"])["dataset"].unique().to_pylist()
        return PlacedSet(replace(OWN, title=f"{', '.join(sorted(datasets))}, test split"), path, data_hash, content)
    return PlacedSet(definition, path, hash_set(path), read_content(definition, path))


def _place(word: str, workspace: Workspace, home: Path) -> tuple[EvaluationSet, Path]:
    name, equals, given = word.partition("=")
    if not equals and Path(word).exists() and word not in {*SETS, *workspace.config.evaluate.sets}:
        name, equals, given = Path(word).resolve().stem, "=", word
    if not equals:
        definition, path = _find(name, workspace, home)
        if not path.exists():
            raise UserError(f"{name} is not there ({path}): {_remedy(definition, name, workspace)}")
        return definition, path
    if not SET_NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name for a set; use letters, digits, and _ . -")
    path = Path(given).resolve()
    if not path.exists():
        raise UserError(f"there is no {given} for the set {name}")
    if name in (OWN.name, "demo"):
        raise UserError(f"{name} is the workspace's own set and lies in {workspace.prepared}; choose another name")
    return SETS.get(name) or (any_folder(name) if path.is_dir() else any_table(name)), path


def _find(name: str, workspace: Workspace, home: Path) -> tuple[EvaluationSet, Path]:
    """A set by its name alone, and where it should lie."""
    if name == OWN.name or (name == "demo" and workspace.is_demo):
        return OWN, workspace.prepared
    if name in workspace.config.evaluate.sets:
        return SETS.get(name) or any_folder(name), workspace.sets / name
    definition = find_set(name)
    if definition.is_text_only:
        return definition, home / "datasets" / (definition.fetched or definition.name)
    # One prepared data set serves all its class lists and splits.
    return definition, workspace.sets / (definition.dataset or definition.name)


def _remedy(definition: EvaluationSet, name: str, workspace: Workspace) -> str:
    if definition is OWN or name in workspace.config.evaluate.sets:
        return "run `mulan prepare` first"
    if definition.is_text_only:
        return f"it needs {definition.needs}; give {name}=FILE"
    return (
        f"it needs {definition.needs}; name the manifest in evaluate.sets of params.yaml and run `mulan prepare`, or "
        f"give {name}=FOLDER of what was prepared"
    )

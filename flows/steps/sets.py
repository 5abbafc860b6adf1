"""Where evaluation sets lie: those of the registry, those of ``evaluate.sets`` in params.yaml, and any path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.steps.models import Subject
from flows.steps.versions import read_version
from flows.workspace import Workspace
from mulan_core.config import SET_NAME
from mulan_core.data import shards
from mulan_core.data.overlap import check_overlaps, find_overlaps
from mulan_core.errors import UserError
from mulan_core.evaluation.sets import SETS, find_set
from mulan_core.evaluation.sets.content import Content
from mulan_core.evaluation.sets.definition import EvaluationSet
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


def place_sets(words: Sequence[str], workspace: Workspace, *, home: Path) -> list[PlacedSet]:
    """Find and read the sets that a command names, all of them before any is measured.

    Args:
        words: each a name, NAME=PATH, or a path; see docs/evaluation.md.
        workspace: whose own set, and whose ``evaluate.sets``.
        home: the folder of local state, where fetched data sets lie.

    Raises:
        UserError: for a name that nobody knows, a set that is not prepared, or files that are not what it needs.
    """
    placed = [_place(word, workspace, home) for word in dict.fromkeys(words)]
    names = [definition.name for definition, _ in placed]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two sets are called {name}; give one another name with NAME=PATH")
    return [_read(definition, path, workspace) for definition, path in placed]


def own_set(workspace: Workspace) -> PlacedSet:
    """The workspace's own test split."""
    return _read(OWN, workspace.prepared, workspace)


def describe_sets(workspace: Workspace, *, home: Path) -> list[dict[str, Any]]:
    """Every set with what it needs and where it lies, for ``mulan data sets``."""
    configured = [any_folder(name) for name in workspace.config.evaluate.sets if name not in SETS]
    rows = []
    for one in [*SETS.values(), *configured]:
        try:
            path: Path | None = _find(one.name, workspace, home)[1]
        except UserError:
            path = None
        rows.append(
            {
                "name": one.name,
                "title": one.title,
                "suites": list(one.suites),
                "split": one.split,
                "classes": None if one.classes is None else len(one.classes),
                "class_list": one.class_list if {"tagging", "probe"} & set(one.suites) else None,
                "needs": one.needs or "evaluate.sets in params.yaml, then mulan prepare",
                "prepared": str(path) if path is not None and path.exists() else None,
            }
        )
    return rows


def check_unseen(subject: Subject, placed: PlacedSet, workspace: Workspace, *, allow: bool) -> list[str]:
    """Refuse a set that shares recordings with what the model was trained on.

    Args:
        subject: the model; what it was trained on is known by the data's hash in the registry.
        placed: the set.
        workspace: whose DVC cache and remote hold that data.
        allow: go on all the same, and say how many.

    Returns:
        What the report should say: that it could not be checked, or how many recordings are shared.

    Raises:
        UserError: with the list of what is shared; see ``overlap.check_overlaps``.
    """
    if placed.definition.is_text_only or (placed.is_own and subject.data_hash == placed.data_hash):
        return []  # prepare has checked that split against its own training split
    unknown = "Overlap with its training data was not checked"
    if subject.data_hash is None:
        return [f"{unknown}: what {subject.name} was trained on is not known here."]
    try:
        trained_on = read_version(workspace, subject.data_hash)
    except UserError:
        return [f"{unknown}: the data {subject.data_hash[:8]} is neither in DVC's cache nor its remote."]
    train = trained_on.filter(pc.equal(trained_on["split"], "train"))
    manifest = pq.read_table(placed.path / shards.MANIFEST)
    test = manifest.filter(pc.is_in(manifest["track_id"], pa.array(placed.content.tracks["test"])))
    overlaps = find_overlaps(train, test)
    remedy = f"leave them out of one of the two, or measure {placed.name} all the same with --allow-overlap"
    check_overlaps(overlaps, remedy=remedy, allow=allow)
    return [f"{len(overlaps):,} recordings are in the training data as well (--allow-overlap)."] if overlaps else []


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

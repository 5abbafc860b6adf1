"""What a comparison reads: report and evidence of a registered model, or of a folder that ``mulan evaluate`` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from flows.pipeline.reports import read_evidence, read_report
from flows.registry import Registry
from mulan_core.errors import UserError
from mulan_core.evaluation.compare import compare
from mulan_core.evaluation.comparison import Comparison
from mulan_core.evaluation.evidence import FILE, Evidence
from mulan_core.evaluation.sets.playlists import OWN


@dataclass(frozen=True)
class Measured:
    """One evaluation of one model."""

    name: str
    """As the user named the model, with its version."""
    report: dict[str, Any]
    evidence: Evidence


def compare_named(a: str, b: str, registry: Registry, *, on: str | None) -> Comparison:
    """Compare two models by what was measured of them on one set.

    Args:
        a: the model that stands: an alias or version of the registered model, or a folder with reports.
        b: the one that is held against it.
        on: the set; None takes that of a folder, where it holds one, else the workspace's own.
        registry: of that model.

    Raises:
        UserError: if something is not there, or the two were not measured on the same set.
    """
    folders = {name: _report_in(Path(name), on) for name in (a, b) if Path(name).is_dir()}
    if on is None and folders:
        on = str(next(iter(folders.values()))[0]["set"]["name"])
    models = [
        _read_folder(name, *folders[name]) if name in folders else _read_registered(name, registry, on=on or OWN.name)
        for name in (a, b)
    ]
    first, second = models
    return compare((first.report, first.evidence), (second.report, second.evidence), names=(first.name, second.name))


def _report_in(folder: Path, on: str | None) -> tuple[dict[str, Any], Path]:
    """The only report in a folder, or else that of the set; and where it lies. Its set's hash is checked later."""
    paths = sorted([*folder.glob("report.json"), *folder.glob("*/report.json")])
    reports = [(_read_json(path), path.parent) for path in paths]
    if not reports:
        raise UserError(f"{folder} holds no report.json; `mulan evaluate MODEL --out {folder}` writes one")
    if len(reports) > 1:
        names = [str(report["set"].get("name")) for report, _ in reports]
        reports = [entry for entry, name in zip(reports, names, strict=True) if on in (name, entry[1].name)]
        if len(reports) != 1:
            raise UserError(f"{folder} holds reports on {', '.join(names)}; choose one with --on")
    return reports[0]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if {"set", "metrics"} <= report.keys():
            return dict(report)
    except (OSError, ValueError, AttributeError):
        pass
    raise UserError(f"{path} is not the report of an evaluation")


def _read_folder(name: str, report: dict[str, Any], folder: Path) -> Measured:
    if not (folder / FILE).is_file():
        raise UserError(f"{folder} has a report but no {FILE}; `mulan evaluate MODEL --out FOLDER` writes both")
    return Measured(Path(name).name or name, report, Evidence.load(folder / FILE))


def _read_registered(name: str, registry: Registry, *, on: str) -> Measured:
    version = registry.get(name)
    if version is None:
        raise UserError(
            f"{name!r} is no alias or version of the registered model (`mulan release list`), and no folder of reports"
        )
    shown = f"version {name}" if name == version.number else f"{name} (version {version.number})"
    try:
        report = read_report(version.run_id, mlflow_uri=registry.uri, name=on)
        return Measured(shown, report, read_evidence(version.run_id, mlflow_uri=registry.uri, name=on))
    except (MlflowException, OSError, UserError) as error:
        raise UserError(
            f"{name} was not measured on {on}, or left no evidence; `mulan evaluate {name} --on {on}` measures it"
        ) from error

"""``mulan compare`` on folders that an evaluation wrote; on registered models in test_evaluate.py."""

import json
import sys
from pathlib import Path

import pytest
from flow_fixtures import ROOT, mulan, result_of
from test_cli_errors import refused

sys.path.insert(0, str(ROOT / "tests" / "core"))

from test_suite import CONFIG, catalogue, evaluate_both

from flows.pipeline.compare import compare_named
from flows.registry import Registry
from flows.runtime.database import database_uri
from mulan_core.errors import UserError
from mulan_core.evaluation.evidence import FILE
from mulan_core.evaluation.report import write_report


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three reports: two of one set, by a noisy and by a clear model, and one of a smaller set."""
    base = tmp_path_factory.mktemp("reports")
    for name, noise, tracks in (("noisy", 6.0, 600), ("clear", 3.0, 600), ("small", 3.0, 300)):
        report, evidence = evaluate_both(
            **catalogue(noise=noise, tracks=tracks), config=CONFIG, set_info={"name": name[0], "title": "Made <up>"}
        )
        write_report(report, evidence, base / name / "inner")
        evidence.save(base / name / "inner" / FILE)
    return base


def test_two_folders_through_the_command(folders, tmp_path):
    done = mulan("compare", str(folders / "noisy"), str(folders / "clear"), "--out", "out", home=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "clear is better than noisy in " in shown and "differences stand" in shown
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.md", "compare.html", "compare.json"}
    again = result_of(mulan("compare", str(folders / "noisy"), str(folders / "clear"), "--json", home=tmp_path))
    assert again == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert again["metrics"]["tagging/genre/roc_auc"]["better"] == "b"
    refused(mulan("compare", str(folders / "noisy"), "nobody", home=tmp_path), "'nobody' is no alias or version")


def test_what_cannot_be_compared_is_one_sentence(folders, tmp_path):
    registry = Registry(database_uri(tmp_path / "mlflow.db"), tmp_path)

    def says(sentence: str, a: Path, b: Path, on: str | None = None) -> None:
        with pytest.raises(UserError, match=sentence):
            compare_named(str(a), str(b), registry, on=on)

    says("not measured on the same set", folders / "clear", folders / "small")
    says("holds no report.json", folders / "clear", tmp_path)
    says("holds reports on c, n, s; choose one with --on", folders / "clear", gathered(folders, tmp_path))
    assert compare_named(str(folders / "clear"), str(gathered(folders, tmp_path)), registry, on="n").metrics
    (tmp_path / "clear" / FILE).unlink()
    says(f"has a report but no {FILE}", folders / "noisy", gathered(folders, tmp_path), on="c")
    (tmp_path / "clear" / "report.json").write_text("[]")
    says("is not the report of an evaluation", folders / "noisy", tmp_path / "clear")


def gathered(folders: Path, tmp_path: Path) -> Path:
    """One folder with the reports on three sets, as ``mulan evaluate --out`` makes it."""
    for name in ("noisy", "clear", "small"):
        if not (tmp_path / name).exists():
            (tmp_path / name).mkdir()
            for file in (folders / name / "inner").iterdir():
                (tmp_path / name / file.name).write_bytes(file.read_bytes())
    return tmp_path

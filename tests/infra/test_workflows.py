"""The workflows of .github: what they run exists here, with little right and an end."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_exists_and_ends(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow[True]  # "on", which YAML 1.1 takes for a truth
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 90 and job["runs-on"] == "ubuntu-24.04", name
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]), step
            for target in re.findall(r"\bmake (\w+)", step.get("run", "")):
                assert target in TARGETS, target
            for script in re.findall(r"(?:^|\s)(\.\w[\w./]*/\w+)", step.get("run", "")):
                assert (ROOT / script).exists(), script


def test_every_kind_of_test_has_a_workflow_that_runs_it():
    said = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    assert {".ci/run", "make drills", "make load", "make demo", "make check", "pip-audit"} <= set(
        re.findall(r"make \w+|\.ci/run|pip-audit", said)
    )


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_issue_template_asks_for_something(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    assert all(part["attributes"]["label"] for part in form["body"])


def test_contributing_names_targets_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`?make ([a-z]+)`?(?=\s|`)", text)) - {"makes"} <= TARGETS

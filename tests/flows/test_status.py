"""``mulan status``: of an empty home, and of one where a champion stands."""

import subprocess
import sys

import pytest
from flow_fixtures import ROOT, environment, mulan, result_of

from flows.doctor.status import _differences

READING = [
    "doctor", "status", "release list", "release show champion", "release diff champion candidate", "keys list",
    "data list", "data sets", "data diff champion", "data check CSV", "data overlap CSV CSV", "lineage champion",
    "compare champion candidate", "search piano", "embed piano", "plan --tracks 1e6", "feedback export OUT",
]  # fmt: skip
LOOK = """
import sys
from pathlib import Path
from flows.cli import app as cli
csv, home, *commands = sys.argv[1:]
run = cli.app
for command in commands:
    words = command.replace("CSV", csv).replace("OUT", csv + ".jsonl").split()
    try:
        run(words, prog_name="mulan", standalone_mode=False)
    except Exception as error:
        assert isinstance(error, ValueError), (command, repr(error))
    there = [str(path) for path in Path(home).rglob("*")] if Path(home).exists() else None
    assert there == ([] if "empty" in home else None), (command, there)
"""


@pytest.mark.parametrize("name", ["absent/home", "empty"])
def test_who_looks_makes_nothing_and_says_nothing_foreign(tmp_path, name):
    (tmp_path / "m.csv").write_text("uri,text\na.wav,piano\n")
    home = tmp_path / name
    if name == "empty":
        home.mkdir()
    program = [sys.executable, "-c", LOOK, str(tmp_path / "m.csv"), str(home), *READING]
    done = subprocess.run(program, env=environment(home), cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"the database {home}/mlflow.db, which the first run makes" in done.stdout


def test_an_empty_home_has_nothing_and_says_so(tmp_path):
    done = mulan("status", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "none yet" in done.stdout and "nothing answers" in done.stdout


@pytest.mark.slow
def test_runs_and_champion_of_a_home(home, first):
    found = result_of(mulan("status", "--json", home=home))
    assert first["train"]["run_id"] in {run["run_id"] for run in found["runs"]} or len(found["runs"]) == 3
    assert found["champion"]["gate"] == "passed" and found["endpoint"] is None
    assert all(run["step"] for run in found["runs"] if run["status"] == "finished")
    assert "champion   version" in " ".join(mulan("status", home=home).stdout.split("\n"))


CHAMPION = {"version": "2", "gate": "passed", "data_hash": "a" * 8}
REFUSED = {"version": "3", "gate": "refused", "data_hash": "b" * 8}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ((CHAMPION, CHAMPION, {"model_version": "2"}, "a" * 32), []),
        ((CHAMPION, None, {"model_version": "1"}, None), ["serves version 1, the champion is 2"]),
        ((CHAMPION, REFUSED, None, None), ["candidate 3 was refused by the gate"]),
        ((CHAMPION, None, None, "c" * 32), ["is not the champion's"]),
        ((None, None, None, None), []),
    ],
)
def test_what_does_not_agree_is_named(state, said):
    found = _differences(*state)
    assert len(found) == len(said) and all(part in sentence for part, sentence in zip(said, found, strict=True))

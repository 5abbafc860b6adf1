"""``mulan status``: of an empty home, and of one where a champion stands."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from urllib.parse import parse_qs, urlparse

import mlflow
import pytest
from flow_fixtures import ROOT, environment, mulan, promote, result_of

from flows.cli.status import status as show_status
from flows.doctor.addresses import check_edits, check_switch
from flows.doctor.status import _differences, find_status, mlflow_pages
from flows.registry import Registry
from flows.runtime.catalogues import Catalogue, note_use, read_records
from flows.runtime.file_lock import try_lock
from flows.runtime.journal import FILE, Journal, Standing, write_journal
from flows.runtime.settings import read_settings
from flows.runtime.stack_file import LOCK, Stack, write_owner, write_stack
from flows.runtime.storage import open_edits
from flows.runtime.tracking import tracking
from flows.runtime.workspace import workspace_of
from flows.runtime.workspace_lock import hold_switch

READING = [
    "doctor", "status", "release list", "release show champion", "release diff champion candidate", "keys list",
    "data list", "data sets", "data diff champion", "data check CSV", "data overlap CSV CSV", "lineage champion",
    "compare champion candidate", "catalogue list", "catalogue edits", "search piano", "embed piano",
    "estimate --tracks 1e6", "feedback export OUT",
]  # fmt: skip
LOCK_OF_DVC = "stages: {{prepare: {{outs: [{{path: data/prepared, md5: {}.dir}}]}}}}"
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


def test_each_catalogue_shows_its_own_trainings(tmp_path, monkeypatch):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings, own = read_settings(), {}
    for number, name in enumerate(("songs", "tones")):
        folder = workspace_of(tmp_path, f"{name}.csv").folder
        (folder / ".dvc/cache/files/md5").mkdir(parents=True)
        for file in ("params.yaml", "dvc.yaml"):
            (folder / file).write_text("{}")
        now, before = (letter * 32 for letter in ("ab", "cd")[number])
        (folder / "dvc.lock").write_text(LOCK_OF_DVC.format(now))
        (folder / ".dvc/cache/files/md5" / before[:2]).mkdir()
        (folder / ".dvc/cache/files/md5" / before[:2] / f"{before[2:]}.dir").touch()
        note_use(tmp_path, folder)
        own[name] = [before, now]
    monkeypatch.setattr("flows.doctor.status.RUNS_PER_PAGE", 2)
    runs = {}
    with tracking(settings.mlflow_uri):
        for data_hash in (*own["songs"], *own["tones"] * 3, "e" * 32):
            with mlflow.start_run(tags={"mulan.train_key": "k", "mulan.kind": "train", "mulan.data_hash": data_hash}):
                runs.setdefault(data_hash, []).append(mlflow.active_run().info.run_id)

    def shown(name):
        found = find_status(settings, read_records(tmp_path).named(name))["runs"]
        return [run["run_id"] for run in found]

    assert set(shown("songs")) == {runs[data_hash][0] for data_hash in own["songs"]}
    assert len(shown("tones")) == 3 and set(shown("tones")) <= {run for one in own["tones"] for run in runs[one]}
    assert shown("demo") == [], "the working folder is no workspace and nothing is registered"
    demo = Registry.of(settings, Catalogue("demo"))
    with tracking(settings.mlflow_uri) as client:
        client.create_registered_model(demo.name)
        client.create_model_version(demo.name, str(tmp_path), run_id=runs["e" * 32][0])
        borrowed = client.create_model_version(demo.name, str(tmp_path), run_id=runs["a" * 32][0])
        client.set_model_version_tag(demo.name, borrowed.version, "mulan.trained_on", "a" * 32)
    assert shown("demo") == runs["e" * 32], "a registered one, though its data is gone; not a borrowed one's"


def test_what_starts_and_what_others_run_is_told(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    settings = read_settings()
    songs = note_use(tmp_path, workspace_of(tmp_path, "songs.csv").folder)
    (state := songs.state(tmp_path)).mkdir(parents=True)

    def said(name):
        show_status(name)
        return [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]

    assert "running nothing of it" in said("songs") and find_status(settings, songs)["starting"] is None
    with (state / LOCK).open("a") as lock:
        lock.write("what an owner that was killed has left")
        assert try_lock(lock)
        owner = write_owner(lock)
        assert find_status(settings, songs)["starting"] == {"pid": os.getpid(), "started": owner.started}
        assert f"running starting (process {os.getpid()}, since {owner.started})" in said("songs")
        assert "served nothing answers yet; what runs for it is still starting" in said("songs")
        assert "running nothing of it; of other catalogues: songs" in said("demo")
        assert "served nothing answers; `mulan serve` would" in said("demo")
        write_stack(state, Stack("a", "b", "c", "", owner.pid, owner.started, "http://127.0.0.1:1"))
        assert f"running process {os.getpid()} since {owner.started}" in said("songs")
        assert (
            "served nothing answers yet; what runs for it is still starting" in said("songs")
            and find_status(settings, songs)["starting"] is None
        )


CHAMPION = {"version": "2", "gate": "passed", "judged_on": None, "data_hash": "a" * 8}
REFUSED = {"version": "3", "gate": "refused", "judged_on": None, "data_hash": "b" * 8}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ((CHAMPION, CHAMPION, {"model_version": "2"}, "a" * 32), []),
        ((CHAMPION, None, {"model_version": "1"}, None), ["serves version 1, the champion is 2"]),
        ((CHAMPION, REFUSED, None, None), ["candidate 3 was refused by the gate"]),
        (
            (CHAMPION, CHAMPION | {"version": "3", "judged_on": "demo"}, None, None),
            ["candidate 3 passed the gate (measured on demo) and"],
        ),
        ((CHAMPION, None, None, "c" * 32), ["is not the champion's"]),
        ((None, None, None, None), []),
    ],
)
def test_what_does_not_agree_is_named(state, said):
    found = _differences(*state)
    assert len(found) == len(said) and all(part in sentence for part, sentence in zip(said, found, strict=True))


def test_pages_of_mlflow_are_named_by_their_addresses(tmp_path, monkeypatch):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    settings, url = read_settings(), "http://127.0.0.1:5000"
    assert mlflow_pages(settings, url) == {"MLflow UI": url}, "nothing was ever run"
    registry, runs = Registry.of(settings, Catalogue("demo")), {}
    with tracking(settings.mlflow_uri) as client:
        client.create_registered_model(registry.name)
        for number in ("1", "2"):
            with mlflow.start_run() as run:
                runs[number] = run.info.run_id
            client.create_model_version(registry.name, str(tmp_path), run_id=runs[number])
            client.set_model_version_tag(registry.name, number, "mulan.gate", "passed")
        experiment = run.info.experiment_id
    assert mlflow_pages(settings, url) == {"MLflow UI": f"{url}/#/experiments/{experiment}/runs"}

    def compared():
        address = urlparse(mlflow_pages(settings, url)["candidate beside champion"]).fragment
        asked = parse_qs(urlparse(address).query)
        assert urlparse(address).path == "/compare-runs" and json.loads(asked["experiments"][0]) == [experiment]
        return json.loads(asked["runs"][0])

    registry.nominate("1", {}, card="")
    promote(registry, "1")
    assert "candidate beside champion" not in mlflow_pages(settings, url), "the first has none before it"
    registry.nominate("2", {}, card="")
    assert compared() == [runs["2"], runs["1"]]
    promote(registry, "2")
    assert compared() == [runs["2"], runs["1"]], "beside the one that it took the place of"


def test_a_damaged_record_of_an_edit_is_found_by_the_doctor(tmp_path, monkeypatch):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    edits = open_edits(read_settings(), Catalogue("demo"))
    with edits.deleting("a", row_hash="ab"):
        pass
    assert list(check_edits(read_settings())) == []
    (record,) = edits.folder.iterdir()
    record.write_text("{")
    (finding,) = check_edits(read_settings())
    assert finding.level == "failure" and finding.said.startswith(f"{record} is damaged")
    assert finding.todo.startswith("put it back from a copy, or delete it")


@pytest.mark.parametrize("at_work", [True, False])
def test_a_switch_that_has_not_ended_is_named(at_work, tmp_path, monkeypatch):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text("{}")
    assert list(check_switch(read_settings())) == [] and find_status(read_settings())["differences"] == []
    write_journal(tmp_path, Journal.begin(Standing(["1"], "tracks_1"), Standing(["1", "2"], "tracks_2")))
    with hold_switch(tmp_path) if at_work else nullcontext():
        (finding,) = check_switch(read_settings())
        (difference,) = find_status(read_settings())["differences"]
    assert difference == f"{finding.said}; {finding.todo}" and finding.level == "warning"
    assert difference.startswith("the switch from version 1 to version 2 (process ")
    assert ("is under way; wait for process" if at_work else "was cut off; the next command that serves") in difference
    (tmp_path / FILE).write_text("{")
    (finding,) = check_switch(read_settings())
    assert finding.level == "failure" and "it is damaged" in finding.said and finding.todo.startswith("delete it")

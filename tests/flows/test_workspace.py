"""Workspaces: the checkout, another demo size, an own catalogue."""

import json
import os

import pyarrow.parquet as pq
import pytest
import typer
import yaml
from flow_fixtures import ROOT
from typer.testing import CliRunner

from flows.cli.app import app
from flows.doctor.machine import check_data
from flows.doctor.status import find_status
from flows.pipeline.data import reproduce
from flows.runtime.catalogue_tables import read_report
from flows.runtime.dvc_repo import run_dvc
from flows.runtime.settings import read_settings
from flows.runtime.workspace import SET_CATALOGUES, find_workspace, open_workspace, write_set_catalogues
from mulan_core.config import load_config
from mulan_core.data.rows import hashed_split
from mulan_core.data.tracks import read_manifest
from mulan_core.errors import UserError


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"one")
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"uri": "a.wav", "text": "calm"}))
    return path


def catalogue_of(workspace):
    return read_manifest(workspace.folder / workspace.config.catalogue / "manifest.parquet").to_pylist()


def test_an_own_manifest_gets_a_dvc_project_with_absolute_uris(tmp_path, manifest):
    workspace = open_workspace(tmp_path / "home", manifest=manifest)
    assert (workspace.folder / ".dvc").is_dir()
    assert catalogue_of(workspace)[0]["uri"] == str(tmp_path / "a.wav")
    assert yaml.safe_load((workspace.folder / "dvc.yaml").read_text())["stages"].keys() == {
        "judge",
        "text",
        "prepare",
        "set",
    }
    assert open_workspace(tmp_path / "home", manifest=manifest).folder == workspace.folder


@pytest.mark.parametrize("written", [None, "", "[core]\n    no_scm = True\n    analytics = false\n"])
def test_a_workspace_whose_making_was_interrupted_is_finished(tmp_path, manifest, written):
    settings = open_workspace(tmp_path / "home", manifest=manifest).folder / ".dvc" / "config"
    whole = settings.read_text()
    assert "hardlink,copy" in whole and "remote" not in whole, "data lie once unless a remote is asked for"
    settings.unlink() if written is None else settings.write_text(written)
    kept = settings.parent / "cache" / "files" / "md5" / "00" / "1"
    kept.parent.mkdir(parents=True)
    kept.write_text("data")
    open_workspace(tmp_path / "home", manifest=manifest)
    assert kept.read_text() == "data"
    assert sorted(settings.read_text().split()) == sorted(whole.split())


def test_a_changed_file_changes_what_dvc_sees(tmp_path, manifest):
    before = catalogue_of(open_workspace(tmp_path / "home", manifest=manifest))
    assert catalogue_of(open_workspace(tmp_path / "home", manifest=manifest)) == before
    (tmp_path / "a.wav").write_bytes(b"another")
    assert catalogue_of(open_workspace(tmp_path / "home", manifest=manifest)) != before


def test_manifests_of_one_name_in_two_folders_do_not_meet(tmp_path, manifest):
    other = tmp_path / "other" / manifest.name
    other.parent.mkdir()
    other.write_text(manifest.read_text())
    home = tmp_path / "home"
    assert open_workspace(home, manifest=manifest).folder != open_workspace(home, manifest=other).folder


def test_playlists_of_a_player_become_texts_and_queries(tmp_path):
    """In the workspace's tables they are as if they had been typed, and what was not found is told beside them."""
    folder = tmp_path / "music"
    folder.mkdir()
    (tmp_path / "lists").mkdir()
    for name in "abc":
        (folder / f"{name}.wav").write_bytes(b"data")
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"uri": f"music/{name}.wav", "track_id": name, "split": "train"}) + "\n" for name in "abc")
    )
    titles = [f"mood {number}" for number in range(8)]
    for title in titles:
        (tmp_path / "lists" / f"{title}.m3u").write_text("../music/a.wav\nC:\\music\\b.wav\n../music/gone.wav\n")
    options = {"manifest": tmp_path / "t.jsonl", "playlists": tmp_path / "lists"}
    workspace = open_workspace(tmp_path / "home", **options)
    catalogue = workspace.folder / workspace.config.catalogue
    queries = {
        row["title"] for row in pq.read_table(catalogue / "playlists.parquet").to_pylist() if row["split"] == "test"
    }
    texts = [{text["text"] for text in row["texts"] if text["source"] == "pl"} for row in catalogue_of(workspace)]
    assert queries and texts[0] == texts[1] == set(titles) - queries and texts[2] == set()
    report = read_report(catalogue)["playlists"]
    assert (report["playlists"], report["by_path"], len(report["unmatched"])) == (8, 16, 8)
    assert catalogue_of(open_workspace(tmp_path / "home", **options)) == catalogue_of(workspace), "nothing comes twice"


def test_evaluation_sets_get_catalogues_of_their_own(tmp_path, manifest, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lists = {"playlist_id": "p", "title": "Calm", "track_ids": ["a"]}
    (tmp_path / "lists.jsonl").write_text(json.dumps(lists))
    numbers = tmp_path / "numbers.yaml"
    sets = {"mine": {"manifest": "mine.jsonl", "playlists": "lists.jsonl"}, "other": {"manifest": "mine.jsonl"}}
    numbers.write_text(yaml.safe_dump({"evaluate": {"sets": sets}}))
    workspace = open_workspace(tmp_path / "home", manifest=manifest, params=numbers)
    monkeypatch.chdir(workspace.folder)  # paths are the user's, not the workspace's
    write_set_catalogues(workspace)
    catalogues = workspace.folder / SET_CATALOGUES
    (row,) = read_manifest(catalogues / "mine" / "manifest.parquet").to_pylist()
    assert (row["uri"], row["split"]) == (str(tmp_path / "a.wav"), "test")
    assert catalogue_of(workspace)[0]["split"] == hashed_split(row["track_id"])
    assert (catalogues / "mine" / "playlists.parquet").exists() and not (
        catalogues / "other" / "playlists.parquet"
    ).exists()
    monkeypatch.chdir(tmp_path)
    numbers.write_text(yaml.safe_dump({"evaluate": {"sets": {"mine": {"manifest": "gone.jsonl"}}}}))
    again = open_workspace(tmp_path / "home", manifest=manifest, params=numbers)
    with pytest.raises(UserError, match=r"evaluate\.sets\.mine: there is no file"):
        write_set_catalogues(again)
    assert [path.name for path in catalogues.iterdir()] == ["mine"]


def test_another_demo_size_leaves_the_checkout_alone(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text("corpus: {size: 10}\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    assert open_workspace(tmp_path / "home").folder == tmp_path
    assert open_workspace(tmp_path / "home", size=10).folder == tmp_path
    larger = open_workspace(tmp_path / "home", size=20)
    assert larger.config.corpus.size == 20
    assert load_config(tmp_path / "params.yaml").corpus.size == 10


def test_outside_a_checkout_the_demo_has_a_workspace_in_the_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run `mulan demo` first"):
        open_workspace(tmp_path / "home")
    made = open_workspace(tmp_path / "home", demo=True)
    assert made.config == load_config(ROOT / "params.yaml")
    assert open_workspace(tmp_path / "home").folder == made.folder


@pytest.mark.parametrize("name", ["{x}", "a{", "}", "new\nline", "tab\there", "\udcff"])
def test_a_folder_in_which_a_tool_fails_is_refused_at_once(name, tmp_path, manifest):
    with pytest.raises(UserError, match=r"^[^\n]+ choose another folder \(MULAN_HOME\)$"):
        open_workspace(tmp_path / name / "home", manifest=manifest)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        (b"<<<<<<< HEAD\nschema: '2.0'\n=======\n>>>>>>> b\n", "it holds merge markers"),
        (b"", "it is empty"),
        (b"schema: '2.0'\nstages:\n  prepare:\n    cm", "it is damaged"),
        (b"\x00\xff\x12", "it is damaged"),
        (b"[1, 2]", "it is damaged"),
        (b"stages: 3", "it is damaged"),
        (b"stages: {prepare: {outs: []}}", "it is damaged"),
        (b"stages: {prepare: {outs: [{md5: 12}]}}", "it is damaged"),
    ],
)
def test_a_damaged_dvc_lock_is_one_sentence_to_whoever_asks(lock, said, tmp_path, manifest, monkeypatch):
    home = tmp_path / "home"
    workspace = open_workspace(home, manifest=manifest)
    (workspace.folder / "dvc.lock").write_bytes(lock)
    monkeypatch.chdir(workspace.folder)
    monkeypatch.setenv("MULAN_HOME", str(home))
    heard = set()
    for ask in (
        lambda: open_workspace(home, manifest=manifest).data_hash,
        lambda: find_workspace(home).data_hash,
        lambda: reproduce(workspace),
        lambda: find_status(read_settings()),
    ):
        with pytest.raises(UserError, match=r"^[^\n]+$") as error:
            ask()
        heard.add(str(error.value))
    (sentence,) = heard
    assert f"{workspace.folder / 'dvc.lock'} cannot be read ({said})" in sentence and "`mulan prepare`" in sentence
    (finding,) = check_data(read_settings())
    assert finding.level == "failure" and f"{finding.said}; {finding.todo}" == sentence


def test_a_damaged_configuration_of_dvc_is_named(tmp_path, manifest):
    workspace = open_workspace(tmp_path / "home", manifest=manifest)
    (workspace.folder / ".dvc" / "config").write_text("[core\n  analytics = \x00")
    with pytest.raises(UserError, match=r"^[^\n]+/\.dvc/config is damaged [^\n]+`mulan prepare`[^\n]+$"):
        run_dvc(["status", "-q"], workspace.folder)


def test_reading_a_workspace_writes_nothing(tmp_path, manifest):
    home = tmp_path / "home"
    with pytest.raises(UserError, match="nothing was prepared of"):
        find_workspace(home, manifest=manifest)
    assert not home.exists()
    folder = open_workspace(home, manifest=manifest, params=ROOT / "params.yaml").folder
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in home.rglob("*") if path.is_file()}
    found = find_workspace(home, manifest=manifest)
    assert found.folder == folder and found.config.model == load_config(ROOT / "params.yaml").model
    numbers = tmp_path / "numbers.yaml"
    numbers.write_text("train: {steps: 7}\n")
    assert find_workspace(home, manifest=manifest, params=numbers).config.train.steps == 7
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in home.rglob("*") if path.is_file()} == before


def test_params_are_differences_from_what_the_workspace_keeps(tmp_path, manifest):
    own = load_config(ROOT / "configs" / "own.yaml")
    file = tmp_path / "p.yaml"

    def opened(text=None):
        if text is not None:
            file.write_text(text)
        return open_workspace(tmp_path / "home", manifest=manifest, params=None if text is None else file).config

    first = opened("train: {steps: 7}\ngate: {floors: {a: 0.1}}\n")
    assert (first.train.steps, first.gate.floors) == (7, {"a": 0.1}), "a table of names is exchanged as a whole"
    assert first.train.batch_size == own.train.batch_size and first.model == own.model
    assert opened() == first, "no file is no difference"
    second = opened("train: {batch_size: 32}\nprepare: {allow_outside: true}\n")
    assert (second.train.steps, second.train.batch_size, second.gate.floors) == (7, 32, {"a": 0.1})
    assert opened("") == second and second.prepare.allow_outside
    with pytest.raises(UserError, match=r"p\.yaml: unknown key 'train\.stepz'"):
        opened("train: {stepz: 1}")
    with pytest.raises(UserError, match=r"p\.yaml: train\.batch_size 33 does not divide by num_workers 2"):
        opened("train: {batch_size: 33}")
    assert opened() == second, "a wrong file changes nothing"
    kept = find_workspace(tmp_path / "home", manifest=manifest).folder / "params.yaml"
    kept.write_text(kept.read_text().replace("checkpoint_selection", "keep"))
    with pytest.raises(UserError, match=r"'train\.keep'; it is called checkpoint_selection now; .* or delete .*own"):
        opened()
    kept.unlink()
    assert opened().train.steps == own.train.steps


WORKING = {
    *("run", "prepare", "train", "evaluate", "index", "ablate", "tune", "serve", "data pull"),
    *("release promote", "release rollback", "release shadow", "release prune"),
}
"""Commands that take a manifest and work on its workspace; all others only read."""


def test_commands_that_read_write_no_file_of_a_workspace(tmp_path, manifest, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("MULAN_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text("train: {steps: 7}\n")
    open_workspace(home, manifest=manifest)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in home.rglob("*") if path.is_file()}
    tried = []
    for path, command in commands_of(typer.main.get_command(app)):
        options = {option.name for option in command.params}
        if "manifest" not in options or path in WORKING:
            continue
        needed = [option.name for option in command.params if option.required]
        words = [*path.split(), *(str(manifest) if name == "manifest" else "champion" for name in needed)]
        words += [] if "manifest" in needed else ["--manifest", str(manifest)]
        words += ["--params", "p.yaml"] if "params" in options else []
        CliRunner().invoke(app, words)
        tried.append(path)
        after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in home.rglob("*") if path.is_file()}
        assert {path: after.get(path) for path in before} == before, words
    assert {"data check", "data sets", "data diff", "lineage", "release diff", "text report"} <= set(tried)


def commands_of(command, path=""):
    """Every command below one, with its words."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands_of(inner, f"{path} {name}".strip())
    if not hasattr(command, "commands"):
        yield path, command


def test_nothing_prepared_says_what_to_do(tmp_path, manifest):
    with pytest.raises(UserError, match="run `mulan prepare` first"):
        _ = open_workspace(tmp_path / "home", manifest=manifest).data_hash


def test_options_without_a_manifest_are_refused_instead_of_ignored(tmp_path):
    with pytest.raises(UserError, match="go with --manifest"):
        open_workspace(tmp_path, playlists="p.jsonl")


def test_settings_read_the_environment_alone(tmp_path, monkeypatch):
    from flows.runtime.settings import read_settings

    monkeypatch.setenv("MULAN_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    monkeypatch.setenv("MULAN_MILVUS_URI", "http://milvus:19530")
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    settings = read_settings()
    assert settings.home == tmp_path / "h"
    assert settings.mlflow_uri == "http://tracking:5000"
    assert settings.milvus_uri == "http://milvus:19530"
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "h" / "prefect")


def test_an_empty_home_is_the_usual_one(tmp_path, monkeypatch):
    from flows.runtime.settings import read_settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULAN_HOME", "")
    assert read_settings().home == tmp_path / ".mulan"

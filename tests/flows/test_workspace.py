"""Workspaces: the checkout, another demo size, an own catalogue."""

import json
import os

import pytest
import yaml
from flow_fixtures import ROOT

from flows.workspace import SET_CATALOGUES, open_workspace, write_set_catalogues
from mulan_core.config import load_config
from mulan_core.data.tracks import hashed_split, read_manifest
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


def test_nothing_prepared_says_what_to_do(tmp_path, manifest):
    with pytest.raises(UserError, match="run `mulan prepare` first"):
        _ = open_workspace(tmp_path / "home", manifest=manifest).data_hash


def test_options_without_a_manifest_are_refused_instead_of_ignored(tmp_path):
    with pytest.raises(UserError, match="go with --manifest"):
        open_workspace(tmp_path, playlists="p.jsonl")


def test_settings_read_the_environment_alone(tmp_path, monkeypatch):
    from flows.settings import read_settings

    monkeypatch.setenv("MULAN_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    monkeypatch.setenv("MULAN_MILVUS_URI", "http://milvus:19530")
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    settings = read_settings()
    assert settings.home == tmp_path / "h"
    assert settings.mlflow_uri == "http://tracking:5000"
    assert settings.milvus_uri == "http://milvus:19530"
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "h" / "prefect")

"""A home that was moved, copied or has another name: its records name it where it is, and never the old place."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from flow_fixtures import ROOT
from mlflow.tracking._tracking_service import utils

from flows.runtime.database import database_uri
from flows.runtime.moved import FILE, read_places, settle
from flows.runtime.tracking import reading, tracking
from flows.runtime.workspace import find_workspace, open_workspace
from mulan_core.errors import UserError
from serving.media import locate_media
from serving.places import Places
from serving.tracks import Track

OLD = "the old?home %20 ü"


MAKE = """
import sys
from pathlib import Path
import mlflow
from flows.runtime.database import database_uri
from flows.runtime.moved import settle
from flows.runtime.tracking import tracking

home = Path(sys.argv[1])
with tracking(database_uri(home / "mlflow.db")) as client:
    with mlflow.start_run() as run:
        mlflow.log_dict({"a": 1}, "x/y.json")
        mlflow.set_tag("mulan.checkpoint", f"{home}/ray_results/train-1/checkpoint_1")
        mlflow.set_tag("of another place", f"{home}-2/x")
        mlflow.set_tag("a sentence", f"it was in {home}/x")
    client.create_registered_model("mulan")
    tags = {"mulan.media_root": str(home / "audio")}
    client.create_model_version("mulan", f"{run.info.artifact_uri}/x", run.info.run_id, tags=tags)
settle(home, home / "mlflow.db", note=True)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with a run, a version and its tags, as another process leaves it: MLflow remembers a run's place."""
    home = tmp_path_factory.mktemp("made") / OLD
    home.mkdir()
    subprocess.run([sys.executable, "-c", MAKE, home], cwd=ROOT, check=True, capture_output=True)
    return home


@pytest.fixture
def old(made, tmp_path):
    """A copy of it that was corrected, so that it is a home of its own."""
    home = tmp_path / OLD
    shutil.copytree(made, home)
    settle(home, home / "mlflow.db")
    return home


def strings_of(home):
    """All that the database says, as one text."""
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        return "\n".join(database.iterdump())


def everything_of(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("way", ["moved", "copied"])
def test_what_is_read_and_written_is_here(way, made, old, tmp_path, capsys):
    new = tmp_path / "new#home [1]"
    (shutil.move if way == "moved" else shutil.copytree)(old, new)
    before = everything_of(old)
    utils._artifact_repos_cache.clear()  # of MLflow's, in which the runs are where another test has them
    with tracking(database_uri(new / "mlflow.db")) as client:
        assert f"was {old} before" in (said := capsys.readouterr().err) and said.count("\n") == 1
        (run,) = client.search_runs(["1"])
        assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/x/y.json") == {"a": 1}
        version = client.get_model_version("mulan", "1")
        assert version.tags["mulan.media_root"] == str(new / "audio")
        assert run.data.tags["mulan.checkpoint"] == f"{new}/ray_results/train-1/checkpoint_1"
        assert run.data.tags["of another place"] == f"{made}-2/x"
        assert run.data.tags["a sentence"] == f"it was in {made}/x"
        downloaded = mlflow.artifacts.download_artifacts("models:/mulan/1", dst_path=str(tmp_path / "fetched"))
        assert (Path(downloaded) / "y.json").is_file()
        with mlflow.start_run(run_id=run.info.run_id):
            mlflow.log_dict({"b": 2}, "x/z.json")
        with mlflow.start_run():
            mlflow.log_dict({"c": 3}, "new.json")
    assert everything_of(old) == before and old.exists() is (way == "copied")
    assert old.as_uri() not in strings_of(new) and f"{old}/" not in strings_of(new)
    assert [path.name for path in new.rglob("z.json")] == ["z.json"]
    with reading(database_uri(new / "mlflow.db")):
        pass
    assert capsys.readouterr().err == ""  # once


def test_it_may_move_again_and_back(old, tmp_path):
    other = tmp_path / "other"
    shutil.move(old, other)
    settle(other, other / "mlflow.db")
    assert read_places(other).before[-1] == str(old)
    shutil.move(other, old)
    settle(old, old / "mlflow.db")
    places = read_places(old)
    assert places.before[-1] == str(other) and str(old) not in places.before
    assert other.as_uri() not in strings_of(old)
    assert places.here(f"{other}/audio/a.wav") == f"{old}/audio/a.wav"


def test_a_home_of_an_earlier_version_has_no_note_and_is_known_by_its_database(old, tmp_path):
    (old / FILE).unlink()
    new = tmp_path / "new"
    shutil.copytree(old, new)
    settle(new, new / "mlflow.db")
    assert old.as_uri() not in strings_of(new) and read_places(new).before == (str(old),)


def test_a_home_whose_mlflow_is_a_server_goes_by_its_note(tmp_path, capsys):
    settle(tmp_path / "a", None, note=False)
    (tmp_path / "a").mkdir()
    settle(tmp_path / "a", None, note=True)
    shutil.move(tmp_path / "a", tmp_path / "b")
    settle(tmp_path / "b", None)
    assert read_places(tmp_path / "b") == Places(tmp_path / "b", (str(tmp_path / "a"),))
    assert str(tmp_path / "b") in capsys.readouterr().err


def test_the_same_folder_by_another_name_is_left_alone(old, tmp_path):
    before = everything_of(old)
    (tmp_path / "link").symlink_to(old)
    settle(tmp_path / "link", tmp_path / "link" / "mlflow.db")
    assert everything_of(old) == before


def test_a_database_that_was_copied_alone_is_left_alone(old, tmp_path):
    (tmp_path / "alone").mkdir()
    shutil.copy(old / "mlflow.db", tmp_path / "alone" / "mlflow.db")
    with reading(database_uri(tmp_path / "alone" / "mlflow.db")) as client:
        (run,) = client.search_runs(["1"])
        assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/x/y.json") == {"a": 1}
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["mlflow.db"]


def test_what_cannot_be_corrected_is_told(old, tmp_path, monkeypatch):
    new = tmp_path / "new"
    shutil.copytree(old, new)
    before = everything_of(new)

    def refuse(*_):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr("flows.runtime.moved._rewrite", refuse)  # root may write anywhere
    with pytest.raises(UserError, match=r"^[^\n]+ cannot be corrected \(attempt to write a readonly database\)"):
        settle(new, new / "mlflow.db")
    assert everything_of(new) == before


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b'{"places": 3}', b"\xff\xfe"])
def test_a_damaged_note_is_no_note(note, old):
    (old / FILE).write_bytes(note)
    settle(old, old / "mlflow.db", note=True)
    assert read_places(old) == Places(old) and json.loads((old / FILE).read_text())["places"] == [str(old)]


def test_the_workspace_of_a_catalogue_within_the_home_is_found_again(tmp_path, monkeypatch):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "a.wav").write_bytes(b"one")
    (old / "mine.csv").write_text("uri,text\na.wav,calm\n")
    settle(old, None, note=True)
    folder = open_workspace(old, manifest=old / "mine.csv").folder
    shutil.move(old, new)
    settle(new, None)
    assert find_workspace(new, manifest=new / "mine.csv").folder.name == folder.name
    assert open_workspace(new, manifest=new / "mine.csv").folder == new / "workspaces" / folder.name
    assert not old.exists()


def test_audio_plays_from_where_the_home_is(tmp_path):
    (tmp_path / "new" / "audio").mkdir(parents=True)
    (tmp_path / "new" / "audio" / "a.wav").write_bytes(b"x")
    places = Places(tmp_path / "new", (str(tmp_path / "old"), "/first"))
    for place in (tmp_path / "old", "/first", tmp_path / "new"):
        fields = {"title": "", "artist": "", "dataset": "", "labels": [], "media_path": f"{place}/audio/a.wav"}
        path, kind = locate_media(Track(track_id="a", **fields), tmp_path / "new" / "audio", places.here)
        assert (path, kind) == (tmp_path / "new" / "audio" / "a.wav", "audio/wav")
    assert places.here("/elsewhere/a.wav") == "/elsewhere/a.wav"
    assert places.here(f"{tmp_path}/older/a.wav") == f"{tmp_path}/older/a.wav"
    assert places.earlier(str(tmp_path / "new" / "x")) == [f"{tmp_path}/old/x", "/first/x"]

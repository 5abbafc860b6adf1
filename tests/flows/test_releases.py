"""Releases: the same model over changed data, promoted, compared, rolled back, and which collections are old."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest
import soundfile
from flow_fixtures import environment, mulan, promote, result_of
from prepared_fixtures import tone
from typer.testing import CliRunner

from flows.cli.app import app
from flows.pipeline.release import collections_to_drop
from flows.registry import Registry
from flows.runtime.catalogues import note_use
from flows.runtime.database import database_uri
from flows.runtime.settings import read_settings
from flows.runtime.tracking import tracking
from flows.runtime.workspace import workspace_of
from mulan_core.errors import UserError

CHANGES = {"added": ["new"], "removed": ["t3"], "changed": ["t1"]}
"""Of which recording and texts: a title is none of these."""
CHANGED = ("tones.jsonl", None, "params.yaml")
SWITCHES = f"""
import json, os, sys
from dataclasses import replace
from pathlib import Path
from flows.runtime.session import open_session
from flows.runtime.workspace import open_workspace
from mulan_core.errors import UserError

with open_session{CHANGED} as session:
    from flows.pipeline.index import index
    from flows.pipeline.prepare import prepare
    from flows.pipeline.release import promote, prune, rollback, serve

    def tracks():
        live = session.store.collections.live_collection()
        ids = [track_id for page in session.store.scroll(live) for track_id, _ in page]
        windows = session.store.windows.get(ids, collection=live)
        return [sorted(ids), sorted({{window["track_id"] for window in windows}})]

    fields = {{"title": "", "artist": "", "dataset": "added", "labels": []}}
    with session.edits.adding("of the api", fields, Path("kept.flac").read_bytes(), row_hash=None):
        pass
    with session.edits.deleting("t7", row_hash="of its row"):
        pass
    done = {{"version": session.registry.find("champion").number}}
    done |= {{"collection": session.store.collections.live_collection()}}
    done |= {{"prepare": prepare(), "index": index(model="champion", promote=False)}}
    done["stands"] = index(model="champion", promote=False)["built"]
    done["promote"] = promote(version=done["index"]["version"])
    done["live"], done["tracks"] = session.store.collections.live_collection(), tracks()
    done["prune"] = prune(keep=1)
    done["rollback"] = rollback()
    done["live again"], done["tracks again"] = session.store.collections.live_collection(), tracks()

    config = session.workspace.config
    broken = replace(config.serve, autoscaling={{"target_ongoing_requests": 0}})
    session.workspace.__dict__["config"] = replace(config, serve=broken)
    try:
        serve(version=done["index"]["version"])
    except UserError as error:
        done["refused"] = str(error)
    done["after refusal"] = [session.registry.find("champion").number, session.store.collections.live_collection()]
    os.replace("kept.jsonl", "tones.jsonl")
    open_workspace(session.settings.home, manifest="tones.jsonl", params="params.yaml")
    done["as before"] = prepare()["data_hash"]
    for track_id in ("of the api", "t7"):
        session.edits.forget(track_id)
    done["index again"], done["tracks as before"] = index(model="champion"), tracks()
sys.__stdout__.write(json.dumps(done, default=str))
"""


@pytest.fixture(scope="module")
def done(home, first):
    """One track more, one less, one of another title and one of other audio, under the champion's model.

    Other tests may have promoted another champion than the first run's, hence ``version`` and ``collection``. The
    table is put back at the end, and the data with it.
    """
    before = _vectors_made(home)
    rows = [json.loads(line) for line in (home / "tones.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row.get("track_id") not in ("t3", None)]
    rows[0]["title"] = "Another title"
    soundfile.write(home / "new.wav", tone("low", "smooth", seed=99), 16_000)
    soundfile.write(home / "other.wav", tone("high", "smooth", seed=98), 16_000)
    soundfile.write(home / "kept.flac", tone("low", "buzzing", seed=97), 16_000)
    rows[1]["uri"] = "other.wav"
    rows.append(rows[2] | {"track_id": "new", "uri": "new.wav", "title": "New", "split": "train"})
    (home / "tones.jsonl").rename(home / "kept.jsonl")
    (home / "tones.jsonl").write_text("\n".join(json.dumps(row | {"dataset": "tones"}) for row in rows))
    command = [sys.executable, "-c", SWITCHES]
    result = result_of(subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True))
    return result | {"made": [after - then for after, then in zip(_vectors_made(home), before, strict=True)]}


def _vectors_made(home):
    """Vectors of tracks, and of windows, that any model has made so far."""
    parts = list((home / "embeddings").glob("*/part-*.parquet"))
    windows = [path for path in parts if path.parent.name.endswith("-windows")]
    return [sum(pq.read_metadata(path).num_rows for path in of) for of in (set(parts) - set(windows), windows)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_same_model_over_changed_data_is_a_release_of_its_own(done):
    built = done["index"]
    assert built["version"] != done["version"] and built["collection"] != done["collection"]
    assert built["changes"] == {"new": 1, "changed": 2, "removed": 1, "unchanged": 56}, "t7 is the API's"
    assert (built["count"], built["built"], built["promoted"], done["stands"]) == (59, True, False, False)
    assert done["made"] == [2, 4], "only the new and the changed audio was embedded"
    assert built["windows"] == 2 * built["count"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_is_promoted_and_rolled_back(home, done):
    old, new = done["collection"], done["index"]["collection"]
    assert (done["promote"]["release"]["collection"], done["live"], done["promote"]["url"]) == (new, new, None)
    assert {old, new} <= set(done["prune"]["kept"]) and not {old, new} & set(done["prune"]["dropped"])
    assert (done["rollback"]["release"]["collection"], done["live again"]) == (old, old)
    assert Registry(database_uri(home / "mlflow.db"), home, "mulan-tones").champions()[-1] == done["version"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_the_api_did_is_in_each_release_until_it_is_taken_back(done):
    """With windows; a collection that stands, and is live, is put right in place."""
    edits = {"added": 1, "deleted": 1, "superseded": [], "left": []}
    assert [done[name]["edits"] for name in ("index", "promote", "rollback")] == [edits] * 3
    assert (done["index"]["url"], done["promote"]["url"]) == (None, None)
    assert "mulan release promote" in done["index"]["not_served"] and "mulan serve" in done["promote"]["not_served"]
    before = {f"t{i}" for i in range(60)}
    for name, of_catalogue in (("tracks", before - {"t3"} | {"new"}), ("tracks again", before)):
        assert done[name] == [sorted(of_catalogue - {"t7"} | {"of the api"})] * 2
    again = done["index again"]
    assert (again["version"], again["built"], again["mended"]) == (done["version"], False, 1), "t7 is written"
    assert again["mended_for"] == {"missing": 1}
    assert done["tracks as before"] == [sorted(before)] * 2 and not any(again["edits"].values())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_release_that_does_not_come_up_is_no_champion(done):
    assert "target_ongoing_requests" in done["refused"]
    assert done["after refusal"] == [done["version"], done["collection"]]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_is_shown_and_compared(home, first, done):
    shown = result_of(mulan("release", "show", done["index"]["version"], "--json", home=home))
    assert (shown["gate"], shown["trained_on"]) == ("passed", first["prepare"]["data_hash"])
    assert (shown["index"]["count"], shown["index"]["recall_at_10"]) == (59, 1.0)
    assert "retrieval/text/auc" in shown["metrics"]
    names = (done["version"], done["index"]["version"], "--manifest", "tones.jsonl", "--params")
    found = result_of(mulan("release", "diff", *names, "params.yaml", "--json", home=home))
    assert set(found["parts"]) == {"data_hash", "collection"}
    assert found["tracks"] == CHANGES
    assert done["as before"] == first["prepare"]["data_hash"]
    assert found["metrics"]["tagging/pitch/roc_auc"] == [shown["metrics"]["tagging/pitch/roc_auc"]] * 2


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A registry with five versions, of which the gate passed all but the third."""
    folder = tmp_path_factory.mktemp("registry")
    client = mlflow.MlflowClient(database_uri(folder / "mlflow.db"))
    client.create_registered_model("mulan")
    for number in range(1, 6):
        tags = {"gate": "refused" if number == 3 else "passed", "collection": f"tracks_{number}", "weights": "w"}
        tags |= {"data_hash": f"{number}" * 32}
        client.create_model_version("mulan", str(folder), tags={f"mulan.{k}": v for k, v in tags.items()})
    return folder / "mlflow.db"


@pytest.fixture
def registry(database, tmp_path):
    """A copy of it."""
    return Registry(database_uri(Path(shutil.copy(database, tmp_path))), tmp_path / "models")


def test_champions_are_remembered(registry):
    assert registry.champions() == []
    with pytest.raises(UserError, match="no champion yet"):
        collections_to_drop(1, registry)
    for version in ("1", "2", "2", "4"):
        promote(registry, version)
    with pytest.raises(UserError, match="version 3 of mulan was not passed by the gate"):
        promote(registry, "3")
    assert registry.champions() == ["1", "2", "4"]
    registry.name_champions(registry.champions()[:-1])
    assert registry.find("champion").number == "2"
    mlflow.MlflowClient(registry.uri).set_registered_model_alias("mulan", "champion", "4")  # by hand
    assert registry.champions() == ["1", "2", "4"]


@pytest.mark.parametrize(
    ("keep", "old"), [(0, ["tracks_3", "tracks_1"]), (1, ["tracks_3", "tracks_1"]), (2, ["tracks_3"])]
)
def test_old_collections_are_those_that_nobody_goes_back_to(registry, keep, old):
    for version in ("1", "2", "4"):
        promote(registry, version)
    mlflow.MlflowClient(registry.uri).set_registered_model_alias("mulan", "candidate", "2")
    dropped, kept = collections_to_drop(keep, registry)
    assert dropped == old
    assert sorted(dropped + kept) == [f"tracks_{number}" for number in range(1, 6)]


@pytest.mark.parametrize("asked", ["rollback", "promote 3", "shadow 3", "prune"])
def test_what_the_registry_alone_refuses_starts_nothing(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    monkeypatch.setattr("flows.runtime.session.open_session", lambda *_, **__: pytest.fail("a session is opened"))
    folder = workspace_of(tmp_path, tmp_path / "songs.csv").folder
    folder.mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        (folder / name).write_text("{}")
    songs = note_use(tmp_path, folder, manifest=str(tmp_path / "songs.csv"))
    with tracking(read_settings().mlflow_uri) as client:
        client.create_registered_model(songs.model)
    refusal = CliRunner().invoke(app, ["release", *asked.split()]).exception
    assert isinstance(refusal, UserError) and "`mulan release list`" in str(refusal)
    assert {path.name for path in songs.state(tmp_path).glob("*")} == set(), "no service of it"

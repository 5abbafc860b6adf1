"""Catalogues by name: their records, which one a command means, their models and collections beside each other."""

import fcntl
import json
import shutil
from dataclasses import replace

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flow_fixtures import promote
from mlflow import MlflowClient
from typer.testing import CliRunner

from flows import upkeep
from flows.cli.app import app
from flows.pipeline.index import build_index
from flows.pipeline.words import gate_words, mended_words
from flows.registry import Registry
from flows.runtime.catalogues import FILE, Catalogue, find_catalogue, note_use, read_records
from flows.runtime.database import database_uri
from flows.runtime.settings import read_settings
from flows.runtime.stack_file import LOCK, Stack, write_stack
from flows.runtime.storage import open_edits
from flows.runtime.tracking import check_tracking, tracking
from flows.runtime.workspace import Workspace, workspace_of
from flows.runtime.workspace_lock import hold
from mulan_core.config import IndexConfig
from mulan_core.data.shards import MANIFEST
from mulan_core.errors import UserError
from serving.edits import Edits
from serving.store import TrackStore


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An MLflow without a model; making one takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    with tracking(database_uri(folder / "mlflow.db")):
        return folder / "mlflow.db"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty one, with Milvus Lite in this process."""
    monkeypatch.setenv("MULAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MULAN_MILVUS_URI", str(tmp_path / "lite.db"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def registered(home, database):
    """The same, with an MLflow in it."""
    home.mkdir()
    shutil.copy(database, home)
    check_tracking(read_settings().mlflow_uri)  # it was made elsewhere, which is said once
    return home


def folder_of(home, manifest, *, made=True):
    """The workspace of a table, with no more in it than makes it one."""
    folder = workspace_of(home, manifest).folder
    if made:
        folder.mkdir(parents=True)
        for name in ("params.yaml", "dvc.yaml"):
            (folder / name).write_text("{}")
    return folder


def used(home, manifest):
    """As a command does that works on a table."""
    return upkeep.use(read_settings(), Workspace(folder_of(home, manifest)), manifest=str(manifest))


def content_of(home):
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_each_table_gets_a_name_a_model_and_an_alias_of_its_own(home, tmp_path):
    tables = ["a/tracks.csv", "b/tracks.csv", "c/Tracks!.jsonl", "demo.csv", "Été 2024.csv", "öü.csv", "s3://x/y.csv"]
    tables += ["w" * 90, "v/" + "w" * 90]
    made = [used(home, table) for table in tables]
    expected = ["tracks", "tracks-2", "tracks-3", "demo-2", "t-2024", "catalogue", "y"]
    assert [one.name for one in made[:7]] == expected
    made.append(note_use(home, tmp_path))
    assert made[-1].name == "demo" and (made[-1].model, made[-1].live_alias) == ("mulan", "tracks_live")
    for part in ("name", "model", "live_alias", "key"):
        assert len({getattr(one, part) for one in made}) == len(made), part
    assert all(len(one.live_alias) < 80 and one.live_alias.replace("_", "").isalnum() for one in made)
    assert made[0].model == "mulan-tracks" and made[0].manifest == str(tmp_path / "a" / "tracks.csv")
    records = read_records(home)
    assert records.last == "demo" and set(records.by_name) == {one.name for one in made}
    again = note_use(home, folder_of(home, "a/tracks.csv", made=False), manifest="a/tracks.csv")
    assert replace(again, used=made[0].used) == made[0] and read_records(home).last == "tracks"


def test_what_is_kept_stays_until_another_is_given_and_moves_with_the_home(home, tmp_path):
    first = used(home, home / "t.csv")
    note_use(home, home / first.workspace, playlists="lists.jsonl")  # as prepare does
    kept = note_use(home, home / first.workspace)
    assert (kept.manifest, kept.playlists) == (str(home / "t.csv"), str(tmp_path / "lists.jsonl"))
    (home / "places.json").write_text(json.dumps({"places": [str(home)]}))
    moved = home.rename(tmp_path / "elsewhere")
    one = read_records(moved).by_name["t"]
    assert (one.manifest, one.playlists) == (str(moved / "t.csv"), str(tmp_path / "lists.jsonl"))
    assert workspace_of(moved, one.manifest).folder == moved / one.workspace


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"catalogues": {"a": 1}, "last": null}', b"\xff"])
def test_a_damaged_file_is_one_sentence_and_is_not_written_over(content, home):
    home.mkdir()
    (home / FILE).write_bytes(content)
    for ask in (lambda: read_records(home), lambda: note_use(home, home), lambda: find_catalogue(home, home)):
        with pytest.raises(UserError, match=rf"^[^\n]+{FILE} cannot be read \(it is damaged\); [^\n]+$"):
            ask()
    assert (home / FILE).read_bytes() == content


def test_a_command_means_the_named_catalogue_else_the_last_one_and_reading_does_not_count(registered, capfd):
    home = registered
    for name, alias in (("tones", "2"), ("songs", "1")):
        registry = Registry.of(read_settings(), used(home, f"{name}.csv"))
        register(registry, f"run-{name}", "a" * 32, "b" * 32)
        promote(registry, alias)
    before = content_of(home)

    def champion(*words):
        done = CliRunner().invoke(app, ["release", "list", "--json", *words])
        assert done.exit_code == 0, done.output
        return [one["version"] for one in json.loads(done.stdout) if "champion" in one["aliases"]], done.stderr

    assert champion("--catalogue", "tones") == (["2"], "")
    found, said = champion()
    assert found == ["1"] and said.startswith("mulan: the catalogue is songs, the last one used; --catalogue NAME")
    assert champion("--catalogue", "demo") == ([], "")
    listed = json.loads(CliRunner().invoke(app, ["catalogue", "list", "--json"]).stdout)
    assert [(row["name"], row["champion"], row["last"]) for row in listed] == [
        ("songs", "1", True),
        ("tones", "2", False),
    ]
    CliRunner().invoke(app, ["status", "--catalogue", "tones"])
    shown = capfd.readouterr().out
    assert "catalogue  tones" in shown and "version 2" in shown
    assert content_of(home) == before
    for words, said in (
        (
            ["release", "list", "--catalogue", "tunes"],
            "there is no catalogue 'tunes' here; there are: demo, songs, tones",
        ),
        (["data", "sets", "--catalogue", "tones", "--manifest", "x.csv"], "both say which catalogue"),
        (["prepare", "--catalogue", "tones", "--manifest", "x.csv"], "both say which catalogue"),
    ):
        assert said in str(CliRunner().invoke(app, words).exception)


def register(registry, run_id, *data, gate="passed", **tags):
    """Versions of one registered model, one for each hash of data."""
    with tracking(registry.uri) as client:
        if not client.search_registered_models(f"name = '{registry.name}'"):
            client.create_registered_model(registry.name)
        for data_hash in data:
            own = {"gate": gate, "data_hash": data_hash, "weights": f"of {run_id} {data_hash}", **tags}
            client.create_model_version(
                registry.name, "/nowhere", run_id, tags={f"mulan.{name}": value for name, value in own.items()}
            )


def rows_of_four():
    return [
        {"track_id": f"t{i}", "vector": vector, "dataset": "d", "content_hash": "h"}
        for i, vector in enumerate(np.eye(4, 8))
    ]


def build(store, catalogue, version, data_hash="d" * 32):
    return put(store, catalogue, version, rows_of_four(), data_hash)[0]


def put(store, catalogue, version, rows, data_hash="d" * 32):
    return build_index(
        store,
        rows,
        IndexConfig(),
        version=version,
        data_hash=data_hash,
        preprocessing_hash="p",
        catalogue=catalogue.key,
    )


def test_what_is_put_right_in_a_collection_that_stands_has_its_reason(registered):
    store, demo = TrackStore(read_settings().milvus_uri), Catalogue("demo")
    build(store, demo, "1")
    assert put(store, demo, "1", rows_of_four())[1] == {"tracks": 0}
    changed = [row | {"content_hash": "k"} for row in rows_of_four()]
    changed[0] |= {"title": "Rain", "labels": ["genre:jazz"]}
    changed[1] |= {"vector": np.eye(4, 8)[3], "title": "Sun"}
    name, done = put(store, demo, "1", [*changed[:3], changed[3] | {"track_id": "new"}])
    assert done == {"tracks": 5, "title": 2, "labels": 1, "audio": 1, "mark": 1, "missing": 1, "gone": 1}
    words = mended_words({"mended": done.pop("tracks"), "mended_for": done})
    assert words.startswith("5 tracks of it put right (") and "2 title" in words and "1 were missing" in words
    assert put(store, demo, "1", [*changed[:3], changed[3] | {"track_id": "new"}])[1] == {"tracks": 0}
    assert store.tracks.get(["t0"], collection=name)["t0"][0].title == "Rain"
    store.close()


def test_champions_and_live_collections_stand_side_by_side(registered):
    settings = read_settings()
    catalogues = [Catalogue("demo"), used(registered, "tones.csv"), used(registered, "tracks.csv")]
    live = []
    for one in catalogues:
        store = TrackStore(settings.milvus_uri, live=one.live_alias)
        registry = Registry.of(settings, one)
        register(registry, f"run-{one.name}", "d" * 32)
        assert registry.get("champion") is None and store.collections.live_collection() is None, "that of nobody else"
        promote(registry, "1")
        store.collections.switch_alias(build(store, one, "1"))  # the same version of the same data
        live.append(store)
    names = [store.collections.live_collection() for store in live]
    assert (
        names[0] == "tracks_1_dddddddd"
        and len(set(names)) == 3
        and set(live[0].collections.list_collections()) == set(names)
    )
    register(Registry.of(settings, catalogues[1]), "another", "e" * 32)
    promote(Registry.of(settings, catalogues[1]), "2")
    assert [Registry.of(settings, one).champions() for one in catalogues] == [["1"], ["1", "2"], ["1"]]
    assert len({Registry.of(settings, one).cache for one in catalogues}) == 3, "version 1 is another model in each"
    for store in live:
        store.close()


def test_a_model_of_another_catalogue_gets_a_version_here(registered):
    settings, small = read_settings(), used(registered, "small.csv")
    demo, own = Registry.of(settings, Catalogue("demo")), Registry.of(settings, small)
    register(demo, "run", "d" * 32, collection="tracks_1_dddddddd")
    promote(demo, "1")
    made = own.version_for_data("champion", "e" * 32, origin=demo)
    assert (made.number, made.run_id, made.trained_on, made.tag("data_hash")) == ("1", "run", "d" * 32, "e" * 32)
    assert made.tag("collection") is None and own.version_for_data("champion", "e" * 32, origin=demo) == made
    assert own.version_for_data("champion", "d" * 32, origin=demo).number == "2", (
        "its own data's too is a version of here"
    )
    assert own.judged_on(made) == "demo" and own.summary(made)["judged_on"] == "demo"
    assert gate_words(own.summary(made)) == "passed (the model of demo, measured on its tracks, not on these)"
    later = demo.version_for_data("champion", "f" * 32)
    assert demo.judged_on(later) is None and gate_words(demo.summary(later)) == "passed", "of its own model"
    assert demo.judged_on(demo.find("1")) is None
    assert own.judged_on(own.version_for_data(later.number, "a" * 32, origin=demo)) == "demo", "however often"
    promote(own, "1")
    assert (own.champions(), demo.champions(), len(demo.versions())) == (["1"], ["1"], 2)
    with pytest.raises(UserError, match="'candidate' is no alias or version of the model `mulan`"):
        own.version_for_data("candidate", "e" * 32, origin=demo)


def test_a_home_of_an_earlier_version_is_adopted_once_and_loses_nothing(registered, capfd):
    settings, home = read_settings(), registered
    shared = Registry.of(settings, Catalogue("demo"))
    now, before, demo = "a" * 32, "b" * 32, "c" * 32
    register(shared, "run", demo, before, now, collection="tracks_of_old")
    register(shared, "run", now, gate="refused")
    promote(shared, "3")
    folder = folder_of(home, "tones.csv")
    (folder / "dvc.lock").write_text(f"stages: {{prepare: {{outs: [{{md5: {now}.dir}}]}}}}")
    kept = folder / ".dvc" / "cache" / "files" / "md5" / before[:2]
    kept.mkdir(parents=True)
    (kept / f"{before[2:]}.dir").write_text("[]")
    folder_of(home, "other.csv")
    old = shared.versions()
    reading = read_records(home)
    assert {(one.name, one.model) for one in reading.by_name.values()} == {("tones", "mulan"), ("other", "mulan")}
    assert not (home / FILE).exists(), "whoever reads sees the old state, and leaves it"
    capfd.readouterr()
    upkeep.use(settings, Workspace(folder), manifest="tones.csv")
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "tones has a registered model of its own now, mulan-tones, with 3 versions" in said
    own = Registry.of(settings, find_catalogue(home, folder))
    copied = own.versions()
    assert own.name == "mulan-tones" and own.get("champion").tag("data_hash") == now
    assert {one.tag("data_hash") for one in copied} == {now, before} and not any(
        one.tag("collection") for one in copied
    )
    assert shared.versions() == old and shared.champions() == ["3"]
    assert Registry.of(settings, reading.named("demo")).get("1").tag("collection") == "tracks_of_old"
    upkeep.use(settings, Workspace(folder), manifest="tones.csv")
    assert own.versions() == copied and capfd.readouterr().err == ""
    (home / FILE).unlink()  # as if it had been killed before it was written
    upkeep.use(settings, Workspace(folder), manifest="tones.csv")
    assert own.versions() == copied
    assert read_records(home).by_name["other"].model == "mulan-other"
    assert Registry.of(settings, read_records(home).named("other")).versions() == []


def test_a_catalogue_is_renamed_with_its_model(registered, capfd):
    home, settings = registered, read_settings()
    tones = used(home, "tones.csv")
    used(home, "songs.csv")
    register(Registry.of(settings, tones), "run", "a" * 32, "b" * 32)
    promote(Registry.of(settings, tones), "2")
    store = TrackStore(settings.milvus_uri, live=tones.live_alias)
    store.collections.switch_alias(build(store, tones, "2"))
    for old, new, said in (
        ("tones", "songs", "there is a catalogue songs already"),
        ("tones", "demo", "there is a catalogue demo already"),
        ("tones", "Two Words", "'Two Words' cannot name a catalogue"),
        ("tones", "x" * 41, "cannot name a catalogue"),
        ("demo", "mine", "which it keeps"),
        ("nobody", "mine", "there is no catalogue 'nobody' here"),
    ):
        assert said in str(CliRunner().invoke(app, ["catalogue", "rename", old, new]).exception)
    capfd.readouterr()
    CliRunner().invoke(app, ["catalogue", "rename", "tones", "pure-tones"])
    assert capfd.readouterr().out == "tones is pure-tones now, its registered model mulan-pure-tones\n"
    renamed = find_catalogue(home, home / tones.workspace)
    assert (renamed.name, renamed.manifest, renamed.live_alias) == ("pure-tones", tones.manifest, tones.live_alias)
    assert Registry.of(settings, renamed).champions() == ["2"] and Registry.of(settings, tones).versions() == []
    assert "tones" not in read_records(home).by_name and read_records(home).last == "songs"
    other = note_use(home, folder_of(home, "elsewhere/tones.csv"), manifest="elsewhere/tones.csv")
    assert other.name == "tones" and build(store, other, "2") != store.collections.live_collection(), (
        "the name is free, no more"
    )
    store.close()


def test_a_catalogue_is_removed_with_what_is_its_own(registered, tmp_path, capfd):
    home, settings = registered, read_settings()
    (tmp_path / "tones.csv").write_text("uri,text\n")
    tones, songs = used(home, "tones.csv"), used(home, "songs.csv")
    for one in (tones, songs):
        register(Registry.of(settings, one), "run", "a" * 32)
        promote(Registry.of(settings, one), "1")
        store = TrackStore(settings.milvus_uri, live=one.live_alias)
        store.collections.switch_alias(build(store, one, "1"))
    collection = f"tracks_{tones.key}_1_dddddddd"
    runner = CliRunner()
    kept = runner.invoke(app, ["catalogue", "remove", "tones"], input="n\n")
    assert kept.exit_code == 1 and capfd.readouterr().out == "nothing was removed\n"
    for gone in (str(home / tones.workspace), "mulan-tones", collection):
        assert gone in kept.stderr
    with hold(home / tones.workspace, "train"):
        assert "remove cannot begin while another" in str(refused(runner, "remove", "tones", "--yes"))
        assert "rename cannot begin while another" in str(refused(runner, "rename", "tones", "mine"))
    stack = Stack("a", settings.milvus_uri, "c", "", 1, "now", endpoint="http://127.0.0.1:8000")
    state = tones.state(home)
    write_stack(state, stack)
    with (state / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "tones is served at http://127.0.0.1:8000" in str(refused(runner, "remove", "tones", "--yes"))
        assert "tones is served at" in str(refused(runner, "rename", "tones", "mine"))
    assert store.collections.has(collection) and Registry.of(settings, tones).champions() == ["1"]
    done = runner.invoke(app, ["catalogue", "remove", "tones", "--yes", "--json"])
    assert json.loads(done.stdout)["collections"] == [collection]
    assert not (home / tones.workspace).exists() and (tmp_path / "tones.csv").exists()
    assert Registry.of(settings, tones).versions() == [] and set(read_records(home).by_name) == {"songs"}
    assert read_records(home).last == "songs", "the one that was used before it"
    assert store.collections.list_collections() == [store.collections.live_collection()], (
        "those of the other one are all there"
    )
    assert Registry.of(settings, songs).champions() == ["1"]
    store.close()


def refused(runner, *words):
    return runner.invoke(app, ["catalogue", *words]).exception


def test_of_the_demo_only_its_state_is_removed(registered, tmp_path):
    settings = read_settings()
    (tmp_path / "params.yaml").write_text("{}")
    note_use(registered, tmp_path)
    register(Registry.of(settings, Catalogue("demo")), "run", "a" * 32)
    done = upkeep.remove(settings, "demo", lambda goes: goes["versions"] == ["1"])
    assert done["removed"] and done["workspace"] is None and (tmp_path / "params.yaml").exists()
    assert mlflow.MlflowClient(settings.mlflow_uri).search_registered_models() == []
    assert read_records(registered).by_name == {} and read_records(registered).last is None


def test_what_the_api_did_is_listed_and_taken_back(registered, capfd):
    tones, runner = used(registered, "tones.csv"), CliRunner()
    edits = open_edits(read_settings(), tones)
    assert runner.invoke(app, ["catalogue", "edits"]).exit_code == 0
    assert "nothing was added or deleted over the API" in capfd.readouterr().out
    with edits.adding("new", {"title": "N", "artist": "", "dataset": "added", "labels": []}, b"flac", row_hash=None):
        pass
    with edits.deleting("t1", row_hash="ab"):
        pass
    assert runner.invoke(app, ["catalogue", "edits", "--catalogue", "tones"]).exit_code == 0
    shown = capfd.readouterr().out
    assert all(word in shown for word in ("new", "added", "N", "t1", "deleted"))
    listed = json.loads(runner.invoke(app, ["catalogue", "edits", "--json"]).stdout)
    assert [(row["track_id"], row["kind"], row.get("title")) for row in listed] == [
        ("new", "added", "N"),
        ("t1", "deleted", None),
    ]
    refused = runner.invoke(app, ["catalogue", "edits", "--undo", "t9"]).exception
    assert str(refused).startswith("the track 't9' was not added or deleted over the API") and len(edits.all()) == 2
    done = runner.invoke(app, ["catalogue", "edits", "--undo", "t1", "--undo", "new", "--json"])
    assert json.loads(done.stdout) == [] == edits.all() and not any(edits.folder.iterdir())
    assert "t1 is again what the catalogue says, from the next `mulan index` on" in done.stderr


def test_edits_stay_with_a_catalogue_that_is_renamed_and_go_with_it(registered):
    settings, tones = read_settings(), used(registered, "tones.csv")
    register(Registry.of(settings, tones), "run", "a" * 32)
    with open_edits(settings, tones).deleting("t1", row_hash="ab") as edit:
        pass
    runner = CliRunner()
    assert runner.invoke(app, ["catalogue", "rename", "tones", "pure"]).exit_code == 0
    pure = read_records(registered).named("pure")
    assert open_edits(settings, pure).all() == [edit]
    done = runner.invoke(app, ["catalogue", "remove", "pure", "--yes", "--json"])
    assert json.loads(done.stdout)["edits"] == ["t1"] and open_edits(settings, pure).all() == []


STEPS = [(MlflowClient, "rename_registered_model"), (Edits, "move"), (upkeep, "_finish_rename")]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", STEPS)
def test_a_rename_that_is_cut_off_goes_on_with_the_next_command(registered, monkeypatch, capfd, at, after):
    owner, step = at
    settings, tones, songs = read_settings(), used(registered, "tones.csv"), used(registered, "songs.csv")
    register(Registry.of(settings, tones), "run", "a" * 32)
    promote(Registry.of(settings, tones), "1")
    with open_edits(settings, tones).deleting("t1", row_hash="ab") as edit:
        pass
    whole = getattr(owner, step)

    def dies(*args):
        if after:
            whole(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(owner, step, dies)
        upkeep.rename(settings, "tones", "pure")
    upkeep.use(settings, Workspace(registered / songs.workspace), manifest=None)  # any command that writes
    assert "tones is pure now" in capfd.readouterr().err or (step, after) == ("_finish_rename", True)
    records = read_records(registered)
    pure = records.named("pure")
    assert "tones" not in records.by_name and pure.renaming is None and records.last == "songs"
    assert Registry.of(settings, pure).champions() == ["1"] and open_edits(settings, pure).all() == [edit]


def test_a_deleted_track_is_listed_by_its_title(registered, capfd):
    home, tones = registered, used(registered, "tones.csv")
    edits = open_edits(read_settings(), tones)
    with edits.deleting("3f00aa", row_hash=None):
        pass
    CliRunner().invoke(app, ["catalogue", "edits", "--catalogue", "tones"])
    line = next(line for line in capfd.readouterr().out.splitlines() if "3f00aa" in line)
    assert "deleted" in line and " UTC" in line, "nothing is prepared, so its title is not known"
    prepared = Workspace(home / tones.workspace).prepared
    prepared.mkdir(parents=True)
    row = {"track_id": "3f00aa", "title": "Rain", "artist": "Ann", "uri": "a.wav"}
    pq.write_table(pa.Table.from_pylist([row, row | {"track_id": "other", "title": "Sun"}]), prepared / MANIFEST)
    CliRunner().invoke(app, ["catalogue", "edits", "--catalogue", "tones"])
    line = next(line for line in capfd.readouterr().out.splitlines() if "3f00aa" in line)
    assert line.index("Rain") < line.index("Ann") < line.index("deleted") < line.index("UTC") < line.index("3f00aa")

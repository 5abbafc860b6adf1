"""Models on evaluation sets through the real command: sets prepared by DVC, reports in MLflow or in a folder."""

import json

import mlflow
import pytest
import soundfile
import yaml
from flow_fixtures import CATALOGUE, mulan, prepared_of, result_of
from prepared_fixtures import PITCHES, SHAPES, tone
from test_cli_errors import refused

from flows.runtime.database import database_uri
from mulan_core.evaluation.evidence import FILE, Evidence

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

WITH_SETS = ("--manifest", "tones.jsonl", "--params", "sets.yaml")


@pytest.fixture(scope="module")
def sets(home, first):
    """The catalogue's workspace with two sets prepared: new tones with playlists, and a tone that it trains on."""
    rows, lists = [], []
    for i in range(12):
        pitch, shape = list(PITCHES)[i % 3], list(SHAPES)[(i // 3) % 2]
        soundfile.write(home / f"new{i}.wav", tone(pitch, shape, seed=1000 + i), 16_000)
        rows.append(
            {"track_id": f"n{i}", "uri": f"new{i}.wav", "text": f"{pitch} {shape}", "labels": [f"pitch:{pitch}"]}
        )
    for pitch in PITCHES:
        ids = [row["track_id"] for row in rows if row["labels"] == [f"pitch:{pitch}"]]
        lists.append(
            {"playlist_id": pitch, "title": f"{pitch} tones", "description": f"All is {pitch}.", "track_ids": ids}
        )
    trained_on = next(i for i in range(60) if i % 5 > 1)
    seen = {"uri": str(next(home.glob(f"{trained_on}.*"))), "text": "seen", "track_id": "again"}
    new = {"track_id": "other", "uri": "new0.wav", "text": "not seen"}
    for name, table in {"new": rows, "lists": lists, "seen": [seen, new]}.items():
        (home / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in table))
    params = yaml.safe_load((home / "params.yaml").read_text())
    new_tones = {"manifest": "new.jsonl", "playlists": "lists.jsonl", "clip_s": 2.0}
    params["evaluate"]["sets"] = {"new-tones": new_tones, "seen": {"manifest": "seen.jsonl"}}
    (home / "sets.yaml").write_text(yaml.safe_dump(params))
    result_of(mulan("prepare", *WITH_SETS, "--json", home=home))
    return prepared_of(home).parent / "sets"


def test_sets_are_prepared_and_versioned_by_dvc_and_lie_once(home, sets):
    counts = json.loads((sets / "new-tones" / "counts.json").read_text())
    assert (counts["usable"], counts["splits"], counts["clip_s"]) == (12, {"test": 12}, 2.0)
    lock = yaml.safe_load((sets.parents[2] / "dvc.lock").read_text())
    hashes = [lock["stages"][f"set@{name}"]["outs"][0]["md5"] for name in ("new-tones", "seen")]
    cache = sets.parents[2] / ".dvc" / "cache" / "files" / "md5"
    assert all((cache / digest[:2] / digest[2:]).exists() for digest in hashes)
    assert not list(sets.parents[2].rglob("remote")), "a second copy is made where it is asked for"
    shards = [path for path in sets.rglob("*.parquet") if path.stat().st_nlink > 1]
    assert shards, "the prepared folder and the cache share their bytes"
    before = {path: path.stat().st_ino for path in sets.rglob("*")}
    result_of(mulan("prepare", *WITH_SETS, "--json", home=home))
    assert {path: path.stat().st_ino for path in sets.rglob("*")} == before
    listed = {row["name"]: row for row in result_of(mulan("data", "sets", *WITH_SETS, "--json", home=home))}
    assert listed["new-tones"]["prepared"] == str(sets / "new-tones")
    assert listed["own"]["prepared"] and not listed["audioset-gen25"]["prepared"]


def test_a_registered_model_on_its_own_and_another_set(home, first, sets):
    done = mulan("evaluate", "champion", *WITH_SETS, "--on", "own,new-tones", "--json", home=home)
    result = result_of(done)
    assert result["model"]["version"] == first["register"]["version"] and result["out"] is None
    own, new = result["sets"]["own"], result["sets"]["new-tones"]
    assert own["metrics"] == first["metrics"]
    assert (
        new["set"]["counts"]["test_tracks"] == 12 and new["set"]["model"]["trained_on"] == first["prepare"]["data_hash"]
    )
    assert {"tagging/pitch/roc_auc", "retrieval/title/map", "triplets/playlist/accuracy"} <= new["metrics"].keys()
    assert "No training tracks were given: the linear probe is not measured." in new["notes"]
    client = mlflow.MlflowClient(database_uri(home / "mlflow.db"))
    run = client.get_run(result["model"]["run_id"])
    assert run.data.metrics["new-tones/tagging/pitch/roc_auc"] == new["metrics"]["tagging/pitch/roc_auc"]
    assert run.data.metrics["tagging/pitch/roc_auc"] == own["metrics"]["tagging/pitch/roc_auc"]
    names = {item.path for item in client.list_artifacts(run.info.run_id, "evaluation/new-tones")}
    assert {f"evaluation/new-tones/{name}" for name in ("report.json", "report.md", FILE)} <= names
    again = result_of(mulan("evaluate", "champion", *WITH_SETS, "--on", "new-tones", "--json", home=home))
    assert again["sets"]["new-tones"] == new


def test_a_part_of_the_suites_is_written_but_never_logged(home, sets):
    client = mlflow.MlflowClient(database_uri(home / "mlflow.db"))
    version = client.get_model_version_by_alias("mulan-tones", "champion")
    before = client.get_run(version.run_id).data.to_dictionary()
    command = ("evaluate", "1", *WITH_SETS, "--on", f"x={sets / 'new-tones'}", "--suite", "tagging,triplets")
    result = result_of(mulan(*command, "--out", "part", "--json", home=home))
    assert result["sets"]["x"]["set"]["suites"] == ["tagging", "triplets"]
    assert not any(name.startswith("retrieval") for name in result["sets"]["x"]["metrics"])
    assert {path.name for path in (home / "part").iterdir()} == {
        "x-tagging-triplets",
        "evaluation.json",
        "evaluation.html",
    }
    assert json.loads((home / "part" / "evaluation.json").read_text()) == result
    evidence = Evidence.load(home / "part" / "x-tagging-triplets" / FILE)
    assert len(evidence.track_ids) == 12 and not evidence.query_ids
    assert client.get_run(version.run_id).data.to_dictionary() == before


def test_a_registered_model_is_compared_with_a_folder(home, sets):
    """The same model under two names: nothing stands, and what was measured in part is compared in part."""
    found = result_of(mulan("compare", "champion", "part", "--on", "new-tones", "--json", home=home))
    assert found["a"]["name"].startswith("champion (version ") and found["b"]["name"] == "part"
    assert {name.partition("/")[0] for name in found["metrics"]} == {"tagging", "triplets"}
    assert all(one["difference"] == 0 and one["interval"] == [0, 0] for one in found["metrics"].values())
    refused(mulan("compare", "champion", "1", "--on", "seen", home=home), "champion was not measured on seen")


def test_what_a_model_was_trained_on_is_refused_unless_allowed(home, sets):
    command = ("evaluate", "champion", *WITH_SETS, "--on", "seen")
    refused(
        mulan(*command, home=home), "1 recording is in training and evaluation both (1 by audio): t2 (tones) = again"
    )
    allowed = result_of(mulan(*command, "--suite", "retrieval", "--allow-overlap", "--json", home=home))
    assert "1 recording is in the training data as well (--allow-overlap)." in allowed["sets"]["seen"]["notes"]


def test_a_model_that_is_not_registered(home, sets):
    (home / "pairs.tsv").write_text("title\tdescription\nhigh\tA high tone.\nlow\tA low tone.\n")
    result = result_of(mulan("evaluate", "demo-minilm", *WITH_SETS, "--on", "pairs.tsv,new-tones", "--json", home=home))
    assert result["sets"]["pairs"]["metrics"]["triplets/pairs/accuracy"] == 1.0
    assert list(result["sets"]["new-tones"]["metrics"]) == ["triplets/playlist/accuracy"]
    assert (
        "The model has no audio side: tagging, probe, retrieval not measured." in result["sets"]["new-tones"]["notes"]
    )
    assert result["out"].startswith(str(home / "evaluations" / "demo-minilm-"))
    shown = mulan("evaluate", "demo-minilm", *WITH_SETS, "--on", "pairs.tsv", home=home)
    assert shown.returncode == 0 and "triplets/pairs/accuracy" in shown.stdout and result["out"] in shown.stdout


def test_mistakes_are_one_sentence(home, sets):
    mistakes = {
        ("nobody", "--on", "own"): "'nobody' is no alias or version of the registered model",
        ("champion", "--on", "nothing"): "there is no evaluation set 'nothing'",
        (
            "champion",
            "--on",
            f"audioset-gen25={sets / 'new-tones'}",
        ): "not one of the 25 classes of audioset-gen25 occurs",
        ("demo-minilm", "--on", "new-tones", "--suite", "probe"): "nothing can be measured on new-tones",
        ("champion", "--pooling", "mean"): "pooling 'mean' applies to a text or audio model",
    }
    for arguments, sentence in mistakes.items():
        refused(mulan("evaluate", *arguments, *WITH_SETS, home=home), sentence)


def test_a_playlist_with_unknown_tracks_stops_prepare_before_it_decodes(home, sets, tmp_path):
    (tmp_path / "lists.jsonl").write_text(json.dumps({"playlist_id": "p", "title": "x", "track_ids": ["t1", "nobody"]}))
    done = mulan("prepare", *CATALOGUE, "--playlists", str(tmp_path / "lists.jsonl"), home=home)
    assert done.returncode == 2
    assert "playlist 'p' names the track 'nobody'" in done.stderr
    missing = yaml.safe_load((home / "sets.yaml").read_text())
    missing["evaluate"]["sets"] = {"lost": {"manifest": "lost.csv"}}
    (home / "lost.yaml").write_text(yaml.safe_dump(missing))
    done = mulan("prepare", "--manifest", "tones.jsonl", "--params", "lost.yaml", home=home)
    refused(done, "evaluate.sets.lost: there is no file")

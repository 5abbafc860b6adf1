"""The commands that switch releases, given to a running ``mulan serve`` while people search; nobody notices."""

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import soundfile
from callers import Callers

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from flow_fixtures import CATALOGUE, MULAN, environment, left_of, result_of, tone, write_catalogue
from flow_fixtures import mulan_started as mulan
from serving_fixtures import metric

from serving.ports import is_up

EVERYTHING = 100
"""More hits than there are tracks, so that an answer names its whole collection."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with a champion, and beside its table the next one, with a track more and one less."""
    home = write_catalogue(tmp_path_factory.mktemp("home"))
    result_of(mulan("run", *CATALOGUE, "--no-serve", "--json", home=home))
    rows = [json.loads(line) for line in (home / "tones.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row.get("track_id") not in ("t3", None)]
    soundfile.write(home / "new.wav", tone("low", "smooth", seed=99), 16_000)
    rows.append(rows[2] | {"track_id": "new", "uri": "new.wav", "title": "New", "split": "train"})
    (home / "later.jsonl").write_text("\n".join(json.dumps(row | {"dataset": "tones"}) for row in rows))
    return home


@pytest.fixture(scope="module")
def url(home):
    """A running ``mulan serve``, ready."""
    url = f"http://127.0.0.1:{(home / 'params.yaml').read_text().partition('port: ')[2].partition('}')[0]}"
    with (home / "serve.log").open("w") as log:
        command = [MULAN, "serve", *CATALOGUE]
        server = subprocess.Popen(command, cwd=home, env=environment(home), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not is_up(f"{url}/readyz"):
            assert time.monotonic() < deadline and server.poll() is None, (home / "serve.log").read_text()
            time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(60)
    assert left_of(home, within_s=10) == []


def ids(answer):
    return {hit["track_id"] for hit in answer["hits"]}


def release(home, *arguments):
    return result_of(mulan("release", *arguments, *CATALOGUE, "--json", home=home))


@pytest.fixture(scope="module")
def switched(home, url):
    """Shadow, promotion and rollback, one after the other, with a track added over the API before them."""
    first = httpx.get(f"{url}/v1/release").json()["model_version"]
    audio = {"audio": (home / "new.wav").read_bytes()}
    httpx.post(f"{url}/v1/tracks", files=audio, data={"track_id": "of the api"}).raise_for_status()
    (home / "later.jsonl").replace(home / "tones.jsonl")
    result_of(mulan("prepare", *CATALOGUE, "--json", home=home))
    built = result_of(mulan("index", *CATALOGUE, "--model", "champion", "--no-promote", "--json", home=home))
    done = {"first": first, "built": built}
    with Callers(url, k=EVERYTHING) as callers:
        callers.wait_for_more()
        done["shadow"] = release(home, "shadow", built["version"], "--share", "1")
        callers.wait_for_more()
        time.sleep(1)
        done["numbers"] = httpx.get(f"{url}/metrics").text
        done["promote"] = release(home, "promote", built["version"])
        callers.wait_for_more()
        done["rollback"] = release(home, "rollback")
        callers.wait_for_more()
    return done | {"answers": callers.answers, "failures": callers.failures}


def test_no_search_fails_and_no_answer_is_mixed(switched):
    assert [getattr(failure, "text", failure) for failure in switched["failures"]] == []
    tracks = {f"t{i}" for i in range(60)}
    of = {switched["first"]: tracks, switched["built"]["version"]: tracks - {"t3"} | {"new"}}
    seen = []
    for answer in switched["answers"]:
        version = answer["release"]["model_version"]
        assert ids(answer) - {"of the api"} == of[version]
        if version not in seen[-1:]:
            seen.append(version)
    assert seen[0] == seen[-1] == switched["first"] and set(seen) == set(of)


def test_the_shadow_was_asked_and_unseen(switched):
    assert switched["shadow"]["shadow"]["model_version"] == switched["built"]["version"]
    assert metric(switched["numbers"], "mulan_shadow_share") == 1
    compared = metric(switched["numbers"], "mulan_shadow_searches_total", result="compared")
    assert compared > 0
    assert 0.8 < metric(switched["numbers"], "mulan_shadow_overlap_sum") / compared <= 1, "the same weights"


def test_the_registry_follows(home, switched):
    assert switched["promote"]["release"]["model_version"] == switched["built"]["version"]
    assert switched["rollback"]["release"]["model_version"] == switched["first"]
    versions = {row["version"]: row for row in result_of(mulan("release", "list", "--json", home=home))}
    assert "champion" in versions[switched["first"]]["aliases"]


def test_a_track_of_the_api_goes_along(switched):
    for way in ("promote", "rollback"):
        assert switched[way]["edits"] == {"added": 1, "deleted": 0, "superseded": [], "left": []}
    assert "of the api" in ids(switched["answers"][0]) and "of the api" in ids(switched["answers"][-1])
    later = [a for a in switched["answers"] if a["release"]["model_version"] == switched["built"]["version"]]
    assert "of the api" in ids(later[-1])

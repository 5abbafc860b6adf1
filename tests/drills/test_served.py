"""What users see of the endpoint while something breaks, or is switched, under load: real Ray Serve, real Milvus.

The drills follow each other on one endpoint; each leaves it serving.
"""

import os
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace

import httpx
import psutil
import pytest
from callers import Callers
from serving_fixtures import check_error

from mulan_core.errors import UserError
from serving.shadow import overlap_at_k

pytestmark = pytest.mark.slow

SEARCH = {"text": "calm piano", "k": 5}


@pytest.fixture(scope="module")
def url(switch, releases):
    """The endpoint, which starts with release 20."""
    return switch(releases["20"])


def check_unmixed(answers, releases):
    """Every answer is of one release, whose own tracks it found; how many answers each release gave."""
    for answer in answers:
        version = answer["release"]["model_version"]
        assert answer["release"]["collection"] == releases[version].collection
        assert answer["hits"] and all(hit["track_id"].startswith(f"{version}/") for hit in answer["hits"])
    return Counter(answer["release"]["model_version"] for answer in answers)


def test_a_killed_replica_costs_only_what_it_had_at_work(url):
    replicas = [p for p in psutil.Process().children(recursive=True) if "ServeReplica:mulan" in " ".join(p.cmdline())]
    with Callers(url) as plain, Callers(url, patient=True) as patient:
        plain.wait_for_more()
        replicas[-1].kill()
        plain.wait_for_more()
        patient.wait_for_more()
    assert len(plain.failures) <= plain.count, plain.failures
    assert patient.failures == [], "the client asks again"
    assert not replicas[-1].is_running()


def test_a_killed_milvus_is_a_503_and_comes_back_by_itself(url, milvus):
    killed = milvus.pid
    with Callers(url) as plain, Callers(url, patient=True) as patient:
        plain.wait_for_more()
        os.kill(killed, signal.SIGKILL)
        time.sleep(0.5)  # it is away for a second at least
        plain.wait_for_more()
        patient.wait_for_more()
    assert plain.failures and patient.failures == [], "the client waits as long as it is told to"
    check_error(plain.failures[0], 503, "unavailable", "Milvus does not answer")
    for response in plain.failures:  # the last may be told that the collection is still being loaded
        assert response.status_code == 503 and int(response.headers["retry-after"]) > 0, response.text
    assert milvus.pid != killed


def test_a_lost_collection_is_a_503_until_it_is_built_anew(url, store, releases, fill):
    store.collections.drop(releases["20"].collection)
    for response in (httpx.post(f"{url}/v1/search", json=SEARCH), httpx.get(f"{url}/readyz")):
        assert response.status_code == 503 and releases["20"].collection in response.json()["error"]["message"]
    fill("20")
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert set(check_unmixed([httpx.post(f"{url}/v1/search", json=SEARCH).json()], releases)) == {"20"}


def test_a_failed_rollout_keeps_the_old_release(url, switch, releases, tmp_path):
    """The checks before a rollout see preprocessing and collection; weights are read by the replica."""
    broken = tmp_path / "model"
    shutil.copytree(releases["21"].model_path, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with Callers(url) as callers:
        callers.wait_for_more()
        with pytest.raises(UserError, match=r"weights are damaged .*; the release before goes on serving$"):
            switch(replace(releases["21"], model_path=str(broken)))
        callers.wait_for_more()
    assert callers.failures == []
    assert set(check_unmixed(callers.answers, releases)) == {"20"}


def number(url, series):
    """The value of a series at /metrics."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series))


def test_a_shadow_answers_unseen(url, switch, releases):
    switch(releases["20"], shadow=releases["21"].to_dict(), shadow_share=1.0)
    for _ in range(10):
        answer = httpx.post(f"{url}/v1/search", json={"text": "calm piano", "k": 5}).raise_for_status().json()
        assert answer["release"]["model_version"] == "20"
        assert all(hit["track_id"].startswith("20/") for hit in answer["hits"])
        time.sleep(0.1)
    httpx.post(f"{url}/v1/search", json={"k": 5})  # refused by the live release, so nothing to compare
    assert number(url, "mulan_shadow_share ") == 1
    compared = number(url, 'mulan_shadow_searches_total{result="compared"}')
    assert 3 <= compared <= 10
    assert number(url, "mulan_shadow_overlap_count") == compared
    assert number(url, "mulan_shadow_overlap_sum") == 0, "the two have no track in common"
    for which in ("live", "shadow"):
        assert number(url, f'mulan_shadow_seconds_count{{release="{which}"}}') == compared


def test_a_switch_under_load_loses_and_mixes_nothing_and_ends_the_shadow(url, switch, releases):
    with Callers(url) as callers:
        callers.wait_for_more()
        switch(releases["21"])
        callers.wait_for_more()
    assert callers.failures == []
    assert set(check_unmixed(callers.answers, releases)) == {"20", "21"}
    assert callers.answers[-1]["release"]["model_version"] == "21"
    assert number(url, "mulan_shadow_share ") == 0


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [("abcd", "daxy", 0.5), ("", "", 1.0), ("ab", "", 0.0), ("abcdefghijK", "abcdefghijL", 1.0)],
)
def test_overlap(one, other, overlap):
    assert overlap_at_k(list(one), list(other)) == overlap

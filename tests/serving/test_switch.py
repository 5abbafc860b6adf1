"""One release after another on real Ray Serve under load: no failed request, and no answer that mixes two."""

import threading
import time
from collections import Counter
from dataclasses import replace

import httpx
import pytest
import ray
from serving_fixtures import SERVE

from serving.canary import overlap_at_k
from serving.deployment import build_app, deploy, undeploy
from serving.ports import free_port
from serving.release import Release

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def releases(release, store, catalogue):
    """Two releases whose collections hold tracks of different ids, and one whose collection goes away."""

    def make(version):
        name = f"tracks_{version}_switch"
        properties = {"model_version": version, "data_hash": "d", "preprocessing_hash": release.preprocessing_hash}
        rows = [
            row | {"track_id": f"{version}/{track_id}", "vector": catalogue.vectors[track_id]}
            for track_id, row in catalogue.rows.items()
        ]
        store.build(name, iter([rows]), dim=128, properties=properties, hnsw_from=10_000, recall_floor=0.95)
        return replace(release, model_version=version, collection=name, data_hash="d")

    return {version: make(version) for version in ("20", "21")}


@pytest.fixture(scope="module")
def switch(milvus):
    """Deploys a release; returns the endpoint's address."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    port = free_port()

    def to(release: Release, **options):
        return deploy(
            build_app(release.to_dict(), SERVE, milvus_uri=milvus.uri, **options), host="127.0.0.1", port=port
        )

    try:
        yield to
        undeploy()
    finally:
        ray.shutdown()


class Clients:
    """Two clients that ask one search after another until they are stopped."""

    def __init__(self, url):
        self.answers, self.failures, self._stop = [], [], threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for _ in range(2)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, url):
        with httpx.Client(base_url=url, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/v1/search", json={"text": "calm piano", "k": 5})
                    answer.raise_for_status()
                    self.answers.append(answer.json())
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))


def test_a_switch_under_load_loses_and_mixes_nothing(switch, releases):
    url = switch(releases["20"])
    with Clients(url) as clients:
        time.sleep(1)
        switch(releases["21"])
        time.sleep(1)
    assert clients.failures == []
    served = Counter()
    for answer in clients.answers:
        version = answer["release"]["model_version"]
        served[version] += 1
        assert answer["release"]["collection"] == releases[version].collection
        assert answer["hits"] and all(hit["track_id"].startswith(f"{version}/") for hit in answer["hits"])
    assert set(served) == {"20", "21"}
    assert clients.answers[-1]["release"]["model_version"] == "21"


def number(url, series):
    """The value of a series at /metrics."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series))


def test_a_canary_answers_unseen_and_a_promotion_ends_it(switch, releases):
    url = switch(releases["20"], canary=releases["21"].to_dict(), canary_share=1.0)
    for _ in range(10):
        answer = httpx.post(f"{url}/v1/search", json={"text": "calm piano", "k": 5}).raise_for_status().json()
        assert answer["release"]["model_version"] == "20"
        assert all(hit["track_id"].startswith("20/") for hit in answer["hits"])
        time.sleep(0.1)
    httpx.post(f"{url}/v1/search", json={"k": 5})  # refused by the live release, so nothing to compare
    assert number(url, "mulan_canary_share ") == 1
    compared = number(url, 'mulan_canary_searches_total{result="compared"}')
    assert 3 <= compared <= 10
    assert number(url, "mulan_canary_overlap_count") == compared
    assert number(url, "mulan_canary_overlap_sum") == 0, "the two have no track in common"
    for which in ("live", "canary"):
        assert number(url, f'mulan_canary_seconds_count{{release="{which}"}}') == compared
    switch(releases["21"])
    assert number(url, "mulan_canary_share ") == 0


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [("abcd", "daxy", 0.5), ("", "", 1.0), ("ab", "", 0.0), ("abcdefghijK", "abcdefghijL", 1.0)],
)
def test_overlap(one, other, overlap):
    assert overlap_at_k(list(one), list(other)) == overlap

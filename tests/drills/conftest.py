"""The drills' stack: Milvus Lite with small releases, Ray, and the endpoint, all real and all of them to be broken."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import ray

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from release_fixtures import *  # noqa: F403 - its fixtures
from serving_fixtures import SERVE

from serving.deployment import build_app, deploy, undeploy
from serving.ports import free_port
from serving.release import Release


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.drill)


@pytest.fixture(scope="module")
def fill(release, store, catalogue):
    """Builds a version's collection, whose track ids begin with the version; returns the release."""

    def build(version):
        name = f"tracks_{version}_drill"
        properties = {"model_version": version, "data_hash": "d", "preprocessing_hash": release.preprocessing_hash}
        rows = [
            row | {"track_id": f"{version}/{track_id}", "vector": catalogue.vectors[track_id]}
            for track_id, row in catalogue.rows.items()
        ]
        store.build(name, iter([rows]), dim=128, properties=properties, hnsw_from=10_000, recall_floor=0.95)
        return replace(release, model_version=version, collection=name, data_hash="d")

    return build


@pytest.fixture(scope="module")
def releases(fill):
    """Two releases by their versions."""
    return {version: fill(version) for version in ("20", "21")}


@pytest.fixture(scope="module")
def switch(milvus, edits):
    """Deploys a release; returns the endpoint's address."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    port = free_port()

    def to(release: Release, **options):
        app = build_app(release.to_dict(), SERVE, milvus_uri=milvus.uri, edits=edits.location, **options)
        return deploy(app, host="127.0.0.1", port=port)

    try:
        yield to
        undeploy()
    finally:
        ray.shutdown()

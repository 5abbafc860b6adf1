"""API keys on real Ray Serve: what a replica that starts while the file of keys is away was told by its deployment."""

import time
from types import SimpleNamespace

import httpx
import pytest
import ray
from ray import serve
from serving_fixtures import SERVE, check_error

from mulan_core.errors import UserError
from serving.applications import APP_NAME
from serving.deployment import build_app, deploy, undeploy
from serving.keys import KeyFile
from serving.ports import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def on_ray():
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    undeploy()
    ray.shutdown()


@pytest.fixture(scope="module")
def door(on_ray, release, milvus, edits, tmp_path_factory):
    """An endpoint that was deployed when there was a key, and what would deploy over it."""
    keys = KeyFile(tmp_path_factory.mktemp("home") / "keys.json")
    secret, _ = keys.create("website", "read")

    def build():
        return build_app(release.to_dict(), SERVE, milvus_uri=milvus.uri, edits=edits.location, keys_file=keys.path)

    url = deploy(build(), host="127.0.0.1", port=free_port())
    with httpx.Client(base_url=url, timeout=60, headers={"Authorization": f"Bearer {secret}"}) as client:
        yield SimpleNamespace(client=client, keys=keys, build=build)


def replicas():
    """Their actors' names."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return {each["name"] for each in actors if each["name"].startswith(f"SERVE_REPLICA::{APP_NAME}#")}


def replace_replicas():
    """Kill them, and wait until Serve has started others."""
    before = replicas()
    for name in before:
        ray.kill(ray.get_actor(name, namespace="serve"))
    deadline = time.monotonic() + 60
    while not replicas() - before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_replica_that_starts_while_the_file_is_away_is_closed_until_it_is_back(door):
    """The mark goes with the file, so that nothing on the disk tells the new replica."""
    assert door.client.get("/v1/release").status_code == 200
    away = door.keys.path.rename(door.keys.path.with_name("away"))
    door.keys.path.with_name(".keys.json.mark").unlink()
    assert not KeyFile(door.keys.path).look().needed
    with pytest.raises(UserError, match=r"keys\.json are gone; put the file back"):
        door.build()  # as a release switch does: it asks the endpoint that runs
    replace_replicas()
    deadline = time.monotonic() + 60
    while (answer := door.client.get("/livez")).status_code != 200:  # plain 500s while none is up
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    for headers in ({}, {"Authorization": ""}):
        check_error(door.client.get("/v1/release", headers=headers), 503, "keys_unavailable")
    with pytest.raises(UserError, match=r"keys\.json are gone; put the file back"):
        door.build()

    away.rename(door.keys.path)
    began = time.monotonic()
    while door.client.get("/v1/release").status_code != 200:
        assert time.monotonic() < began + 1
        time.sleep(0.02)
    assert door.client.get("/v1/release", headers={"Authorization": ""}).status_code == 401


@serve.deployment
class Older:
    """What runs and cannot be asked, as a version from before there were keys."""


@serve.deployment(max_constructor_retry_count=1)
class Broken:
    """What never lets anybody in."""

    def __init__(self):
        raise ValueError("it is broken")


def test_an_endpoint_that_does_not_say_whether_it_had_keys_is_not_replaced_by_an_open_one(
    door, tmp_path, release, milvus, edits
):
    def build():
        own = {"milvus_uri": milvus.uri, "edits": edits.location, "keys_file": tmp_path / "keys.json"}
        return build_app(release.to_dict(), SERVE, **own)

    serve.run(Older.bind(), name=APP_NAME, route_prefix="/")
    with pytest.raises(UserError, match=r"no keys in .* does not say whether it had some; put the file back if there"):
        build()
    serve.delete(APP_NAME)
    with pytest.raises(RuntimeError):
        serve.run(Broken.bind(), name=APP_NAME, route_prefix="/")
    build()  # the next try of a home without keys

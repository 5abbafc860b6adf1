"""A small catalogue with bad files, the whole flow run on it once by the real command, and a bucket."""

import os

import httpx
import pytest
import s3fs
from flow_fixtures import CATALOGUE, mulan, result_of, write_catalogue
from moto.server import ThreadedMotoServer


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Where a catalogue lies and state goes."""
    return write_catalogue(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def first(home):
    """What the first run returned; nothing of it is deployed."""
    return result_of(mulan("run", *CATALOGUE, "--no-serve", "--json", home=home))


@pytest.fixture(scope="module")
def bucket():
    """A bucket on an S3 server of this machine; before Ray, whose workers inherit its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    added = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    added["AWS_DEFAULT_REGION"] = "us-east-1"
    os.environ.update(added)
    httpx.post(f"http://{host}:{port}/moto-api/reset")  # moto's state is the process's, not the server's
    s3fs.S3FileSystem.clear_instance_cache()  # an earlier test's instance remembers the address that it was made with
    fs = s3fs.S3FileSystem()
    fs.mkdir("music")
    yield fs
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
    for name in added:
        del os.environ[name]

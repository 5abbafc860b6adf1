"""A small catalogue with bad files, the whole flow run on it once by the real command, and a bucket."""

import os
import sys

import httpx
import pytest
import s3fs
from flow_fixtures import CATALOGUE, ROOT, mulan_started, result_of, write_catalogue
from moto.server import ThreadedMotoServer

sys.path.insert(0, str(ROOT / "tests" / "serving"))

from proxy_fixtures import RefusingProxy

NASTY = "a home?of=100% %20 #1 ü;&=[x]$z'"
"""A folder's name with what means something else in addresses and shells."""


@pytest.fixture(autouse=True)
def _no_registry_of_another_test(monkeypatch):
    """MLflow writes the address that a process was told into its environment, where `read_settings` would find it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Where a catalogue lies and state goes; its name is the worst that a folder may have."""
    return write_catalogue(tmp_path_factory.mktemp(NASTY))


@pytest.fixture(scope="session")
def proxy():
    """A proxy that answers nobody, and keeps who asked it."""
    made = RefusingProxy()
    yield made
    made.close()


@pytest.fixture(scope="session")
def first(home, proxy):
    """What the first run returned, with a proxy in its environment; nothing of it is deployed."""
    return result_of(mulan_started("run", *CATALOGUE, "--no-serve", "--json", home=home, **proxy.environment()))


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

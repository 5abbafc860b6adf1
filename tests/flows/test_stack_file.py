"""What is said of the running stack: the lock decides, not the file that a dead owner has left."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from flow_fixtures import ROOT, mulan

from flows.doctor.machine import check_port
from flows.doctor.status import find_status
from flows.runtime.catalogues import Catalogue
from flows.runtime.endpoint import endpoint_url
from flows.runtime.file_lock import try_lock
from flows.runtime.settings import read_settings
from flows.runtime.stack_file import FILE, LOCK, Stack, note_endpoint, read_stack, running_stack, write_stack

OWNER = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which tests under nohup would pass on as ignored
from flows.runtime.settings import read_settings
from flows.runtime.file_lock import try_lock
from flows.runtime.stack_file import LOCK, Stack, write_stack
settings = read_settings()
settings.home.mkdir(parents=True)
lock = (settings.home / LOCK).open("w")
assert try_lock(lock)
addresses = "http://127.0.0.1:1/api", "http://127.0.0.1:2", "127.0.0.1:3"
write_stack(settings.home, Stack(*addresses, "", 7, "now", sys.argv[1]))
print("up", flush=True)
time.sleep(600)
"""
URL = "http://127.0.0.1:9123"
DEMO = Catalogue("demo")


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Of a home of our own, in a folder that is no workspace."""
    monkeypatch.setenv("MULAN_HOME", str(tmp_path / "home"))
    for name in ("MULAN_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return read_settings()


@pytest.fixture
def owner(settings):
    """A process that owns the stack."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", OWNER, URL], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_status_search_and_doctor_go_by_the_lock(how, owner, settings):
    home = settings.home
    assert running_stack(home) == read_stack(home) and endpoint_url(settings, DEMO) == URL
    assert find_status(settings)["stack"]["pid"] == 7
    assert [(one.level, URL in one.said) for one in check_port(settings)] == [("ok", True)]
    owner.send_signal(how)
    owner.wait()
    assert read_stack(home) is not None, "the file stays"
    assert running_stack(home) is None and endpoint_url(settings, DEMO) != URL
    assert find_status(settings)["stack"] is None
    assert URL not in next(iter(check_port(settings))).said


def test_who_looks_keeps_nobody_from_starting(settings):
    settings.home.mkdir(parents=True)
    with (settings.home / LOCK).open("w") as own, (settings.home / LOCK).open("rb") as look:
        assert try_lock(look, shared=True)
        start = time.monotonic()
        assert not try_lock(own) and time.monotonic() - start < 2
        look.close()
        assert try_lock(own)
        with (settings.home / LOCK).open("w") as second:
            assert not try_lock(second)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"pid": 1}', b"\xff"])
def test_a_damaged_file_says_nothing(content, settings, owner):
    file = settings.home / FILE
    file.write_bytes(content)
    assert running_stack(settings.home) is None and find_status(settings)["stack"] is None
    note_endpoint(settings.home, URL, "0.0.0.0", allow_open=True)
    assert file.read_bytes() == content


def test_the_endpoints_address_is_kept_and_a_file_of_another_version_is_read(settings):
    settings.home.mkdir(parents=True)
    stack = {"prefect_url": "a", "milvus_uri": "b", "ray_address": "c", "ray_auth_mode": "", "pid": 1, "started": "now"}
    (settings.home / FILE).write_text(json.dumps(stack | {"catalogue": "demo"}))
    assert read_stack(settings.home) == Stack(**stack, endpoint=None)
    note_endpoint(settings.home, URL, "0.0.0.0", allow_open=True)
    assert read_stack(settings.home) == Stack(**stack, endpoint=URL, host="0.0.0.0", allow_open=True)
    write_stack(settings.home, Stack(**stack))
    assert [path.name for path in settings.home.iterdir()] == ["stack.json"]


def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path):
    (tmp_path / "mine.csv").write_text("uri,text\na.wav,calm\n")
    (tmp_path / "a.wav").write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = mulan("serve", "--manifest", "mine.csv", "--port", str(port), home=tmp_path)
    assert done.returncode == 2 and f"port {port} on 127.0.0.1 is taken" in done.stderr
    assert not {"milvus", "prefect", "milvus.log", "prefect.log"} & {path.name for path in tmp_path.iterdir()}

"""The real Milvus engine for the contract tests: `milvus` 2.3.5 from PyPI in an environment of its own.

It is installed once, into MULAN_TEST_MILVUS or the user's cache folder, and runs over a folder of the test's.
"""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serving.child import Child
from serving.ports import free_port

PACKAGE = "milvus==2.3.5"
UNPACK = "import milvus, sys; milvus._initialize_data_files(sys.argv[1])"
# Becomes the engine, so that it ends with us; the package's own `milvus-server` would leave it behind.
START = """
import milvus, os, sys
engine, data, proxy_port, etcd_port = sys.argv[1:]
milvus.MilvusServerConfig(data_dir=data, proxy_port=proxy_port, etcd_port=etcd_port).resolve()
os.chdir(data)
os.environ |= {"DEPLOY_MODE": "STANDALONE", "MILVUS_RUN_DIR": data + "/run", "LD_LIBRARY_PATH": engine}
os.execv(engine + "/milvus", ["milvus", "run", "standalone"])
"""
ETCD = """
listen-client-urls: http://127.0.0.1:{0}
advertise-client-urls: http://127.0.0.1:{0}
listen-peer-urls: http://127.0.0.1:{1}
initial-advertise-peer-urls: http://127.0.0.1:{1}
initial-cluster: default=http://127.0.0.1:{1}
"""


def installed():
    """The folder of its environment; skips the test where it cannot be installed."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mulan" / "milvus-2.3.5"
    folder = Path(os.environ.get("MULAN_TEST_MILVUS", default))
    if (folder / ".installed").exists():
        return folder
    python = folder / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", "--clear", folder],
        # It asks for setuptools, whose newest releases have dropped what it imports.
        [python, "-m", "pip", "install", "-q", PACKAGE, "setuptools<81"],
        [python, "-c", UNPACK, folder / "engine"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{PACKAGE} cannot be installed here: {(done.stderr or done.stdout).strip()[-300:]}")
    (folder / ".installed").touch()
    return folder


@contextmanager
def running(data):
    """Its address, while it runs over a folder."""
    folder = installed()
    data.mkdir()
    proxy, etcd, peer, health = (free_port() for _ in range(4))
    (data / "etcd.yaml").write_text(ETCD.format(etcd, peer))
    child = Child(
        "Milvus",
        [*(str(folder / "bin" / "python"), "-c", START), *map(str, (folder / "engine" / "bin", data, proxy, etcd))],
        log_path=data.with_suffix(".log"),
        env={"ETCD_CONFIG_PATH": str(data / "etcd.yaml"), "METRICS_PORT": str(health)},
    )

    def answers():
        try:
            return "OK" in httpx.get(f"http://127.0.0.1:{health}/healthz").text
        except httpx.TransportError:
            return False

    try:
        child.wait_until(answers, timeout_s=120)
        yield f"http://127.0.0.1:{proxy}"
    finally:
        os.kill(child.pid, signal.SIGKILL)  # it takes its time to say goodbye
        child.stop()

"""The real Milvus engine for the contract tests, by infra/milvus.sh: over a folder of the test's, on free ports."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.ports import free_port, is_up
from serving.supervised_process import SupervisedProcess

SCRIPT = Path(__file__).parents[2] / "infra" / "milvus.sh"


@contextmanager
def running(data):
    """Its address, while it runs over a folder; skips the test where it cannot be installed."""
    done = subprocess.run(
        [SCRIPT, "install"], env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"Milvus cannot be installed here: {(done.stderr or done.stdout).strip()[-300:]}")
    proxy, etcd, peer, health = (free_port() for _ in range(4))
    command = [SCRIPT, "run", data, proxy, etcd, peer, health]
    child = SupervisedProcess("Milvus", [*map(str, command)], log_path=data.with_suffix(".log"))

    try:
        child.wait_until(lambda: is_up(f"http://127.0.0.1:{health}/healthz"), timeout_s=120)
        yield f"http://127.0.0.1:{proxy}"
    finally:
        os.kill(child.pid, signal.SIGKILL)  # it takes its time to say goodbye
        child.stop()

"""Ctrl-C at any moment: thirty points of ``mulan serve`` and ``mulan demo --exit``, the moment of readiness among them.

Each time everything ends within ten seconds, nothing is left running, the exit code says so, and the screen has one
line of it; and the work goes on where it was. A point is a moment of the command's own life (a process appears, the
endpoint is ready) and some time after it, so that a slow machine is interrupted in the same places as a fast one.
"""

import fcntl
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from flow_fixtures import ROOT, environment, left_of, processes_of

from serving.ports import free_port

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]

WITHIN_S = 10.0
COMMAND = [sys.executable, "-m", "flows.cli.start"]
"""As the console script starts, whatever is installed."""

START, READY, PROCESS, SAID = "after the start", "after readiness", "process", "words"
DEMO = [
    (START, 0.15), (START, 0.5), (START, 1.5), (START, 4.0), (PROCESS, "prefect server start", 0.5),
    (PROCESS, "multiprocessing.spawn", 0.5), (PROCESS, "multiprocessing.spawn", 4.0), (PROCESS, "Map(_FindWork)", 0.2),
    (PROCESS, "MapBatches(_Reading", 0.5), (PROCESS, "TrainController", 0.2), (PROCESS, "TrainWorker", 2.0),
    (PROCESS, "TrainWorker", 6.0), (PROCESS, "ServeController", 0.2), (PROCESS, "ServeReplica", 0.1), (READY, 0.0),
]  # fmt: skip
SERVE = [
    (START, 0.1), (START, 0.7), (START, 2.0), (PROCESS, "milvus-lite", 0.3), (PROCESS, "gcs_server", 0.2),
    (PROCESS, "raylet", 1.0), (PROCESS, "ServeController", 0.5), (PROCESS, "ServeReplica", 1.0), (READY, 0.0),
    (READY, 0.0), (READY, 0.0), (READY, 0.02), (READY, 0.1), (READY, 0.5), (SAID, "Ctrl-C stops it", 3.0),
]  # fmt: skip
assert len(DEMO) + len(SERVE) == 30


class Command:
    """A command of this home that is told to end."""

    def __init__(self, home, *arguments, cwd, port):
        self.home, self.port = home, port
        self.words = home.with_name(f"{arguments[0]}.log")
        with self.words.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments, "--port", str(port)], cwd=cwd, env=environment(home), stdout=log, stderr=log
            )

    def wait_for(self, kind, *what):
        """Return at a point of its life."""
        *named, pause_s = what
        seen = {START: self._watches, READY: self._is_ready, PROCESS: self._has, SAID: self._said}[kind]
        deadline = time.monotonic() + 400
        while not seen(*named):
            assert self.process.poll() is None, f"it ended before: {self.said()[-3000:]}"
            assert time.monotonic() < deadline, f"never there: {self.said()[-3000:]}"
        time.sleep(pause_s)
        assert self.process.poll() is None, f"it ended before: {self.said()[-3000:]}"

    def _watches(self):
        """Whether its first lines have run: before, Python itself answers the signal."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        return bool(caught >> (signal.SIGUSR2 - 1) & 1)

    def _is_ready(self):
        time.sleep(0.005)
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=10).status_code == 200
        return False

    def _has(self, word):
        time.sleep(0.03)
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if word in " ".join(child.cmdline()):
                        return True
        return False

    def _said(self, words):
        time.sleep(0.03)
        return words in self.said()

    def said(self):
        return self.words.read_text(errors="replace")

    def end(self, signum, again=()):
        """Send the signal; returns what is wrong with how it ended, and the seconds that it took."""
        family = [p for p in processes_of(self.home) if p.pid != self.process.pid]
        family += psutil.Process(self.process.pid).children(recursive=True)
        before, began = len(self.said()), time.monotonic()
        self.process.send_signal(signum)
        for pause_s in again:
            time.sleep(pause_s)
            self.process.send_signal(signum)
        wrong = []
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            code = f"none after {time.monotonic() - began:.0f} s"
            self.process.kill()
        seconds = time.monotonic() - began
        if code != 128 + signum:
            wrong.append(f"exit code {code}")
        if seconds > WITHIN_S:
            wrong.append(f"{seconds:.1f} s")
        if left := left_of(self.home, within_s=max(0.0, began + WITHIN_S - time.monotonic())):
            wrong.append(f"left: {left}")
        if left := [p.pid for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
            wrong.append(f"left of its family: {left}")
        if (self.home / "stack.json").exists():
            wrong.append("stack.json is there")
        with (self.home / "stack.lock").open("a") as lock, suppress(FileNotFoundError):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                wrong.append("the lock is held")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                wrong.append("the port answers")
        said = self.said()[before:]
        if "Traceback" in said or "Exception ignored" in said or "***" in said:
            wrong.append(f"a traceback: {said[-2000:]}")
        if said.count("stopped") > 1 or len([line for line in said.splitlines() if "mulan:" in line]) > 1:
            wrong.append(f"more than a line: {said[-2000:]}")
        return wrong, seconds


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the demo's smallest numbers, a home, and a port."""
    folder = tmp_path_factory.mktemp("interrupted")
    numbers = yaml.safe_load((ROOT / "params.yaml").read_text())
    numbers["corpus"] |= {"clip_s": 6.0}
    numbers["prepare"] |= {"clip_s": 6.0}
    audio = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    numbers["model"]["audio"] |= audio
    numbers["train"] |= {"steps": 60, "batch_size": 16, "checkpoint_every": 10, "warmup_steps": 2, "log_every": 5}
    numbers["evaluate"] |= {"bootstrap": 10, "num_triplets": 20}
    numbers["gate"] = {"floors": {"retrieval/text/auc": 0.0}, "compare": [], "min_items": 1, "min_slice_items": 1000,
                       "max_intrusion": 1, "max_encode_ms": {"text": 60000, "clip": 60000}}  # fmt: skip
    (folder / "params.yaml").write_text(yaml.safe_dump(numbers))
    shutil.copy(ROOT / "dvc.yaml", folder)
    home = folder / "home"
    home.mkdir()
    return folder, home, free_port()


def interrupt(place, arguments, point, signum=signal.SIGINT, again=()):
    folder, home, port = place
    command = Command(home, *arguments, cwd=folder, port=port)
    try:
        command.wait_for(*point)
        wrong, seconds = command.end(signum, again)
    finally:
        with suppress(OSError):
            command.process.kill()
    sys.stdout.write(f"{arguments[0]} {point} {signal.Signals(signum).name}: {seconds:.1f} s {wrong or ''}\n")
    assert wrong == []


SIZED = ("demo", "--exit", "--size", "48")


@pytest.mark.parametrize("point", DEMO, ids=lambda point: " ".join(map(str, point)))
def test_the_demo_ends_wherever_it_is(place, point):
    interrupt(place, SIZED, point)


def test_what_was_interrupted_goes_on_to_its_end(place):
    folder, home, port = place
    command = Command(home, *SIZED, cwd=folder, port=port)
    assert command.process.wait(600) == 0, command.said()[-3000:]
    assert left_of(home, within_s=10) == []


@pytest.mark.parametrize("point", SERVE, ids=lambda point: " ".join(map(str, point)))
def test_the_endpoint_ends_wherever_it_is(place, point):
    interrupt(place, ("serve",), point)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "point", [(START, 0.5), (PROCESS, "raylet", 1.0), (READY, 0.0), (SAID, "Ctrl-C stops it", 1.0)]
)
def test_other_ways_to_end_it(place, point, signum):
    interrupt(place, ("serve",), point, signum)


@pytest.mark.parametrize("again", [(0.0,), (0.3, 0.3, 0.3), (2.0, 1.0)])
def test_impatience_leaves_nothing_behind(place, again):
    interrupt(place, ("serve",), (READY, 0.1), again=again)

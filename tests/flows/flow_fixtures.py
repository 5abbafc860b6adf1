"""What the flows' tests share beside fixtures: the real command, and who of a home still runs."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
MULAN = Path(sys.executable).parent / "mulan"
CATALOGUE = ("--manifest", "tones.jsonl", "--params", "params.yaml")


def environment(home):
    """That of a person who works in this home; what libraries have set in the tests' own process is not handed on."""
    own = ("PREFECT_HOME", "MLFLOW_TRACKING_URI")
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    return inherited | {"MULAN_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def mulan(*arguments, home, cwd=None, **env):
    """The finished command, run in the home unless another folder is given."""
    env = environment(home) | env
    return subprocess.run([MULAN, *arguments], cwd=cwd or home, env=env, capture_output=True, text=True, timeout=900)


def result_of(done):
    """What a command with ``--json`` printed."""
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def processes_of(home):
    """Processes that have this home in their environment or on their command line; a zombie has ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if str(home) in " ".join(process.cmdline()) or process.environ().get("MULAN_HOME") == str(home):
                found.append(process)
    return found


def left_of(home, *, within_s=0.0):
    """Command lines of what runs, after at most this long."""
    deadline = time.monotonic() + within_s
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [" ".join(process.cmdline())[:160] for process in left]


def prepared_of(home):
    return next((home / "workspaces").glob("tones-*")) / ".mulan" / "data" / "prepared"

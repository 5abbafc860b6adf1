"""The endpoint for minutes at 70 % of what it can do: no error, and memory that stays flat.

pytest tests/load -m load -s --minutes 30
"""

import asyncio
import json

import numpy as np
import psutil
import pytest
import ray
from closed_loop import drive, search_body

from mulan_core.config import ServeConfig
from serving.deployment import build_app, deploy, undeploy
from serving.ports import free_port

pytestmark = pytest.mark.load

CALLERS = 32
SHARE = 0.7
EVERY_S = 2.0
"""Between two looks at memory."""
MAX_GROWTH = 0.05
"""Of a process's memory, from the first half of the soak to its end."""


@pytest.fixture
def url(release, milvus, edits):
    """The release, served with the default limits."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        app = build_app(release.to_dict(), ServeConfig(), milvus_uri=milvus.uri, edits=edits.location)
        yield deploy(app, host="127.0.0.1", port=free_port())
        undeploy()
    finally:
        ray.shutdown()


def served_by(milvus):
    """The processes that a search passes."""
    found = {"Milvus": psutil.Process(milvus.pid)}
    for process in psutil.Process().children(recursive=True):
        title = " ".join(process.cmdline())
        for name, words in {"replica": "ServeReplica:mulan", "proxy": "ProxyActor"}.items():
            if words in title:
                found[name] = process
    assert sorted(found) == ["Milvus", "proxy", "replica"]
    return found


async def soak(url, processes, *, per_s, seconds):
    """The run, and each process's memory in MB at every look."""
    run = asyncio.create_task(drive(url, search_body, callers=CALLERS, seconds=seconds, seed=10**8, per_s=per_s))
    memory = {name: [] for name in processes}
    while not run.done():
        for name, process in processes.items():
            memory[name].append(process.memory_info().rss / 2**20)
        await asyncio.sleep(EVERY_S)
    return await run, memory


@pytest.mark.timeout(0)  # it lasts as long as it is told to
def test_minutes_at_70_percent_of_saturation(url, milvus, pytestconfig):
    asyncio.run(drive(url, search_body, callers=CALLERS, seconds=5, seed=0))  # warm up
    full = asyncio.run(drive(url, search_body, callers=CALLERS, seconds=20, seed=10**7)).summary()
    seconds = 60 * pytestconfig.getoption("minutes")
    run, memory = asyncio.run(soak(url, served_by(milvus), per_s=SHARE * full["per_s"], seconds=seconds))
    found = {"saturation": full, "soak": run.summary()}
    for name, megabytes in memory.items():
        half = len(megabytes) // 2
        found[name] = {
            "first_half_mb": round(float(np.median(megabytes[:half]))),
            "end_mb": round(float(np.median(megabytes[-max(1, half // 5) :]))),
        }
    print(json.dumps(found))  # noqa: T201 - what it measured
    assert set(run.statuses) == {200}, found
    assert run.summary()["per_s"] > 0.9 * SHARE * full["per_s"], found
    for name in memory:
        assert found[name]["end_mb"] <= (1 + MAX_GROWTH) * found[name]["first_half_mb"], (name, memory[name])

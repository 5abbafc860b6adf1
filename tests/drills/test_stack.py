"""By configuration only: infra/stack.sh starts every server, Prefect's API starts the flow, the endpoint answers.

PostgreSQL, MLflow and Prefect on it, S3, the Milvus engine and two Ray nodes with a token are real; MuLan is told of
them by the file ``env`` that the script writes, and by nothing else.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest
import s3fs

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from flow_fixtures import MULAN, ROOT, write_catalogue

from mulan_core.config import load_config
from serving.ports import free_port
from serving.store import TrackStore

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def stack():
    """What a shell has in its environment after ``. FOLDER/env``."""
    folder = Path(tempfile.mkdtemp(prefix="mulan-stack-"))
    folder.chmod(0o755)  # PostgreSQL runs as a user of its own where we are root
    env = os.environ | {"PATH": f"{MULAN.parent}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    script = subprocess.Popen(
        [ROOT / "infra" / "stack.sh", folder, str(free_port())], env=env, stdout=subprocess.PIPE, text=True
    )
    said = []
    for line in script.stdout:
        said.append(line)
        if line.startswith("ready"):
            break
    else:
        if "PostgreSQL is not here" in "".join(said):
            pytest.skip("PostgreSQL is not installed")
        pytest.fail(f"the stack did not come up; its logs are in {folder}/log")
    sourced = subprocess.run(["bash", "-c", f". {folder}/env && env -0"], env=env, capture_output=True, text=True)
    yield dict(entry.split("=", 1) for entry in sourced.stdout.split("\0") if entry)
    script.send_signal(signal.SIGINT)
    assert script.wait(timeout=120) == 0
    assert str(folder) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    return write_catalogue(tmp_path_factory.mktemp("catalogue"))


def trigger(stack, catalogue):
    """Start the deployment as Prefect's UI does; returns the run's last state."""
    user, password = stack["PREFECT_API_AUTH_STRING"].split(":")
    api = httpx.Client(base_url=stack["PREFECT_API_URL"], auth=(user, password), timeout=60)
    deployment = api.get("/deployments/name/end_to_end/end_to_end").raise_for_status().json()["id"]
    parameters = {"manifest": str(catalogue / "tones.jsonl"), "params": str(catalogue / "params.yaml")}
    started = api.post(f"/deployments/{deployment}/create_flow_run", json={"parameters": parameters})
    path = f"/flow_runs/{started.raise_for_status().json()['id']}"
    while (state := api.get(path).json()["state"])["type"] in ("SCHEDULED", "PENDING", "RUNNING"):
        time.sleep(1)
    return state


def mulan(*arguments, stack, cwd, **env):
    return subprocess.run([MULAN, *arguments], cwd=cwd, env=stack | env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def url(stack, catalogue):
    """The endpoint that the flow has deployed into the Ray cluster."""
    state = trigger(stack, catalogue)
    assert state["type"] == "COMPLETED", state["message"]
    return f"http://127.0.0.1:{load_config(catalogue / 'params.yaml').serve.port}"


def test_the_endpoint_answers(url):
    answer = httpx.post(f"{url}/v1/search", json={"text": "high buzzing", "k": 5}).raise_for_status().json()
    assert {"pitch:high", "shape:buzzing"} == set(answer["hits"][0]["labels"])
    assert answer["release"]["model_version"] == "1"


def test_each_server_has_its_share(stack, url, catalogue):
    bucket = s3fs.S3FileSystem(
        key=stack["AWS_ACCESS_KEY_ID"],
        secret=stack["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=stack["AWS_ENDPOINT_URL"],
        skip_instance_cache=True,
    )
    for folder in ("dvc", "checkpoints", "mlflow"):
        assert bucket.find(f"mulan/{folder}"), folder
    store = TrackStore(stack["MULAN_MILVUS_URI"], stack["MULAN_MILVUS_TOKEN"])
    assert [store.collections.describe(name).count for name in store.collections.list_collections()] == [60]
    found = json.loads(mulan("status", "--json", stack=stack | {"MULAN_URL": url}, cwd=catalogue).stdout)
    assert found["champion"]["version"] == found["endpoint"]["model_version"] == "1"
    assert found["runs"][0]["status"] == "finished"
    local = {path.name for path in Path(stack["MULAN_HOME"]).iterdir()}
    assert local.isdisjoint({"mlflow.db", "artifacts", "milvus", "ray_results", "prefect"}), local


def test_the_doctor_finds_nothing_wrong(stack, url, catalogue):
    done = mulan("doctor", "--json", stack=stack | {"MULAN_URL": url}, cwd=catalogue)
    findings = json.loads(done.stdout)
    assert [one for one in findings if one["level"] == "failure" and one["check"] != "port"] == []
    assert "2 nodes" in next(one["said"] for one in findings if one["check"] == "Ray")


@pytest.mark.parametrize(
    ("variable", "named"),
    [
        ("RAY_AUTH_TOKEN", "Ray"),
        ("PREFECT_API_AUTH_STRING", "Prefect"),
        ("MULAN_MILVUS_TOKEN", "Milvus"),
        ("MULAN_CHECKPOINTS", "MULAN_CHECKPOINTS"),
    ],
)
def test_a_wrong_secret_is_one_sentence(variable, named, stack, url, catalogue):
    wrong = {"MULAN_CHECKPOINTS": "s3://nobody/here"}.get(variable, "root:" + "0" * 32)
    numbers = catalogue / "longer.yaml"  # something to train
    done = mulan(
        "train", "--manifest", "tones.jsonl", "--params", str(numbers), stack=stack, cwd=catalogue, **{variable: wrong}
    )
    said = done.stderr.strip().splitlines()
    assert done.returncode == 2 and named in said[-1] and "Traceback" not in done.stderr, done.stderr[-2000:]


def test_training_through_rays_client(stack, url, catalogue):
    host, port = "127.0.0.1", int(stack["RAY_ADDRESS"].rsplit(":", 1)[1]) + 2  # the script's ports stand in a row
    numbers = ("--manifest", "tones.jsonl", "--params", "longer.yaml")
    done = mulan("train", *numbers, "--address", f"ray://{host}:{port}", "--json", stack=stack, cwd=catalogue)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["steps"] == 120
    refused = mulan("index", *numbers, stack=stack, cwd=catalogue, RAY_ADDRESS=f"ray://{host}:{port}")
    assert refused.returncode == 2 and "submit the command as a Ray job" in refused.stderr


def test_a_second_run_finds_everything_done(stack, url, catalogue):
    assert trigger(stack, catalogue)["type"] == "COMPLETED"
    assert httpx.get(f"{url}/readyz").json()["release"]["model_version"] == "1"

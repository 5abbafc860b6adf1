"""A running ``mulan serve``, and what joins it: the command line, and flows triggered through Prefect.

As docs/operate.md has it: a Prefect server, a worker and the deployments of prefect.yaml, all real.
"""

import functools
import http.server
import ipaddress
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import grpc
import httpx
import mlflow
import psutil
import pytest
import torch
from flow_fixtures import (
    CATALOGUE,
    MULAN,
    ROOT,
    environment,
    left_of,
    mulan,
    prepared_of,
    processes_of,
    result_of,
    serving,
)
from prepared_fixtures import PITCHES, SHAPES

from flows.runtime.database import database_uri
from flows.runtime.workspace_lock import hold
from mulan_core import MuLanModel
from mulan_core.classifier import AudioClassifier
from mulan_core.config import load_config
from serving.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PREFECT = Path(sys.executable).parent / "prefect"


def test_a_flow_called_from_python_keeps_the_server_that_prefect_started(home, first):
    program = textwrap.dedent("""
        from flows.runtime.settings import read_settings
        read_settings()
        from prefect import flow
        from flows.runtime.prefect_server import find_api

        assert find_api() is None
        print(flow(find_api)())
    """)
    done = subprocess.run([sys.executable, "-c", program], env=environment(home), capture_output=True, text=True)
    assert re.fullmatch(r"http://127.0.0.1:\d+/api", done.stdout.strip()), done.stderr[-2000:]
    assert left_of(home, within_s=10) == []


@pytest.fixture(scope="module")
def told():
    """What came to the address that is to be told of failures."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", received=received)
    server.shutdown()


def wait_until(found, within_s):
    """What ``found`` returns, once that is something."""
    deadline = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"nothing after {within_s} s"
        time.sleep(0.5)
    return value


@dataclass
class Served:
    """A ``mulan serve`` of the test's home."""

    process: subprocess.Popen
    url: str


@pytest.fixture(scope="module")
def prefect_url(home, first, told):
    """The API of ``prefect server start``, with the deployments and a worker."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    env = environment(home) | {"PREFECT_HOME": str(home / "prefect"), "MULAN_CHECKOUT": str(ROOT)}
    env |= {"MULAN_NOTIFY_URL": told.url}

    def prefect(*arguments):
        done = subprocess.run([PREFECT, "--no-prompt", *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    with (home / "prefect-server.log").open("w") as log:
        server = subprocess.Popen([PREFECT, "server", "start", "--port", str(port)], env=env, stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                break
        except httpx.HTTPError:
            time.sleep(0.2)
    env["PREFECT_API_URL"] = url
    prefect("work-pool", "create", "mulan", "--type", "process")
    prefect("deploy", "--all")
    with (home / "prefect-worker.log").open("w") as log:
        worker = subprocess.Popen(
            [PREFECT, "worker", "start", "--pool", "mulan"], cwd=ROOT, env=env, stdout=log, stderr=log
        )
    yield url
    for process in (worker, server):  # one after the other: a worker whose server is gone waits for it
        process.terminate()
        with suppress(subprocess.TimeoutExpired):  # now and then Prefect's worker waits for ever for itself
            process.wait(timeout=30)
        process.kill()


@pytest.fixture(scope="module")
def served(home, prefect_url):
    with serving(*CATALOGUE, home=home, PREFECT_API_URL=prefect_url) as (process, url):
        yield Served(process, url)


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_a_deployment_goes_to_another_kind_of_pool(kind, prefect_url, home, tmp_path):
    """As far as it goes without an engine: the server takes the pool and the deployment."""
    env = environment(home) | {"PREFECT_API_URL": prefect_url, "MULAN_CHECKOUT": "/opt/mulan"}
    template = str(ROOT / "infra" / "prefect" / f"{kind}.json")
    pool = tmp_path / "prefect.yaml"
    pool.write_text((ROOT / "prefect.yaml").read_text().replace("name: mulan\n\ndep", f"name: {kind}\n\ndep"))
    for command in (
        ("work-pool", "create", kind, "--type", kind, "--base-job-template", template),
        ("deploy", "--name", "retrain", "--prefect-file", str(pool)),
    ):
        done = subprocess.run([PREFECT, "--no-prompt", *command], cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert httpx.get(f"{prefect_url}/work_pools/{kind}").json()["base_job_template"]["variables"]["properties"]["image"]


def search(served, text, home):
    return result_of(mulan("search", text, "--k", "5", "--url", served.url, "--json", home=home))


def test_the_command_line_asks_it(home, first, served):
    answer = search(served, "high buzzing", home)
    assert len(answer["hits"]) == 5
    assert answer["release"]["model_version"] == first["register"]["version"]
    assert result_of(mulan("tag", "0.wav", "--url", served.url, "--json", home=home))["labels"]


def test_only_serves_replica_listens_beyond_this_machine_and_wants_a_token(home, served):
    beyond = [
        (process.name(), connection.laddr.port)
        for process in processes_of(home)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
        and not ipaddress.ip_address(connection.laddr.ip.removeprefix("::ffff:")).is_loopback
    ]
    assert all(name.startswith("ray::ServeReplica") for name, _ in beyond), beyond
    for _, port in beyond:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_another_owner_is_refused(home, served):
    refused = mulan("serve", *CATALOGUE, home=home)
    assert refused.returncode == 2 and "another mulan is running" in refused.stderr


def test_a_second_run_does_nothing_again(home, first, served, prefect_url):
    before = {path: path.stat().st_mtime_ns for path in prepared_of(home).rglob("*.parquet")}
    second = result_of(mulan("run", *CATALOGUE, "--no-serve", "--json", home=home, PREFECT_API_URL=prefect_url))
    assert {path: path.stat().st_mtime_ns for path in prepared_of(home).rglob("*.parquet")} == before
    assert second["train"] == first["train"]
    assert second["register"]["version"] == first["register"]["version"]
    assert second["index"]["built"] is False
    # ``dvc repro`` by hand agrees that everything is up to date.
    # The stage ``judge`` looks at the rules' code each time, so it alone is never up to date.
    command = [sys.executable, "-m", "dvc", "status", "text", "prepare"]
    status = subprocess.run(command, cwd=prepared_of(home).parents[2], capture_output=True, text=True)
    assert "up to date" in status.stdout


def test_a_run_triggered_through_prefect_switches_the_release(home, first, served, prefect_url):
    """With the numbers of another training run; the endpoint answers all the while."""
    with httpx.Client(base_url=f"{prefect_url}/", timeout=60) as api:
        deployment = api.get("deployments/name/end_to_end/end_to_end").raise_for_status().json()
        assert deployment["parameter_openapi_schema"]["properties"].keys() >= {"manifest", "playlists", "params"}
        parameters = {"manifest": str(home / "tones.jsonl"), "params": str(home / "longer.yaml"), "serve": True}
        created = api.post(f"deployments/{deployment['id']}/create_flow_run", json={"parameters": parameters})
        run, deadline = created.raise_for_status().json(), time.monotonic() + 600
        while run["state_type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") and time.monotonic() < deadline:
            assert httpx.get(f"{served.url}/livez", timeout=60).status_code == 200
            time.sleep(1)
            run = api.get(f"flow_runs/{run['id']}").json()
        assert run["state_type"] == "COMPLETED", (run["state"], (home / "prefect-worker.log").read_text()[-3000:])
        of_run = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
        artifact = api.post("artifacts/filter", json=of_run).json()[0]
        assert artifact["key"] == "end-to-end" and "passed the gate" in artifact["data"]
    answer = search(served, "low smooth", home)
    assert answer["hits"]
    assert int(answer["release"]["model_version"]) > int(first["register"]["version"])
    page = artifact["data"]
    assert page.startswith(f"# Version {answer['release']['model_version']} passed") and f"({served.url}/)" in page
    assert re.search(r"\| loss \| \S+ \| `[▁-█]+` \|", page) and "| prepare |" in page


def test_a_run_that_is_cancelled_leaves_nothing_at_work(home, first, served, prefect_url):
    params = (home / "params.yaml").read_text().replace("steps: 40", "steps: 20000")
    (home / "endless.yaml").write_text(params)
    client = mlflow.MlflowClient(database_uri(home / "mlflow.db"))
    find = functools.partial(client.search_runs, ["1"], "params.`train.steps` = '20000'")
    with httpx.Client(base_url=f"{prefect_url}/", timeout=60) as api:
        deployment = api.get("deployments/name/train/train").raise_for_status().json()["id"]
        parameters = {"manifest": str(home / "tones.jsonl"), "params": str(home / "endless.yaml")}
        run = api.post(f"deployments/{deployment}/create_flow_run", json={"parameters": parameters}).json()["id"]
        wait_until(lambda: [r for r in find() if "loss" in r.data.metrics], 120)
        cancel = {"state": {"type": "CANCELLING"}}
        assert api.post(f"flow_runs/{run}/set_state", json=cancel).raise_for_status().json()["status"] == "ACCEPT"
        wait_until(lambda: api.get(f"flow_runs/{run}").json()["state_type"] == "CANCELLED", 120)
    wait_until(lambda: not [line for line in left_of(home) if "RayTrainWorker" in line], 60)
    assert [r.info.status for r in find()] == ["FAILED"]
    assert search(served, "low smooth", home)["hits"]


def test_a_run_that_fails_is_told_in_one_sentence(home, first, prefect_url, told):
    """In the log of the run and to MULAN_NOTIFY_URL."""
    with httpx.Client(base_url=f"{prefect_url}/", timeout=60) as api:
        deployment = api.get("deployments/name/end_to_end/end_to_end").raise_for_status().json()["id"]
        parameters = {"manifest": str(home / "no-such.csv")}
        run = api.post(f"deployments/{deployment}/create_flow_run", json={"parameters": parameters}).json()
        wait_until(lambda: api.get(f"flow_runs/{run['id']}").json()["state_type"] == "FAILED", 120)
        wait_until(lambda: told.received, 30)
        (said,) = told.received  # of this one, and of none that was cancelled
        assert re.fullmatch(r"MuLan: end_to_end failed: .*no-such\.csv.* \(run [^ ]+, http\S+\)", said["text"]), said
        of_run = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}
        wait_until(
            lambda: said["text"] in [line["message"] for line in api.post("logs/filter", json=of_run).json()], 30
        )


def test_few_new_tracks_are_indexed_and_not_trained_on(home, first, served, prefect_url):
    before = result_of(mulan("release", "list", "--json", home=home))
    done = mulan("run", *CATALOGUE, "--min-new", "5", "--no-serve", "--json", home=home, PREFECT_API_URL=prefect_url)
    result = result_of(done)
    assert result["skipped"].startswith("0 tracks are new since champion ") and "train" not in result
    assert result["index"]["count"] == 60 and len(result_of(mulan("release", "list", "--json", home=home))) == len(
        before
    )


def test_two_flows_at_once_on_one_catalogue_are_kept_apart(home, first, served):
    workspace = prepared_of(home).parents[2]
    for held, asked in (("train", "prepare"), ("prepare", "train"), ("train", "train")):
        with hold(workspace, held):
            refused = mulan(asked, *CATALOGUE, home=home)
        assert refused.returncode == 2, refused.stderr
        assert f"process {os.getpid()}" in refused.stderr and "wait for it to end" in refused.stderr


@pytest.mark.drill
def test_an_ablation_that_was_killed_goes_on_where_it_was(home, served, prefect_url):
    """Two rows with two seeds, killed after the first run: the second command trains three, under the same parent."""
    client = mlflow.MlflowClient(database_uri(home / "mlflow.db"))

    def done():
        runs = client.search_runs(["1"], "tags.`mulan.kind` = 'ablate'")
        return {run.info.run_id: run.info.end_time for run in runs if "mulan.measured" in run.data.tags}

    command = ("ablate", *CATALOGUE, "--seeds", "2", "--json")
    env = environment(home) | {"PREFECT_API_URL": prefect_url}
    with (home / "killed.log").open("w") as log:
        process = subprocess.Popen([MULAN, *command], cwd=home, env=env, stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while not (before := done()) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.5)
        process.kill()
        process.wait()
    assert len(before) == 1, (home / "killed.log").read_text()[-3000:]
    (parent,) = client.search_runs(["1"], "tags.`mulan.study` = 'ablate'")

    finished = mulan(*command, home=home, PREFECT_API_URL=prefect_url)
    result = result_of(finished)
    assert "(1 of 4, done before)" in finished.stderr and "(4 of 4)" in finished.stderr
    assert result["run_id"] == parent.info.run_id
    assert before.items() <= done().items()  # the run of before has not been opened again
    children = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.info.run_id for run in children} == {trial["run_id"] for trial in result["trials"]} == set(done())
    assert {(trial["row"], trial["seed"]) for trial in result["trials"]} == {
        (row, seed) for row in ("aset", "tags unfiltered") for seed in (0, 1)
    }
    for run in children:
        history = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
        assert history == sorted(set(history)) and history[-1] == 10
    assert {"ablation.md", "ablation.html", "ablation.png", "ablation.json"} <= {
        item.path for item in client.list_artifacts(result["run_id"])
    }
    assert "differences stand" in result["words"] and "tags unfiltered" in result["page"]
    assert client.get_run(result["run_id"]).info.status == "FINISHED"


def test_a_classifier_of_the_labels_is_trained_once_and_warms_up_the_towers(home, first, served, prefect_url):
    """The paper's start of its audio tower, through the command; its folder is then a warm start."""
    done = mulan("train", "--task", "tagging", *CATALOGUE, "--json", home=home, PREFECT_API_URL=prefect_url)
    result = result_of(done)
    classifier = AudioClassifier.from_pretrained(result["model"])
    assert classifier.labels == tuple(sorted(f"pitch:{p}" for p in PITCHES) + sorted(f"shape:{s}" for s in SHAPES))
    assert result["run_id"] != first["train"]["run_id"]
    config = load_config(home / "params.yaml").model
    warm = MuLanModel.from_config(replace(config, audio=replace(config.audio, pretrained=result["model"])))
    for name, value in classifier.audio_tower.encoder.state_dict().items():
        assert torch.equal(value, warm.audio_tower.encoder.state_dict()[name]), name


def test_ctrl_c_ends_it(home, served):
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(timeout=120) == 128 + signal.SIGINT
    # The server and the worker of this test go on.
    assert [line for line in left_of(home) if str(PREFECT) not in line] == []

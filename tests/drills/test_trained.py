"""Training that is broken into: a worker, a node, the driver, half the cluster. It goes on, in one MLflow run.

The cluster is of several Ray nodes on this machine, each with its own processes; every worker needs a node's only CPU.
"""

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import mlflow
import psutil
import pytest
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from prepared_fixtures import TINY_MODEL, write_prepared

ROOT = Path(__file__).parents[2]
STEPS, CHECKPOINT_EVERY, LOG_EVERY = 60, 10, 5
TOLERANCE = 1e-4
"""Of the loss, absolute. The same batches in the same order; only the order in which floats are added may differ."""
DRIVER = f"""
import json, sys
from pathlib import Path
import ray
from flows.pipeline.train import fit_model
from mulan_core.config import Config, from_mapping

address, prepared, home, numbers = sys.argv[1:]
config = from_mapping(Config, {{
    "model": {TINY_MODEL!r},
    "train": {{
        "steps": {STEPS}, "batch_size": 8, "num_workers": 2, "warmup_steps": 4, "precision": "fp32",
        "checkpoint_every": {CHECKPOINT_EVERY}, "log_every": {LOG_EVERY}, "audio_chunk": 4,
        **json.loads(numbers),
    }},
}})
ray.init(address=address, log_to_driver=False)
trained = fit_model(config, Path(prepared), data_hash="d", mlflow_uri=f"sqlite:///{{home}}/mlflow.db",
                home=Path(home), checkpoints=f"{{home}}/ray_results")
print(json.dumps({{"run_id": trained.run_id, "model": str(trained.model)}}))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs and two nodes of one; a drill that kills a node adds another first."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def start(cluster, prepared, home, **numbers):
    command = [sys.executable, "-c", DRIVER, cluster.address, prepared, home, json.dumps(numbers)]
    return subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(driver):
    said, errors = driver.communicate(timeout=240)
    assert driver.returncode == 0, errors[-3000:]
    return json.loads(said.strip().splitlines()[-1])


def losses(home):
    """(step, loss) as MLflow has them, of the only run there is."""
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("mulan")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    assert len(runs) <= 1, "one run, however often it began again"
    return [(p.step, p.value) for p in client.get_metric_history(runs[0].info.run_id, "loss")] if runs else []


def wait_for_step(home, step, driver):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert driver.poll() is None, driver.communicate()[1][-3000:]
        # Not by MLflow: a second client would migrate the new database too.
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(home / "mlflow.db")) as database:
            (reached,) = database.execute("SELECT max(step) FROM metrics WHERE key = 'loss'").fetchone()
            if (reached or 0) >= step:
                return
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached in two minutes")


def trainers():
    """Processes of the training workers, which Ray names after their class."""
    return [p for p in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(p.info["cmdline"] or ())]


@pytest.fixture(scope="module")
def uncut(cluster, prepared, tmp_path_factory):
    """The loss curve of a run that nobody disturbed."""
    home = tmp_path_factory.mktemp("uncut")
    finish(start(cluster, prepared, home))
    curve = losses(home)
    assert [step for step, _ in curve] == list(range(LOG_EVERY, STEPS + 1, LOG_EVERY))
    return curve


def check_same(home, uncut):
    curve = losses(home)
    assert [step for step, _ in curve] == [step for step, _ in uncut], "each point once, none missing"
    assert [loss for _, loss in curve] == pytest.approx([loss for _, loss in uncut], abs=TOLERANCE)


def test_a_worker_dies(cluster, prepared, uncut, tmp_path):
    driver = start(cluster, prepared, tmp_path)
    wait_for_step(tmp_path, 25, driver)
    trainers()[0].kill()
    finish(driver)
    check_same(tmp_path, uncut)


def test_a_node_dies(cluster, prepared, uncut, tmp_path):
    cluster.add_node(num_cpus=1)  # where the worker goes afterwards
    driver = start(cluster, prepared, tmp_path)
    wait_for_step(tmp_path, 25, driver)
    worker = trainers()[0]
    held = next(n for n in cluster.worker_nodes if worker.ppid() == n.all_processes["raylet"][0].process.pid)
    cluster.remove_node(held, allow_graceful=False)
    finish(driver)
    check_same(tmp_path, uncut)


def test_half_of_the_cluster_goes_and_training_with_it_grows_smaller(cluster, prepared, uncut, tmp_path):
    """The batch stays the same, in chunks that are the same, so that the curve does not tell."""
    while len(cluster.worker_nodes) > 2:
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    driver = start(cluster, prepared, tmp_path, min_workers=1)
    wait_for_step(tmp_path, 25, driver)
    assert len(trainers()) == 2
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    finish(driver)
    check_same(tmp_path, uncut)
    cluster.add_node(num_cpus=1)


def test_the_driver_dies_and_starts_again(cluster, prepared, uncut, tmp_path):
    driver = start(cluster, prepared, tmp_path)
    wait_for_step(tmp_path, 25, driver)
    driver.kill()
    driver.communicate()
    reached = max(step for step, _ in losses(tmp_path))
    again = finish(start(cluster, prepared, tmp_path))
    assert reached < STEPS and Path(again["model"]).is_dir()
    check_same(tmp_path, uncut)

"""Prepared data under DVC: pushed, pulled, read back and compared, with a remote on S3 (moto's server)."""

import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest
import yaml
from moto.server import ThreadedMotoServer

from flows.pipeline import data
from flows.pipeline.versions import count_new_tracks, read_version, resolve_data
from flows.registry import Registry
from flows.runtime.database import database_uri
from flows.runtime.dvc_repo import run_dvc
from flows.runtime.workspace import Workspace
from mulan_core.data import shards
from mulan_core.data.changes import compare_versions
from mulan_core.errors import UserError
from serving.ports import free_port

TESTS = Path(__file__).parents[1] / "core"
MAKE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from prepared_fixtures import write_prepared
write_prepared(Path(".mulan/data/prepared"), train={train})
"""


@pytest.fixture(scope="module")
def s3():
    """Address of an empty bucket."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    import boto3

    address = f"http://127.0.0.1:{port}"
    secrets = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=address, **secrets).create_bucket(Bucket="music")
    yield address
    server.stop()


@pytest.fixture
def workspace(tmp_path):
    """A DVC project in git whose one stage writes a small prepared folder."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    stage = {"cmd": f"{sys.executable} make.py", "deps": ["make.py"], "outs": [".mulan/data/prepared"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": stage}}))
    (folder / "params.yaml").write_text("")
    (folder / ".gitignore").write_text("/.mulan")
    for command in (["init", "-q"], ["config", "user.email", "t@example.org"], ["config", "user.name", "t"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    run_dvc(["init", "-q"], folder)
    run_dvc(["remote", "add", "-d", "-q", "local", ".mulan/dvc/remote"], folder)
    return Workspace(folder)


def make(workspace, train):
    (workspace.folder / "make.py").write_text(MAKE.format(tests=str(TESTS), train=train))
    run_dvc(["repro", "-q"], workspace.folder)
    return workspace.data_hash


def forget(workspace):
    shutil.rmtree(workspace.prepared)
    shutil.rmtree(workspace.folder / ".dvc" / "cache")


def test_data_goes_to_s3_and_comes_back_the_same(workspace, s3, monkeypatch):
    monkeypatch.setenv("MULAN_DVC_REMOTE", "s3://music/mulan")
    for name, value in (("ENDPOINT_URL", s3), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(f"AWS_{name}", value)
    data_hash = make(workspace, train=12)
    table = read_version(workspace, data_hash)
    files = {path.name: path.read_bytes() for path in workspace.prepared.rglob("*.*")}
    data.push(workspace)
    forget(workspace)
    assert read_version(workspace, data_hash).equals(table), "from the remote alone"
    data.pull(workspace)
    assert {path.name: path.read_bytes() for path in workspace.prepared.rglob("*.*")} == files


def test_versions_are_found_by_hash_and_by_git_revision_and_compared(workspace, tmp_path):
    registry = Registry(database_uri(tmp_path / "mlflow.db"), tmp_path)
    first = make(workspace, train=12)
    subprocess.run(["git", "add", "-A"], cwd=workspace.folder, check=True)
    subprocess.run(["git", "commit", "-qm", "first"], cwd=workspace.folder, check=True)
    second = make(workspace, train=15)
    assert resolve_data("HEAD", workspace, registry) == first
    assert resolve_data(second, workspace, registry) == second
    with pytest.raises(UserError, match="is no data hash"):
        resolve_data("nothing", workspace, registry)
    changes = compare_versions(read_version(workspace, first), read_version(workspace, second))
    before, after = (set(read_version(workspace, h)["track_id"].to_pylist()) for h in (first, second))
    assert set(changes["added"]) == after - before and len(changes["added"]) == 3
    assert changes["texts"]["sf"] == {"before": 2 * len(before), "after": 2 * len(after)}


def test_a_version_that_is_nowhere_is_said(workspace):
    data_hash = make(workspace, train=12)
    data.push(workspace)
    forget(workspace)
    assert read_version(workspace, data_hash).num_rows == 30
    with pytest.raises(UserError, match="neither DVC's cache nor its remote"):
        read_version(workspace, "0" * 32)
    shutil.rmtree(workspace.folder / ".mulan" / "dvc" / "remote")
    with pytest.raises(UserError, match="`dvc pull -q` failed"):
        data.pull(workspace)
    assert not (workspace.prepared / shards.MANIFEST).exists()


def test_new_tracks_are_counted_against_what_the_champion_was_trained_on(workspace, tmp_path):
    then = make(workspace, train=12)
    make(workspace, train=15)

    registry = Registry(database_uri(tmp_path / "mlflow.db"), tmp_path)
    total = pq.read_table(workspace.prepared / shards.MANIFEST).num_rows
    assert count_new_tracks(workspace, registry) == total, "there is no champion yet"
    client = mlflow.MlflowClient(registry.uri)
    client.create_registered_model("mulan")

    def champion(**tags):
        made = client.create_model_version("mulan", "/x", tags={f"mulan.{name}": value for name, value in tags.items()})
        client.set_registered_model_alias("mulan", "champion", made.version)
        return count_new_tracks(workspace, registry)

    assert champion(data_hash=then) == 3
    assert champion(data_hash=workspace.data_hash) == 0
    assert champion(data_hash=workspace.data_hash, trained_on=then) == 3  # indexed again since, not trained
    assert champion(data_hash="0" * 32) == champion() == total  # another catalogue's, or lost

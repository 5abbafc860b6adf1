"""Disks that fill up, under a build or under checkpoints, and one that damages files: what was there stays."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from flow_fixtures import CATALOGUE, left_of, result_of, write_catalogue
from flow_fixtures import mulan_started as mulan
from prepared_fixtures import TINY_MODEL, write_prepared

from flows.pipeline.index import build_index
from flows.pipeline.train import fit_model
from flows.runtime.stack import ray_for_stage
from mulan_core.config import Config, IndexConfig, from_mapping
from mulan_core.errors import UserError
from serving.errors import StoreError
from serving.milvus import MilvusServer
from serving.store import LIVE_ALIAS, TrackStore


def rows(version, count=100):
    vectors_ND = np.random.default_rng(int(version)).normal(size=(count, 64))
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return [
        {"track_id": f"{version}/{i}", "vector": vector_D, "dataset": "d", "labels": []}
        for i, vector_D in enumerate(vectors_ND)
    ]


@pytest.fixture
def server(tmp_path):
    with MilvusServer(tmp_path / "data") as server:
        yield server


@pytest.fixture
def store(server):
    store = TrackStore(server.uri)
    yield store
    store.close()


@pytest.fixture
def build(store):
    """The index step for a version of so many tracks; version 1 is live."""

    def build(version, count=100):
        made_from = {"version": version, "data_hash": "d", "preprocessing_hash": "p"}
        return build_index(store, rows(version, count), IndexConfig(), **made_from)

    build("1")
    store.collections.switch_alias("tracks_1_d")
    return build


def check_finds_first(store, collection, version, count=100):
    hit = store.tracks.search(rows(version, count)[0]["vector"][None], 1, collection=collection)[0][0]
    assert (hit.track.track_id, store.collections.count(collection)) == (f"{version}/0", count)


@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_FSIZE"), reason="limits of another process: Linux only")
def test_a_full_disk_leaves_the_live_collection_as_it_was(server, store, build):
    milvus = psutil.Process(server.pid)
    limit = milvus.rlimit(psutil.RLIMIT_FSIZE)
    # Small files go on to be written, as on a disk that is all but full; no mount, so no rights are needed.
    milvus.rlimit(psutil.RLIMIT_FSIZE, (100_000, limit[1]))
    with pytest.raises(StoreError, match=r"^the disk of Milvus at http\S+ is full; free some"):
        build("2", 2_000)
    check_finds_first(store, LIVE_ALIAS, "1")
    milvus.rlimit(psutil.RLIMIT_FSIZE, limit)
    assert build("2", 2_000)[1].count == 2_000
    check_finds_first(store, "tracks_2_d", "2", 2_000)
    check_finds_first(store, LIVE_ALIAS, "1")


@pytest.mark.parametrize("pattern", ["*.parquet", "schema.json"])
def test_a_damaged_live_collection_is_named_and_built_anew_without_its_folder(server, store, build, pattern):
    build("2")
    server.stop()
    folder = server.data_dir / "collections" / "tracks_1_d"
    damaged = list(folder.rglob(pattern))
    for path in damaged:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    server.start()
    with pytest.raises(StoreError, match=f"refuses: .*{damaged[0]}"):
        check_finds_first(store, LIVE_ALIAS, "1")
    check_finds_first(store, "tracks_2_d", "2")
    server.stop()
    shutil.rmtree(folder)
    server.start()
    build("1")
    store.collections.switch_alias("tracks_1_d")
    check_finds_first(store, LIVE_ALIAS, "1")


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of so many bytes, or gives one more of them."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size, how="size"):
        command = ["mount", "-t", "tmpfs", "-o", f"{how}={size}", "tmpfs", str(folder)]
        if os.getuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small disk needs the right to mount one")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


def test_training_on_a_full_disk_says_so_and_goes_on_once_there_is_room(small_disk, tmp_path):
    prepared = write_prepared(tmp_path / "prepared")
    config = from_mapping(
        Config,
        {
            "model": TINY_MODEL,
            "train": {"steps": 1, "batch_size": 8, "num_workers": 1, "log_every": 1, "max_failures": 0},
        },
    )
    place = {"data_hash": "d", "home": tmp_path, "mlflow_uri": f"sqlite:///{tmp_path}/mlflow.db"}
    with ray_for_stage():
        once = fit_model(config, prepared, checkpoints=str(tmp_path / "roomy"), **place)
        size = sum(path.stat().st_size for path in once.model.parent.rglob("*") if path.is_file())
        disk = small_disk(int(1.5 * size))
        longer = replace(config, train=replace(config.train, steps=4, checkpoint_every=1))
        with pytest.raises(UserError, match=r"^training failed: [^\n]*No space left on device"):
            fit_model(longer, prepared, checkpoints=str(disk), **place)
        small_disk(8 * size, how="remount,size")
        trained = fit_model(longer, prepared, checkpoints=str(disk), **place)
    history = mlflow.MlflowClient(place["mlflow_uri"]).get_metric_history(trained.run_id, "loss")
    assert [point.step for point in history] == [1, 2, 3, 4]


def test_a_run_on_a_full_disk_says_so_and_goes_on_once_there_is_room(small_disk, tmp_path):
    (tmp_path / "catalogue").mkdir()
    catalogue, home = write_catalogue(tmp_path / "catalogue"), small_disk("30m")

    def run():
        return mulan("run", *CATALOGUE, "--no-serve", "--json", home=home, cwd=catalogue)

    refused = run()
    assert refused.returncode == 2
    *_, told = refused.stderr.strip().splitlines()
    assert told.startswith("mulan: ") and told.endswith(
        f"; the disk of {home} is full: free some of it and run this again, it goes on where it stopped"
    )
    small_disk("3g", how="remount,size")
    done = result_of(run())
    assert done["register"]["passed"] and done["prepare"]["changes"]["unchanged"] == 65, "prepared already"
    assert left_of(home, within_s=10) == []

"""A disk that fills up under a build, and one that damages files: the live collection is kept or can be built anew."""

import shutil

import numpy as np
import psutil
import pytest

from flows.steps.index import build_index
from mulan_core.config import IndexConfig
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
    store.switch_alias("tracks_1_d")
    return build


def check_finds_first(store, collection, version, count=100):
    hit = store.search(rows(version, count)[0]["vector"][None], 1, collection=collection)[0][0]
    assert (hit.track.track_id, store.count(collection)) == (f"{version}/0", count)


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
    store.switch_alias("tracks_1_d")
    check_finds_first(store, LIVE_ALIAS, "1")

"""The Milvus Lite child: it answers when started, says what is wrong in one sentence, and is never left behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from mulan_core.errors import UserError
from serving.errors import StoreError, StoreUnavailableError
from serving.milvus import MilvusServer, check_folder
from serving.ports import check_port_free, free_port
from serving.store import TrackStore


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(pid, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(pid)


def test_a_running_server_refuses_a_second_one(milvus, tmp_path):
    with pytest.raises(UserError, match="in use by another process"):
        MilvusServer(milvus.data_dir, log_path=tmp_path / "log").start()
    port = int(milvus.uri.rsplit(":", 1)[1])
    with pytest.raises(UserError, match=f"port {port} .* is taken"):
        MilvusServer(tmp_path / "other", port=port).start()
    TrackStore(milvus.uri).collections.ping()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a server has left: two collections and the live alias; its name is the worst that a folder may have."""
    folder = tmp_path_factory.mktemp("a?b%20#c ü;&[d]") / "milvus"
    with MilvusServer(folder) as server:
        store = TrackStore(server.uri)
        for name in ("tracks_a", "tracks_b"):
            row = {"track_id": name, "vector": np.eye(1, 4)[0], "labels": []}
            store.build(name, iter([[row]]), dim=4, properties={}, hnsw_from=10, recall_floor=0.9)
        store.collections.switch_alias("tracks_a")
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("pattern", "damage", "said"),
    [
        ("aliases.json", cut, "aliases.json is damaged; move it away, and `mulan index`"),
        ("aliases.json", lambda path: path.write_bytes(b"\xff"), "aliases.json is damaged"),
        ("collections/tracks_b/schema.json", cut, "schema.json is damaged or gone; put a copy of it back, or move"),
        ("collections/tracks_b/schema.json", Path.unlink, "schema.json is damaged or gone"),
        ("collections/tracks_b/partitions/*/data/*.parquet", Path.unlink, ".parquet is gone; put a copy of it back"),
    ],
)
def test_a_folder_that_lost_something_is_refused_before_it_is_served(pattern, damage, said, folder, tmp_path):
    copy = tmp_path / "milvus"
    shutil.copytree(folder, copy)
    check_folder(copy)
    damage(next(iter(copy.glob(pattern))))
    with pytest.raises(UserError, match=r"^[^\n]+$") as error:
        MilvusServer(copy).start()
    assert said in str(error.value) and str(copy) in str(error.value)


def test_a_damaged_file_is_named_with_its_remedy_and_others_go_on(folder, tmp_path):
    copy = tmp_path / "moved"
    shutil.copytree(folder, copy)
    cut(next(iter(copy.glob("collections/tracks_b/partitions/*/data/*.parquet"))))
    with MilvusServer(copy) as server:
        store = TrackStore(server.uri, timeout_s=5)
        assert store.collections.live_collection() == "tracks_a" and store.collections.describe("tracks_a").count == 1
        with pytest.raises(StoreError, match=r"\.parquet.*move its collection's folder away and run `mulan index`"):
            store.collections.load("tracks_b")


def test_data_survive_a_kill_and_the_store_finds_back(tmp_path):
    server = MilvusServer(tmp_path / "data", port=free_port())
    server.start()
    store = TrackStore(server.uri, timeout_s=3)
    row = {"track_id": "a", "vector": np.eye(1, 4)[0], "dataset": "d", "labels": []}
    store.build("tracks_x", iter([[row]]), dim=4, properties={}, hnsw_from=10, recall_floor=0.9)
    os.kill(server.pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        store.tracks.search(np.eye(1, 4), 1, collection="tracks_x")
    assert time.monotonic() - started < 5
    server.stop()
    server.start()
    # Nothing is loaded after a restart; the store loads what is asked for.
    assert store.tracks.search(np.eye(1, 4), 1, collection="tracks_x")[0][0].track.track_id == "a"
    pid = server.pid
    server.stop()
    server.stop()
    assert not is_alive(pid)


def test_the_server_dies_with_its_parent_even_if_that_is_killed(tmp_path):
    # started from a thread that is gone by then, as a flow's task is
    program = textwrap.dedent(f"""
        import threading, time
        from serving.milvus import MilvusServer
        server = MilvusServer({str(tmp_path / "data")!r})
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        time.sleep(0.5)
        print(server.pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    assert wait_gone(pid)


def test_an_address_without_milvus_is_one_sentence_at_once():
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="Milvus does not answer at http") as caught:
        TrackStore(f"http://127.0.0.1:{free_port()}").collections.ping()
    assert time.monotonic() - started < 5
    assert "\n" not in str(caught.value)


def test_a_server_that_is_no_milvus_is_one_sentence():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(UserError, match="Milvus"):
            TrackStore(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout_s=1).collections.ping()


def test_ports():
    port = free_port()
    check_port_free("127.0.0.1", port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(UserError, match="is taken"):
            check_port_free("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot listen on 192"):
        check_port_free("192.0.2.1", port)
    with pytest.raises(UserError, match="not a port"):
        check_port_free("127.0.0.1", 70_000)

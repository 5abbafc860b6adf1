"""A session's store: one client for all who use it, which hangs up with the session."""

from flows.runtime.session import Session
from flows.runtime.settings import read_settings
from flows.runtime.stack_file import Stack
from flows.runtime.workspace import Workspace


def test_a_session_has_one_client_of_the_store_and_hangs_up(tmp_path, monkeypatch):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    stack = Stack("", milvus_uri=str(tmp_path / "lite.db"), ray_address="", ray_auth_mode="", pid=0, started="")
    session = Session(read_settings(), Workspace(tmp_path), stack, "127.0.0.1", 0)
    session.close()  # nobody asked the store anything
    store = session.store
    assert store.list_collections() == [] and session.store is store
    asked = store._connection._client
    session.close()
    assert asked is not None and store._connection._client is None
    assert session.store is not store

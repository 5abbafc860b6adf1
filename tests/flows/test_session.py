"""A session's servers: one client of the store, which hangs up with the session; a Ray that does not start."""

import pytest
from prefect.settings import get_current_settings

from flows.runtime.prefect_server import report_to
from flows.runtime.session import Session
from flows.runtime.settings import read_settings
from flows.runtime.stack_file import Stack
from flows.runtime.workspace import Workspace
from mulan_core.errors import UserError


def test_a_session_has_one_client_of_the_store_and_hangs_up(tmp_path, monkeypatch):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    stack = Stack("", milvus_uri=str(tmp_path / "lite.db"), ray_address="", ray_auth_mode="", pid=0, started="")
    session = Session(read_settings(), Workspace(tmp_path), stack, "127.0.0.1", 0)
    session.close()  # nobody asked the store anything
    store = session.store
    assert store.collections.list_collections() == [] and session.store is store
    asked = store.collections._connection._client
    session.close()
    assert asked is not None and store.collections._connection._client is None
    assert session.store is not store


@pytest.mark.parametrize(
    ("address", "raised", "sentence"),
    [
        # Ray raises Exception itself, half a minute after a start on a machine that is too busy for it.
        (None, Exception("The current node timed out during startup. This could be"), "did not start on this machine"),
        (None, ValueError("object_store_memory is too small\nand more"), "did not start on this machine"),
        ("127.0.0.1:1", ConnectionError("no answer"), "does not answer at 127.0.0.1:1: no answer; start it"),
    ],
)
def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch, address, raised, sentence):
    import ray

    from flows.runtime.stack import _start_ray

    def fail(**_):
        raise raised

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(UserError, match=rf"^Ray {sentence}[^\n]*$"):
        _start_ray(address)


def test_flows_wait_for_no_heartbeat_of_a_server_that_ends_with_them():
    """Prefect joins at each flow's end the thread that sends them, which looks up once a second."""
    url = "http://127.0.0.1:1/api"
    with report_to(url):
        settings = get_current_settings()
        assert (settings.api.url, settings.flows.heartbeat_frequency) == (url, None)
    assert get_current_settings().flows.heartbeat_frequency, "a server of others may have someone who waits for them"

"""Who may work on a catalogue beside whom."""

import fcntl
import os
import threading

import pytest

from flows.pipeline.release import switching
from flows.runtime.file_lock import try_lock
from flows.runtime.session import Session
from flows.runtime.settings import read_settings
from flows.runtime.stack_file import Stack
from flows.runtime.workspace import Workspace
from flows.runtime.workspace_lock import hold, hold_switch, switch_at_work
from mulan_core.errors import UserError


@pytest.mark.parametrize(
    ("held", "asked", "allowed"),
    [
        ("train", "evaluate", True),
        ("train", "train", False),
        ("train", "prepare", False),
        ("prepare", "train", False),
        ("prepare", "prepare", False),
    ],
)
def test_stages_that_only_read_share_the_data_and_prepare_does_not(tmp_path, held, asked, allowed):
    with hold(tmp_path, held):
        if allowed:
            with hold(tmp_path, asked):
                return
        with (
            pytest.raises(UserError, match=rf"^[^\n]*{asked}[^\n]*process {os.getpid()}, since") as error,
            hold(tmp_path, asked),
        ):
            pass
        assert str(tmp_path) in str(error.value)
    with hold(tmp_path, asked):
        pass  # it is let go of


def test_a_file_system_without_locks_stops_nobody(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", without)
    with hold(tmp_path, "train"), hold(tmp_path, "train"):
        pass


def test_who_looks_at_a_switch_keeps_nobody_from_it(tmp_path):
    """`mulan status` holds the lock for a moment, to see whether somebody else does."""
    with hold_switch(tmp_path):
        pass
    with (tmp_path / "at_work" / "switch").open() as look:
        assert try_lock(look, shared=True)
        leaves = threading.Timer(0.1, look.close)
        leaves.start()
        with hold_switch(tmp_path):
            assert switch_at_work(tmp_path)
        leaves.join()
    assert switch_at_work(tmp_path) is None and switch_at_work(tmp_path / "never begun") is None


def test_two_checkouts_of_one_home_do_not_switch_at_once(tmp_path, monkeypatch):
    """Their working folders are two, the demo's journal in the home is one."""
    monkeypatch.setenv("MULAN_HOME", str(tmp_path / "home"))
    stack = Stack("a", str(tmp_path / "lite.db"), "c", "", 1, "now")
    one, two = (Session(read_settings(), Workspace(tmp_path / name), stack, "", 0) for name in ("one", "two"))
    with (
        hold_switch(one.state),
        pytest.raises(UserError, match=rf"^switch of {tmp_path}/home is at work already \(process {os.getpid()}"),
        switching(two),
    ):
        pass
    assert one.state == two.state and switch_at_work(two.state) is None

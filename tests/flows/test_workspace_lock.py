"""Who may work on a catalogue beside whom."""

import fcntl
import os
import threading

import pytest

from flows.runtime.file_lock import try_lock
from flows.runtime.workspace_lock import at_work, hold
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


def test_who_looks_at_a_stage_keeps_nobody_from_it(tmp_path):
    """`mulan status` holds the lock for a moment, to see whether somebody else does."""
    with hold(tmp_path, "switch"):
        pass
    with (tmp_path / ".mulan" / "at_work" / "switch").open() as look:
        assert try_lock(look, shared=True)
        leaves = threading.Timer(0.1, look.close)
        leaves.start()
        with hold(tmp_path, "switch"):
            assert at_work(tmp_path, "switch")
        leaves.join()
    assert at_work(tmp_path, "switch") is None and at_work(tmp_path, "never begun") is None

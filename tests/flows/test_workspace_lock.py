"""Who may work on a catalogue beside whom."""

import fcntl
import os

import pytest

from flows.runtime.workspace_lock import hold
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

"""Checkpoints of a run that Ray could not go on from: its list of them is written in place, and a disk may damage both.

Nothing is put aside before a checkpoint is found that can be read; where there is none, the run does not begin anew by
itself.
"""

from __future__ import annotations

import json
import zipfile
from typing import Any

import fsspec
import torch

from flows.runtime.storage import files_of
from mulan_core.errors import UserError

STATE_FILE = "state.pt"
LIST_FILE = "checkpoint_manager_snapshot.json"
"""Ray Train's list of a run's checkpoints, in the run's folder."""


def salvage(run: str) -> str | None:
    """Find what a run is to go on from, where Ray does not find it by itself.

    Args:
        run: address of the run's folder, which need not exist.

    Returns:
        The address of the newest checkpoint that can be read; the list, at which Ray would fail, is put aside by then.
        None where Ray goes on by itself, or there is nothing yet to go on from.

    Raises:
        UserError: if there are checkpoints, or there were, and none can be read.
    """
    files, path = files_of(run)
    try:
        entries = files.ls(path, detail=False)
    except FileNotFoundError:
        return None
    names = sorted((entry.rstrip("/").rpartition("/")[2] for entry in entries), reverse=True)
    checkpoints = [name for name in names if name.startswith("checkpoint_")]
    has_list = LIST_FILE in names
    latest = _latest(files, f"{path}/{LIST_FILE}") if has_list else None
    if latest in checkpoints and _is_whole(files, f"{path}/{latest}/{STATE_FILE}"):
        return None
    if latest is None and (has_list or not checkpoints):
        return None
    for name in checkpoints:
        if _can_be_read(f"{run}/{name}"):
            if has_list:
                files.mv(f"{path}/{LIST_FILE}", f"{path}/{LIST_FILE}.damaged")
            return f"{run}/{name}"
    if len(checkpoints) == 1 and not has_list:
        return None  # cut off while its first one was stored, before which there is nothing to go on from
    reason = f"none of its {len(checkpoints)} checkpoints can be read" if checkpoints else "its checkpoints are gone"
    raise UserError(
        f"the training in {run} cannot go on: {reason}; put a copy of them back, or move that folder away to train "
        "from step 0"
    )


def read_state(checkpoint: str) -> dict[str, Any]:
    """The training state of a checkpoint, on the CPU.

    Raises:
        UserError: if it cannot be read.
    """
    files, path = files_of(checkpoint)
    try:
        with files.open(f"{path}/{STATE_FILE}", "rb") as file:
            state: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever torch says of a file that is damaged
        raise UserError(
            f"the checkpoint {checkpoint} cannot be read ({type(error).__name__}); move it away, and the training goes "
            "on from the one before"
        ) from error
    return state


def _latest(files: fsspec.AbstractFileSystem, path: str) -> str | None:
    """The checkpoint that Ray would go on from; None where the list has none yet, an empty name where it is damaged."""
    try:
        latest = json.loads(files.cat_file(path))["latest_checkpoint_result"]
        return None if latest is None else str(latest["checkpoint_dir_name"])
    except (ValueError, KeyError, TypeError):
        return ""


def _is_whole(files: fsspec.AbstractFileSystem, path: str) -> bool:
    """Whether a file that torch wrote has its end: seen in a moment, however large it is."""
    try:
        with files.open(path, "rb") as file:
            return zipfile.is_zipfile(file)
    except (OSError, ValueError):  # the latter of fsspec, for a file that is empty
        return False


def _can_be_read(checkpoint: str) -> bool:
    try:
        read_state(checkpoint)
    except UserError:
        return False
    return True

"""Checkpoints of a run whose list of them is damaged: Ray writes it in place, and a full disk leaves it empty."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import fsspec
import torch

STATE_FILE = "state.pt"
LIST_FILE = "checkpoint_manager_snapshot.json"
"""Ray Train's list of a run's checkpoints, in the run's folder."""


def drop_damaged_list(run: str) -> list[str]:
    """Remove a list that cannot be read, at which Ray would fail.

    Args:
        run: address of the run's folder.

    Returns:
        The addresses of its checkpoints, the newest first; none where the list is in order, or there is none.
    """
    filesystem, path = fsspec.core.url_to_fs(run)
    try:
        json.loads(filesystem.cat_file(f"{path}/{LIST_FILE}"))
    except FileNotFoundError:
        return []
    except ValueError:
        filesystem.rm_file(f"{path}/{LIST_FILE}")
        names = sorted((entry.rsplit("/", 1)[-1] for entry in filesystem.ls(path, detail=False)), reverse=True)
        return [f"{run}/{name}" for name in names if name.startswith("checkpoint_")]
    return []


def newest_state(checkpoints: list[str]) -> dict[str, Any] | None:
    """The training state of the first of these checkpoints that is whole; None where none is."""
    for checkpoint in checkpoints:
        with suppress(Exception):  # whatever torch says of a file that ends too soon
            with fsspec.open(f"{checkpoint}/{STATE_FILE}", "rb") as file:
                state: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
            return state
    return None

"""Data as DVC runs and versions it: the stages of ``dvc.yaml``, their hash, the push to the remote."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from flows.runtime.settings import read_settings
from flows.runtime.workspace import Workspace, check_dvc, run_dvc, write_set_catalogues
from mulan_core.data.shard_builder import CHANGES, work_folder
from mulan_core.data.shards import read_counts
from mulan_core.errors import UserError


def reproduce(workspace: Workspace, *, ray_address: str) -> dict[str, Any]:
    """Run ``dvc repro``: stages whose inputs have not changed do nothing.

    Args:
        workspace: whose ``dvc.yaml``.
        ray_address: the running Ray, which the stages join instead of starting their own.

    Returns:
        The counts of the prepared folder, and ``changes``: new, changed, removed and unchanged tracks.

    Raises:
        UserError: if a stage fails; its own sentence stands on the terminal.
    """
    workspace.find_data_hash()  # says what ails dvc.lock, of which DVC would say more than a sentence
    write_set_catalogues(workspace)
    changes = work_folder(workspace.prepared) / CHANGES
    changes.unlink(missing_ok=True)
    run_dvc(["repro", "-q"], workspace.folder, env=stage_environment(ray_address))
    counts = read_counts(workspace.prepared)
    nothing = {"new": 0, "changed": 0, "removed": 0, "unchanged": counts["tracks"]}
    return counts | {"changes": json.loads(changes.read_text(encoding="utf-8")) if changes.exists() else nothing}


def push(workspace: Workspace) -> None:
    """Copy what is new to the DVC remote (MULAN_DVC_REMOTE, else what the workspace's DVC names); nothing without."""
    if has_remote(workspace):
        _name_remote(workspace)
        run_dvc(["push", "-q"], workspace.folder)


def pull(workspace: Workspace) -> None:
    """Fetch from the DVC remote what ``dvc.lock`` names.

    Raises:
        UserError: if there is no remote, or it does not hold it.
    """
    if not has_remote(workspace):
        raise UserError(
            f"the data of {workspace.folder} have no remote to come from; name it: MULAN_DVC_REMOTE=FOLDER or "
            "s3://BUCKET/PATH"
        )
    _name_remote(workspace)
    run_dvc(["pull", "-q"], workspace.folder)


def has_remote(workspace: Workspace) -> bool:
    """Whether the data has a second place: the cache alone keeps them once, in the bytes of the prepared folder."""
    from dvc.config import Config

    if read_settings().dvc_remote:
        return True
    check_dvc(workspace.folder)
    configs = (workspace.folder / ".dvc" / name for name in ("config", "config.local"))
    return any(Config.load_file(str(path)).get("core", {}).get("remote") for path in configs if path.exists())


def _name_remote(workspace: Workspace) -> None:
    """Make MULAN_DVC_REMOTE the default, in DVC's local configuration, which git does not see."""
    if remote := read_settings().dvc_remote:
        run_dvc(["remote", "add", "--local", "-q", "-f", "-d", "mulan", remote], workspace.folder)


def stage_environment(ray_address: str | None) -> dict[str, str]:
    """The environment of a stage: our own ``mulan`` first on the path, the running Ray by address."""
    environment = dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    if ray_address:
        environment["RAY_ADDRESS"] = ray_address
    return environment

"""Data as DVC runs and versions it: the stages of ``dvc.yaml``, their hash, the push to the remote."""

from __future__ import annotations

from typing import Any

from flows.runtime.dvc_repo import bring_up_to_date, check_dvc, run_dvc
from flows.runtime.settings import read_settings
from flows.runtime.workspace import Workspace, write_set_catalogues
from mulan_core.data.shards import read_counts
from mulan_core.errors import UserError


def reproduce(workspace: Workspace) -> dict[str, Any]:
    """Do what ``dvc repro`` does, in this process: stages whose inputs have not changed do nothing.

    Args:
        workspace: whose ``dvc.yaml``.

    Returns:
        The counts of the prepared folder, and ``changes``: new, changed, removed and unchanged tracks.

    Raises:
        UserError: if a stage fails, or DVC; ``dvc.lock`` has what succeeded before.
    """
    workspace.find_data_hash()  # says what ails dvc.lock, of which DVC would say more than a sentence
    write_set_catalogues(workspace)
    made: dict[str, Any] = {}

    def run(name: str, key: str | None = None) -> None:
        # The numbers as they are on disk now, where DVC reads them too.
        made[name] = run_stage(Workspace(workspace.folder), name, key)

    bring_up_to_date(workspace.folder, run)
    counts = read_counts(workspace.prepared)
    nothing = {"new": 0, "changed": 0, "removed": 0, "unchanged": counts["tracks"]}
    return counts | {"changes": made["prepare"]["changes"] if "prepare" in made else nothing}


def run_stage(workspace: Workspace, name: str, key: str | None = None) -> Any:
    """Run a stage of ``dvc.yaml``: what DVC calls as ``mulan stage NAME [KEY]``, and ``reproduce`` without a process.

    Args:
        workspace: whose data.
        name: corpus, judge, text, prepare or set.
        key: the name of an evaluation set, for ``set``.

    Returns:
        What the stage does.

    Raises:
        UserError: if there is no such stage, or it fails.
    """
    match name, key:
        case "corpus", None:
            from flows.pipeline.corpus import build_demo

            return build_demo(workspace)
        case "judge", None:
            from flows.pipeline.judge import note_judge

            return note_judge(workspace)
        case "text", None:
            from flows.pipeline.text import judge_catalogue

            return judge_catalogue(workspace)
        case "prepare", None:
            from flows.pipeline.prepare import prepare_catalogue

            return prepare_catalogue(workspace)
        case "set", str() if key in workspace.config.evaluate.sets:
            from flows.pipeline.prepare import prepare_set

            return prepare_set(workspace, key)
    raise UserError(f"there is no stage {name} {key or ''}".rstrip() + f" of {workspace.folder}; see its dvc.yaml")


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

"""Versions of prepared data: named by DVC's hash, found from a release, a version or a git revision, read back."""

from __future__ import annotations

import io
import json
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.exceptions import MlflowException

from flows.runtime.tracking import MODEL_NAME, NoRegistryError, reading
from flows.runtime.workspace import Workspace, check_dvc, hash_in
from mulan_core.data import shards
from mulan_core.data.changes import compare_versions
from mulan_core.errors import UserError

HASH = re.compile(r"[0-9a-f]{32}")


def resolve_data(revision: str, workspace: Workspace, *, mlflow_uri: str) -> str:
    """The data hash behind a name.

    Args:
        revision: a data hash; an alias or version of the registered model; or a git revision of the workspace's
            ``dvc.lock``.
        workspace: whose data.
        mlflow_uri: the registry.

    Raises:
        UserError: if nothing of that name is known.
    """
    if HASH.fullmatch(revision):
        return revision
    if (version := model_version(revision, mlflow_uri=mlflow_uri)) and "mulan.data_hash" in version["tags"]:
        return str(version["tags"]["mulan.data_hash"])
    if (lock := lock_at(revision, workspace.folder)) is not None:
        try:
            if found := hash_in(lock.encode()):
                return found
        except ValueError as error:
            raise UserError(f"dvc.lock of {revision} in {workspace.folder} cannot be read ({error})") from error
    raise UserError(
        f"{revision!r} is no data hash (32 hex digits), no alias or version of the registered model (`mulan release "
        f"list`), and no git revision with a dvc.lock in {workspace.folder}"
    )


def lock_at(revision: str, folder: Path) -> str | None:
    """``dvc.lock`` of a folder as a git revision has it; None where there is none."""
    command = ["git", "show", f"{revision}:./dvc.lock"]
    shown = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return shown.stdout if shown.returncode == 0 else None


def model_version(name: str, *, mlflow_uri: str) -> dict[str, Any] | None:
    """A version of the registered model by number or alias: ``version``, ``run_id``, ``tags``; None if unknown."""
    try:
        with reading(mlflow_uri) as client:
            if name.isdecimal():
                found = client.get_model_version(MODEL_NAME, name)
            else:
                found = client.get_model_version_by_alias(MODEL_NAME, name)
    except (MlflowException, NoRegistryError):
        return None
    return {"version": str(found.version), "run_id": found.run_id, "tags": dict(found.tags)}


def read_version(workspace: Workspace, data_hash: str) -> pa.Table:
    """The manifest of prepared data, from DVC's cache or else its remote.

    Raises:
        UserError: if neither holds that version.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(workspace.folder)) as repo:
            listing = json.loads(_read_object(repo, f"{data_hash}.dir", workspace.folder, data_hash))
            files = {entry["relpath"]: entry["md5"] for entry in listing}
            return pq.read_table(io.BytesIO(_read_object(repo, files[shards.MANIFEST], workspace.folder, data_hash)))
    except UserError:
        raise
    except DvcException as error:
        check_dvc(workspace.folder)
        raise UserError(f"DVC cannot read its data in {workspace.folder}: {' '.join(str(error).split())}") from error
    except (ValueError, KeyError, OSError, TypeError) as error:  # pyarrow's are such
        raise UserError(
            f"the data {data_hash} is damaged in DVC's cache in {workspace.folder} ({type(error).__name__}); `mulan "
            "data pull` fetches it again where a remote has it"
        ) from error


def count_new_tracks(workspace: Workspace, *, mlflow_uri: str) -> int:
    """Tracks of the prepared data that the champion was not trained beside: new ones, and those whose audio is another.

    All of them, where the champion's data is not to be had: it is another catalogue's, or its versions were removed.
    """
    now = pq.read_table(workspace.prepared / shards.MANIFEST)
    champion = model_version("champion", mlflow_uri=mlflow_uri)
    tags = champion["tags"] if champion else {}
    try:
        then = read_version(workspace, tags.get("mulan.trained_on") or tags["mulan.data_hash"])
    except (UserError, KeyError):
        return now.num_rows
    changes = compare_versions(then, now)
    return len(changes["added"]) + sum("audio" in aspects for aspects in changes["changed"].values())


def _read_object(repo: Any, oid: str, folder: Path, data_hash: str) -> bytes:
    from dvc.config import NoRemoteError

    stores = [repo.cache.local]
    with suppress(NoRemoteError):
        stores.append(repo.cloud.get_remote_odb())
    for store in stores:
        path = store.oid_to_path(oid)
        if store.fs.exists(path):
            with store.fs.open(path, "rb") as file:
                content: bytes = file.read()
            return content
    raise UserError(
        f"neither DVC's cache nor its remote in {folder} holds the data {data_hash}; give --manifest FILE if it was "
        "prepared from another catalogue, or `dvc push` it where it is"
    )

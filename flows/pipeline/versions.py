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

from flows.registry import Registry
from flows.runtime.dvc_repo import open_repo
from flows.runtime.workspace import Workspace, hash_in
from mulan_core.data import shards
from mulan_core.data.changes import compare_versions
from mulan_core.errors import UserError

HASH = re.compile(r"[0-9a-f]{32}")


def resolve_data(revision: str, workspace: Workspace, registry: Registry) -> str:
    """The data hash behind a name.

    Args:
        revision: a data hash; an alias or version of the registered model; or a git revision of the workspace's
            ``dvc.lock``.
        workspace: whose data.
        registry: whose versions.

    Raises:
        UserError: if nothing of that name is known.
    """
    if HASH.fullmatch(revision):
        return revision
    if (version := registry.get(revision)) and (data_hash := version.tag("data_hash")):
        return data_hash
    if (lock := lock_at(revision, workspace.folder)) is not None:
        try:
            if locked_hash := hash_in(lock.encode()):
                return locked_hash
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


def read_version(workspace: Workspace, data_hash: str) -> pa.Table:
    """The manifest of prepared data, from DVC's cache or else its remote.

    Raises:
        UserError: if neither holds that version.
    """
    try:
        with open_repo(workspace.folder) as repo:
            listing = json.loads(_read_object(repo, f"{data_hash}.dir", workspace.folder, data_hash))
            files = {entry["relpath"]: entry["md5"] for entry in listing}
            return pq.read_table(io.BytesIO(_read_object(repo, files[shards.MANIFEST], workspace.folder, data_hash)))
    except UserError:
        raise
    except (ValueError, KeyError, OSError, TypeError) as error:  # pyarrow's are such
        raise UserError(
            f"the data {data_hash} is damaged in DVC's cache in {workspace.folder} ({type(error).__name__}); `mulan "
            "data pull` fetches it again where a remote has it"
        ) from error


def count_new_tracks(workspace: Workspace, registry: Registry) -> int:
    """Tracks of the prepared data that the champion was not trained beside: new ones, and those whose audio is another.

    All of them, where the champion's data is not to be had: it is another catalogue's, or its versions were removed.
    """
    now = pq.read_table(workspace.prepared / shards.MANIFEST)
    champion = registry.get("champion")
    if champion is None or champion.trained_on is None:
        return now.num_rows
    try:
        then = read_version(workspace, champion.trained_on)
    except UserError:
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

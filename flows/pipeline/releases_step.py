"""Releases as the registry knows them: one version each, shown, compared, and found again.

A version stands for a release: the same weights over later data are registered again, see ``version_for_data``.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from mlflow.exceptions import MlflowException

from flows.pipeline.reports import read_report
from flows.pipeline.versions import read_version
from flows.registry import find_version, list_champions, list_versions
from flows.runtime.tracking import MODEL_NAME, reading, tracking
from flows.runtime.workspace import Workspace
from mulan_core.data.changes import compare_versions
from mulan_core.errors import UserError
from serving.store import TrackStore

OF_THE_INDEX = ("mulan.collection", "mulan.media_root", "mulan.index")
"""Tags that say what was built for a version, rather than what it is."""
PARTS = ("weights", "preprocessing_hash", "data_hash", "trained_on", "collection", "git_commit")
"""What two releases may differ in."""


def version_for_data(name: str, data_hash: str, *, mlflow_uri: str) -> str:
    """The version of a registered model for other data than it was trained on; registered if there is none yet.

    A version stands for a release, so the same weights over new data are a new version. The gate's word is about the
    weights, and is carried along.

    Args:
        name: an alias or version.
        data_hash: DVC's hash of the prepared data.
        mlflow_uri: the registry.

    Raises:
        UserError: if no version has that name.
    """
    with tracking(mlflow_uri) as client:
        version = find_version(client, name)
        if version.tags.get("mulan.data_hash") == data_hash:
            return str(version.version)
        weights = version.tags.get("mulan.weights")
        for known in client.search_model_versions(f"name = '{MODEL_NAME}'"):
            if known.tags.get("mulan.weights") == weights and known.tags.get("mulan.data_hash") == data_hash:
                return str(known.version)
        tags = {key: value for key, value in version.tags.items() if key not in OF_THE_INDEX}
        tags = {"mulan.trained_on": version.tags["mulan.data_hash"]} | tags | {"mulan.data_hash": data_hash}
        made = client.create_model_version(MODEL_NAME, str(version.source), version.run_id, tags=tags)
        return str(made.version)


def go_live(store: TrackStore, collection: str, *, mlflow_uri: str) -> dict[str, Any]:
    """Name a collection live; tracks that were added over the API to the one before go along.

    A vector means something to its own model alone, and the audio of these tracks was not kept, so a release of other
    weights does without them. The collection before keeps them all.

    Returns:
        ``carried``, how many tracks went along, and ``left``, the ids of those that could not.

    Raises:
        UserError: if Milvus is away, or has no such collection; the alias stays where it was.
    """
    before = store.live_collection()
    added = store.added(before, unknown_to=collection) if before and before != collection else []
    carries = bool(added) and _weights(store, before, mlflow_uri) == _weights(store, collection, mlflow_uri) is not None
    if carries:
        store.copy_added(added, str(before), collection)
    store.switch_alias(collection)
    return {"carried": len(added), "left": []} if carries else {"carried": 0, "left": added}


def _weights(store: TrackStore, collection: str | None, mlflow_uri: str) -> str | None:
    version = store.describe(str(collection)).properties.get("model_version", "")
    try:
        with reading(mlflow_uri) as client:
            return client.get_model_version(MODEL_NAME, version).tags.get("mulan.weights")
    except MlflowException:  # deleted since
        return None


def show_release(name: str, *, mlflow_uri: str) -> dict[str, Any]:
    """Everything that the registry knows of a release.

    Args:
        name: an alias or version.
        mlflow_uri: the registry.

    Returns:
        ``version``, ``aliases``, ``created``, ``gate`` and its ``reasons``, the ``PARTS``, ``run_id``, ``index`` (what
        the build measured; null before it) and ``metrics`` of the evaluation.

    Raises:
        UserError: if there is none of that name.
    """
    champions = list_champions(mlflow_uri=mlflow_uri)
    with reading(mlflow_uri) as client:
        version = find_version(client, name)
        aliases = client.get_registered_model(MODEL_NAME).aliases
    tags = {key.removeprefix("mulan."): value for key, value in version.tags.items()}
    number = str(version.version)
    return {
        "version": number,
        "aliases": sorted(alias for alias, of in aliases.items() if str(of) == number),
        "was_champion": number in champions,
        "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        "gate": tags.get("gate", "not judged"),
        "reasons": tags.get("gate_reasons", "").splitlines(),
        **{part: tags.get(part) for part in PARTS},
        "trained_on": tags.get("trained_on", tags.get("data_hash")),
        "run_id": version.run_id,
        "index": json.loads(tags["index"]) if "index" in tags else None,
        "metrics": _metrics(str(version.run_id), mlflow_uri=mlflow_uri),
    }


def compare_releases(a: str, b: str, workspace: Workspace, *, mlflow_uri: str) -> dict[str, Any]:
    """What differs between two releases.

    Returns:
        ``a``, ``b``: their versions. ``parts``: part -> its two values, for those that differ. ``tracks``: counts and
        ids of those added, removed and changed from a to b, or ``unknown`` with the reason. ``metrics``: name -> its
        two values.

    Raises:
        UserError: if there is none of a name.
    """
    one, other = (show_release(name, mlflow_uri=mlflow_uri) for name in (a, b))
    names = [*one["metrics"], *(name for name in other["metrics"] if name not in one["metrics"])]
    return {
        "a": one["version"],
        "b": other["version"],
        "parts": {part: [one[part], other[part]] for part in PARTS if one[part] != other[part]},
        "tracks": _compare_tracks(one["data_hash"], other["data_hash"], workspace),
        "metrics": {name: [one["metrics"].get(name), other["metrics"].get(name)] for name in names},
    }


def _compare_tracks(a: str | None, b: str | None, workspace: Workspace) -> dict[str, Any]:
    if a == b:
        return {"added": [], "removed": [], "changed": []}
    try:
        changes = compare_versions(read_version(workspace, str(a)), read_version(workspace, str(b)))
    except UserError as error:
        return {"unknown": str(error)}
    return {"added": changes["added"], "removed": changes["removed"], "changed": sorted(changes["changed"])}


def _metrics(run_id: str, *, mlflow_uri: str) -> dict[str, float]:
    try:
        return dict(read_report(run_id, mlflow_uri=mlflow_uri)["metrics"])
    except (MlflowException, OSError):  # registered by hand, without an evaluation
        return {}


def collections_to_drop(keep: int, *, mlflow_uri: str) -> tuple[list[str], list[str]]:
    """Which collections nobody needs, and which are kept.

    Kept are those of the champion, of ``keep`` champions before it, of every version that an alias names, and of
    versions newer than the champion, which may be promoted yet.

    Raises:
        UserError: if there is no champion, so nothing is old.
    """
    champions = list_champions(mlflow_uri=mlflow_uri)
    if not champions:
        raise UserError("there is no champion yet, so no release is old; see `mulan release list`")
    needed = set(champions[-1 - keep :])
    old: list[str] = []
    kept: list[str] = []
    for version in list_versions(mlflow_uri=mlflow_uri):
        number, collection = version["version"], version["collection"]
        if collection:
            is_needed = number in needed or version["aliases"] or int(number) > int(champions[-1])
            (kept if is_needed else old).append(collection)
    return [name for name in old if name not in kept], kept

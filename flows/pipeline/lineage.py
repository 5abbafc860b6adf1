"""Where a release comes from, and where a track went: MLflow's tags joined with DVC's versions of the data."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from flows.pipeline.versions import model_version, read_version
from flows.registry import list_versions
from flows.runtime.tracking import reading
from flows.runtime.workspace import Workspace
from mulan_core.errors import UserError
from serving.places import Places


def of_release(name: str, workspace: Workspace, *, mlflow_uri: str) -> dict[str, Any] | None:
    """A release's model version, run, code and data; None if no version or alias has this name."""
    version = model_version(name, mlflow_uri=mlflow_uri)
    if version is None:
        return None
    tags = version["tags"]
    with reading(mlflow_uri) as client:
        run = client.get_run(version["run_id"])
    found: dict[str, Any] = {
        "version": version["version"],
        "gate": tags.get("mulan.gate", "not judged"),
        "collection": tags.get("mulan.collection", "no index yet"),
        "weights": tags.get("mulan.weights"),
        "preprocessing": tags.get("mulan.preprocessing_hash"),
        "training run": f"{run.info.run_name} ({run.info.run_id})",
        "git commit": tags.get("mulan.git_commit"),
        "flow run": tags.get("mulan.flow_run_id"),
        "data": run.data.tags["mulan.data_hash"],
    }
    if "mulan.trained_on" in tags:  # the same weights over a later catalogue
        found["indexed data"] = tags["mulan.data_hash"]
    try:
        tracks = read_version(workspace, found["data"])
    except UserError as error:
        return found | {"tracks": str(error)}
    counts = tracks["split"].value_counts().to_pylist()
    found["tracks"] = [f"{count['counts']} {count['values']}" for count in counts]
    found["catalogues"] = tracks["dataset"].unique().to_pylist()
    return found


def of_track(track_id: str, workspace: Workspace, *, mlflow_uri: str, places: Places) -> dict[str, Any]:
    """A track's file, texts with the filters' verdicts, and the versions trained on or indexed with it.

    Raises:
        UserError: if the workspace's data has no such track.
    """
    data_hash = workspace.data_hash
    row = _row(read_version(workspace, data_hash), track_id)
    if row is None:
        raise UserError(
            f"{track_id!r} is no release (`mulan release list`) and no track of the prepared data in {workspace.folder}"
        )
    releases = []
    for version in list_versions(mlflow_uri=mlflow_uri):
        full = model_version(version["version"], mlflow_uri=mlflow_uri)
        data = full["tags"].get("mulan.data_hash", "") if full else ""
        try:
            held = data == data_hash or _row(read_version(workspace, data), track_id) is not None
        except UserError:
            continue  # that version's data is not at hand, or is another catalogue's
        if held:
            releases.append(f"version {version['version']} {version['aliases']}".strip() + f", data {data[:8]}")
    return {
        "track": track_id,
        "file": places.here(row["media_path"]),
        "sha256": row["sha256"],
        "data": data_hash,
        "split": row["split"],
        "labels": list(row["labels"]),
        "texts": [_verdict(text) for text in row["texts"]],
        "versions": releases or "no registered version has seen it",
    }


def _row(tracks: pa.Table, track_id: str) -> dict[str, Any] | None:
    rows = tracks.filter(pa.compute.equal(tracks["track_id"], track_id)).to_pylist()
    return rows[0] if rows else None


def _verdict(text: dict[str, str | None]) -> str:
    return f"{text['source']}: {text['text']}" + (f"  [dropped: {text['drop']}]" if text["drop"] else "")

"""What is known of releases and tracks: shown, compared, and followed through MLflow's tags and DVC's versions."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from mlflow.exceptions import MlflowException

from flows.pipeline.reports import read_report
from flows.pipeline.versions import read_version
from flows.pipeline.words import gate_words
from flows.registry import Registry
from flows.runtime.tracking import reading
from flows.runtime.workspace import Workspace
from mulan_core.data.changes import compare_versions
from mulan_core.errors import UserError
from serving.places import Places

PARTS = ("weights", "preprocessing_hash", "data_hash", "trained_on", "collection", "git_commit")
"""What two releases may differ in."""


def show_release(name: str, registry: Registry) -> dict[str, Any]:
    """Everything that the registry knows of a release.

    Returns:
        ``version``, ``aliases``, ``created``, ``gate`` and its ``reasons``, ``judged_on``, the other catalogue that a
        borrowed model was judged on, the ``PARTS``, ``run_id``, ``index`` (what
        the build measured; null before it) and ``metrics`` of the evaluation.

    Raises:
        UserError: if there is none of that name.
    """
    version = registry.find(name)
    return {
        "version": version.number,
        "aliases": list(version.aliases),
        "was_champion": version.number in registry.champions(),
        "created": version.created_at,
        "gate": version.tag("gate") or "not judged",
        "reasons": (version.tag("gate_reasons") or "").splitlines(),
        "judged_on": registry.judged_on(version),
        **{part: version.tag(part) for part in PARTS},
        "trained_on": version.trained_on,
        "run_id": version.run_id,
        "index": json.loads(version.tag("index") or "null"),
        "metrics": _metrics(version.run_id, mlflow_uri=registry.uri),
    }


def compare_releases(a: str, b: str, workspace: Workspace, registry: Registry) -> dict[str, Any]:
    """What differs between two releases.

    Returns:
        ``a``, ``b``: their versions. ``parts``: part -> its two values, for those that differ. ``tracks``: counts and
        ids of those added, removed and changed from a to b, or ``unknown`` with the reason. ``metrics``: name -> its
        two values.

    Raises:
        UserError: if there is none of a name.
    """
    release_a, release_b = (show_release(name, registry) for name in (a, b))
    names = [*release_a["metrics"], *(name for name in release_b["metrics"] if name not in release_a["metrics"])]
    return {
        "a": release_a["version"],
        "b": release_b["version"],
        "parts": {part: [release_a[part], release_b[part]] for part in PARTS if release_a[part] != release_b[part]},
        "tracks": _compare_tracks(release_a["data_hash"], release_b["data_hash"], workspace),
        "metrics": {name: [release_a["metrics"].get(name), release_b["metrics"].get(name)] for name in names},
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


def release_lineage(name: str, workspace: Workspace, registry: Registry) -> dict[str, Any] | None:
    """A release's model version, run, code and data; None if no version or alias has this name."""
    version = registry.get(name)
    if version is None:
        return None
    with reading(registry.uri) as client:
        run = client.get_run(version.run_id)
    facts: dict[str, Any] = {
        "version": version.number,
        "gate": gate_words({"gate": version.tag("gate") or "not judged", "judged_on": registry.judged_on(version)}),
        "collection": version.tag("collection") or "no index yet",
        "weights": version.tag("weights"),
        "preprocessing": version.tag("preprocessing_hash"),
        "training run": f"{run.info.run_name} ({run.info.run_id})",
        "git commit": version.tag("git_commit"),
        "flow run": version.tag("flow_run_id"),
        "data": run.data.tags["mulan.data_hash"],
    }
    if version.tag("trained_on"):  # the same weights over a later catalogue
        facts["indexed data"] = version.tag("data_hash")
    try:
        tracks = read_version(workspace, facts["data"])
    except UserError as error:
        return facts | {"tracks": str(error)}
    counts = tracks["split"].value_counts().to_pylist()
    facts["tracks"] = [f"{count['counts']} {count['values']}" for count in counts]
    facts["catalogues"] = tracks["dataset"].unique().to_pylist()
    return facts


def track_lineage(track_id: str, workspace: Workspace, registry: Registry, *, places: Places) -> dict[str, Any]:
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
    for version in registry.versions():
        data = version.tag("data_hash") or ""
        try:
            held = data == data_hash or _row(read_version(workspace, data), track_id) is not None
        except UserError:
            continue  # that version's data is not at hand, or is another catalogue's
        if held:
            aliases = ", ".join(version.aliases)
            releases.append(f"version {version.number} {aliases}".strip() + f", data {data[:8]}")
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

"""What changed between two versions of prepared data: tracks added, removed and changed, and texts by source."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

ASPECTS = ("audio", "clip", "texts", "labels", "split")
"""What of a track can change: the file, the segment that is cut from it, what stands beside it."""


def compare_versions(before: pa.Table, after: pa.Table) -> dict[str, Any]:
    """Compare the manifests of two prepared folders (``shards.MANIFEST``) by track id.

    Returns:
        ``added``, ``removed``: track ids, sorted. ``changed``: track id -> the ``ASPECTS`` that differ.
        ``texts``: source -> ``before`` and ``after``, the texts that the filters kept. ``splits``: the same, tracks.
    """
    old = {row["track_id"]: row for row in before.to_pylist()}
    new = {row["track_id"]: row for row in after.to_pylist()}
    changed = {}
    for track_id in sorted(old.keys() & new.keys()):
        old_aspects, new_aspects = _aspects(old[track_id]), _aspects(new[track_id])
        if differing := [name for name in ASPECTS if old_aspects[name] != new_aspects[name]]:
            changed[track_id] = differing
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": changed,
        "texts": _side_by_side(_kept_texts(old), _kept_texts(new)),
        "splits": _side_by_side(*(Counter(row["split"] for row in rows.values()) for rows in (old, new))),
    }


def _aspects(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "audio": row["sha256"],
        "clip": (row.get("start_s"), row.get("duration_s"), row["num_samples"]),
        "texts": sorted((text["source"], text["text"], text["drop"] or "") for text in row["texts"]),
        "labels": sorted(row["labels"]),
        "split": row["split"],
    }


def _kept_texts(rows: dict[str, dict[str, Any]]) -> Counter[str]:
    return Counter(text["source"] for row in rows.values() for text in row["texts"] if text["drop"] is None)


def _side_by_side(before: Counter[str], after: Counter[str]) -> dict[str, dict[str, int]]:
    return {name: {"before": before[name], "after": after[name]} for name in sorted(before | after)}

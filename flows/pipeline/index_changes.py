"""How rows differ from what a collection has: counted, and put right in one that stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator
from itertools import chain
from typing import Any

import numpy as np

from flows.pipeline.index_rows import in_batches
from serving.store import TrackStore
from serving.tracks import METADATA, Track, clean_row, is_added, track_of

WindowsOf = Callable[[Container[str]], Iterator[list[dict[str, Any]]]]
"""Finds the windows of tracks by their ids; see ``window_rows``."""


def mend_index(
    store: TrackStore,
    name: str,
    rows: list[dict[str, Any]],
    *,
    edited: Container[str] = (),
    windows: WindowsOf | None = None,
) -> dict[str, int]:
    """Write what a collection has otherwise than the rows, and delete what it has beside them.

    It may be live: searches go on, as they do where the API adds a track. See ``build_index`` for the arguments.

    Returns:
        ``tracks``, how many were written or deleted; and for each reason how many. A track may have several: the
        fields that differed, ``audio`` (its vector), ``missing``, ``gone`` from the catalogue, or ``mark``, the content
        hash alone.
    """
    there = dict(pair for page in store.scroll(name) for pair in page)
    wrong = [row for row in rows if row["track_id"] not in edited and there.get(row["track_id"]) != row["content_hash"]]
    wanted = {row["track_id"] for row in rows}
    # Rows of the API are not the catalogue's; ``EditedCollection.apply`` removes those that were taken back.
    beside = [
        track_id
        for track_id, mark in there.items()
        if track_id not in wanted and track_id not in edited and not is_added(mark)
    ]
    reasons = Counter(gone=len(beside)) + _differences(store, name, wrong)
    for batch in in_batches(wrong):
        ids = {row["track_id"] for row in batch}
        heard = list(chain.from_iterable(windows(ids))) if windows and store.windows.count(name) else []
        store.upsert(name, batch, windows=heard)
    store.delete(name, beside)
    if wrong or beside:
        store.collections.flush(name)
    return {"tracks": len(wrong) + len(beside)} | reasons


def _differences(store: TrackStore, name: str, rows: list[dict[str, Any]]) -> Counter[str]:
    """How rows differ from what a collection has under their ids."""
    reasons: Counter[str] = Counter()
    for batch in in_batches(rows):
        there = store.tracks.get([row["track_id"] for row in batch], collection=name)
        for row in batch:
            reasons.update(_why(row, *there.get(row["track_id"], (None, None))))
    return reasons


def _why(row: dict[str, Any], track: Track | None, vector_D: np.ndarray | None) -> list[str]:
    if track is None or vector_D is None:
        return ["missing"]
    wanted = track_of(clean_row(row, len(row["vector"])))
    fields = [field for field in METADATA if getattr(wanted, field) != getattr(track, field)]
    if len(vector_D) != len(row["vector"]) or not np.allclose(vector_D, row["vector"], atol=1e-3):
        fields.append("audio")
    return fields or ["mark"]


def count_changes(
    store: TrackStore, live: str | None, rows: list[dict[str, Any]], *, edited: Container[str] = ()
) -> dict[str, int]:
    """What differs from the collection that is live: new, changed, removed and unchanged tracks.

    Tracks that the API has added or deleted are none of these; see ``Live.bring_edits``.
    """
    before = dict(pair for page in store.scroll(live) for pair in page) if live else {}
    own = {row["track_id"]: row["content_hash"] for row in rows if row["track_id"] not in edited}
    counts = Counter(
        "new" if track_id not in before else "unchanged" if before[track_id] == content_hash else "changed"
        for track_id, content_hash in own.items()
    )
    indexed = {track_id for track_id, mark in before.items() if track_id not in edited and not is_added(mark)}
    counts["removed"] = len(indexed - own.keys())
    return {name: counts[name] for name in ("new", "changed", "removed", "unchanged")}

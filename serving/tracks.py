"""A track as the store keeps it, and what of a catalogue's row fits into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.errors import StoreError

METADATA = ("title", "artist", "dataset", "labels", "media_path")
MAX_TEXT_BYTES = {
    "track_id": 512,
    "title": 2_048,
    "artist": 1_024,
    "dataset": 256,
    "media_path": 4_096,
    "content_hash": 64,
}
ADDED = "added"
"""The ``content_hash`` of tracks that were added over the API, which no manifest knows."""
MAX_LABELS = 256
"""Labels of one track."""
MAX_LABEL_BYTES = 512


@dataclass(frozen=True)
class Track:
    """One track as stored."""

    track_id: str
    title: str
    artist: str
    dataset: str
    labels: tuple[str, ...]
    media_path: str
    """The file it was made from; empty where there is none to play."""


def clean_row(row: Mapping[str, Any], dim: int) -> dict[str, Any]:
    """A row as stored: texts and labels cut to what fits; whatever but id and vector is missing is empty.

    ``content_hash`` is the caller's own mark of what the row was made from; ``TrackStore.scroll`` gives it back.

    Raises:
        StoreError: for an id that does not fit, or a vector that is not a unit vector of ``dim`` numbers.
    """
    track_id, vector = str(row["track_id"]), np.asarray(row["vector"], np.float32)
    if not 0 < len(track_id.encode()) <= MAX_TEXT_BYTES["track_id"]:
        raise StoreError(f"track_id {track_id[:40]!r} must have 1 to {MAX_TEXT_BYTES['track_id']} bytes")
    if vector.shape != (dim,) or not abs(float(np.linalg.norm(vector)) - 1) < 1e-3:
        raise StoreError(f"the vector of track {track_id} is not a unit vector of {dim} finite numbers")
    cut = ("title", "artist", "dataset", "content_hash")
    texts = {field: _cut(str(row.get(field) or ""), MAX_TEXT_BYTES[field]) for field in cut}
    media_path = str(row.get("media_path") or "")
    if len(media_path.encode()) > MAX_TEXT_BYTES["media_path"]:
        media_path = ""  # half a path is worse than none
    labels = [label for label in (row.get("labels") or ()) if len(label.encode()) <= MAX_LABEL_BYTES]
    return {"track_id": track_id, "vector": vector, "media_path": media_path, "labels": labels[:MAX_LABELS], **texts}


def track_of(row: Mapping[str, Any]) -> Track:
    """A track from a row that the store gave back."""
    return Track(
        track_id=row["track_id"],
        title=row["title"],
        artist=row["artist"],
        dataset=row["dataset"],
        labels=tuple(row["labels"]),
        media_path=row["media_path"],
    )


def _cut(text: str, num_bytes: int) -> str:
    return text.encode()[:num_bytes].decode(errors="ignore")

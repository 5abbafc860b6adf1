"""A track as the store keeps it, and what of a catalogue's row fits into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mulan_core.data.names import MAX_BYTES, MAX_LABELS
from serving.errors import StoreError

METADATA = ("title", "artist", "dataset", "labels", "media_path")
MAX_TEXT_BYTES = {
    **{field: most for field, most in MAX_BYTES.items() if field != "labels"},
    "media_path": 4_096,
    "content_hash": 64,
}
ADDED = "added"
"""How the ``content_hash`` of a track begins that was added over the API; all of it where no audio was kept, by a
version that did not."""
MAX_LABEL_BYTES = MAX_BYTES["labels"]


def is_added(content_hash: str) -> bool:
    """Whether a row with this hash was added over the API; the hashes of others are hexadecimal digits."""
    return content_hash == ADDED or content_hash.startswith(f"{ADDED}:")


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
    """A row as stored; whatever but id and vector is missing is empty.

    ``content_hash`` is the caller's own mark of what the row was made from; ``TrackStore.scroll`` gives it back.
    Names were judged where they came in (``mulan_core.data.names``); what is judged here is whether they fit.

    Raises:
        StoreError: for a name or a number of labels that does not fit, or a vector that is not a unit vector of
            ``dim`` numbers.
    """
    track_id, vector = str(row["track_id"]), np.asarray(row["vector"], np.float32)
    if not 0 < len(track_id.encode()) <= MAX_TEXT_BYTES["track_id"]:
        raise StoreError(f"track_id {track_id[:40]!r} must have 1 to {MAX_TEXT_BYTES['track_id']} bytes")
    if vector.shape != (dim,) or not abs(float(np.linalg.norm(vector)) - 1) < 1e-3:
        raise StoreError(f"the vector of track {track_id} is not a unit vector of {dim} finite numbers")
    texts = {field: str(row.get(field) or "") for field in ("title", "artist", "dataset", "content_hash")}
    labels = list(row.get("labels") or ())
    sizes = [(field, text, MAX_TEXT_BYTES[field]) for field, text in texts.items()]
    for field, text, most in [*sizes, *(("label", label, MAX_LABEL_BYTES) for label in labels)]:
        if len(text.encode()) > most:
            raise StoreError(
                f"the {field} {text[:40]!r}... of track {track_id} has more than {most:,} bytes; shorten it"
            )
    if len(labels) > MAX_LABELS:
        raise StoreError(f"track {track_id} carries {len(labels)} labels; at most {MAX_LABELS} are kept")
    media_path = str(row.get("media_path") or "")
    if len(media_path.encode()) > MAX_TEXT_BYTES["media_path"]:
        media_path = ""  # half a path is worse than none
    return {"track_id": track_id, "vector": vector, "media_path": media_path, "labels": labels, **texts}


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

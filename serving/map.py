"""The catalogue as a map: tracks as points of a plane, so that neighbours sound alike and someone can wander.

The axes are the first two principal components of the vectors. They keep far less than the 128 dimensions
hold, so the map is for wandering; what is near is told by a search.

Shape letters: N tracks, D embedding size.
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from serving.store import TrackStore
from serving.tracks import Track

MAX_POINTS = 3_000


class CatalogueMap:
    """The map of one collection, drawn when it is first asked for and kept.

    Tracks that are added or deleted later do not change it. Larger collections show a sample, the same each time.

    Args:
        store: where the collection is.
        collection: its name.
        show: a track as the API gives it.
    """

    def __init__(self, store: TrackStore, collection: str, show: Callable[[Track], dict[str, Any]]) -> None:
        self._store, self._collection, self._show = store, collection, show
        self._drawn: dict[str, Any] | None = None

    def draw(self) -> dict[str, Any]:
        """``facet`` and ``points``. One thread at a time.

        Raises:
            StoreUnavailableError: if Milvus does not answer; the next call tries again.
        """
        if self._drawn is None:
            sample = self._sample()
            vectors_ND = np.array([vector_D for _, vector_D in sample], np.float32)
            facet, labels = choose_labels([track.labels for track, _ in sample])
            self._drawn = {
                "facet": facet,
                "points": [
                    {name: shown[name] for name in ("track_id", "title", "artist", "audio_url")}
                    | {"label": label, "x": round(float(x), 4), "y": round(float(y), 4)}
                    for shown, label, (x, y) in zip(
                        (self._show(track) for track, _ in sample), labels, project_pca(vectors_ND), strict=True
                    )
                ],
            }
        return self._drawn

    def _sample(self) -> list[tuple[Track, np.ndarray]]:
        ids = (track_id for rows in self._store.scroll(self._collection) for track_id, _ in rows)
        # By a hash of the id: in no order that could mean anything, and without a list of all of them.
        chosen = heapq.nsmallest(MAX_POINTS, ids, key=lambda track_id: zlib.crc32(track_id.encode()))
        return list(self._store.tracks.get(chosen, collection=self._collection).values())


def project_pca(vectors_ND: np.ndarray) -> np.ndarray:
    """The first two principal components, (N, 2), the farthest point at distance 1 from the middle.

    >>> project_pca(np.array([[1, 0, 0], [0, 0, 0], [-1, 0, 0]])).tolist()
    [[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]
    """
    if not len(vectors_ND):
        return np.zeros((0, 2))
    centred_ND = vectors_ND.astype(np.float64) - vectors_ND.mean(axis=0, dtype=np.float64)
    _, axes_DD = np.linalg.eigh(centred_ND.T @ centred_ND)  # ascending
    axes_D2 = axes_DD[:, :-3:-1]
    # An axis may point either way; the way its largest part is positive is always the same.
    largest = np.abs(axes_D2).argmax(axis=0)
    axes_D2 = axes_D2 * np.sign(axes_D2[largest, [0, 1]])
    points_N2 = centred_ND @ axes_D2
    farthest = float(np.linalg.norm(points_N2, axis=1).max())
    return points_N2 / farthest if farthest else points_N2


def choose_labels(labels: Sequence[Sequence[str]]) -> tuple[str | None, list[str | None]]:
    """The facet that most tracks carry, and of each track its most frequent label of that facet.

    Of facets that equally many carry, the one with the fewest labels a track tells them apart best.

    >>> choose_labels([["genre:Jazz", "mood:Calm", "mood:Sad"], ["genre:Salsa", "mood:Calm"], []])
    ('genre', ['genre:Jazz', 'genre:Salsa', None])
    """
    counts = Counter(label for track_labels in labels for label in track_labels)
    carried = Counter(facet for track_labels in labels for facet in {_facet(label) for label in track_labels})
    written = Counter(_facet(label) for track_labels in labels for label in track_labels)
    if not carried:
        return None, [None] * len(labels)
    chosen = min(carried, key=lambda facet: (-carried[facet], written[facet], facet))
    return chosen, [
        max(
            (label for label in track_labels if _facet(label) == chosen),
            key=lambda label: (counts[label], label),
            default=None,
        )
        for track_labels in labels
    ]


def _facet(label: str) -> str:
    """What a label is of: genre for "genre:Jazz". Labels that do not say share the empty facet."""
    facet, colon, _ = label.partition(":")
    return facet if colon else ""

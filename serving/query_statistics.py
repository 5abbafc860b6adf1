"""What is normal for a release, learned from its catalogue as it opens: what scores are worth, which queries are odd.

Shape letters: L labels, Q random directions, D embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mulan_core.evaluation.tagging import split_label
from serving.calibration import Calibration, calibrate
from serving.drift import QueryDrift
from serving.off_topic import PHRASES, OffTopic
from serving.store import TrackStore

MAX_LABELS = 200
"""The most frequent ones; encoding them is what a replica's start waits for."""
MAX_TRACKS = 1_000
DIRECTIONS, TRACKS_A_DIRECTION = 64, 50


@dataclass(frozen=True)
class QueryStatistics:
    """The statistics of a release; without labels it has none."""

    calibration: Calibration
    drift: QueryDrift | None = None
    topic: OffTopic | None = None


def learn_query_statistics(
    labels: Sequence[str],
    encode_texts: Callable[[Sequence[str]], np.ndarray],
    store: TrackStore,
    collection: str,
) -> QueryStatistics:
    """Learn them.

    Args:
        labels: of the catalogue, the most frequent first.
        encode_texts: texts to unit vectors (N, D); of a label its words alone, as in evaluation.
        store: where the collection is, in memory.
        collection: its name.
    """
    labels = labels[:MAX_LABELS]
    if not labels:
        return QueryStatistics(Calibration())
    vectors = encode_texts([*(split_label(label)[1] for label in labels), *PHRASES])
    words_LD = vectors[: len(labels)]
    # Tracks from all over the space: those nearest to random directions.
    random_QD = np.random.default_rng(0).standard_normal((DIRECTIONS, words_LD.shape[1])).astype(np.float32)
    random_QD /= np.linalg.norm(random_QD, axis=1, keepdims=True)
    near = store.tracks.search(random_QD, TRACKS_A_DIRECTION, collection=collection)
    ids = list(dict.fromkeys(hit.track.track_id for hits in zip(*near, strict=False) for hit in hits))
    sample = store.tracks.get(ids[:MAX_TRACKS], collection=collection)
    tracks_ND = np.stack([vector_D for _, vector_D in sample.values()])
    calibration = calibrate(tracks_ND, [track.labels for track, _ in sample.values()], words_LD, labels)
    return QueryStatistics(calibration, QueryDrift(words_LD), OffTopic(words_LD, vectors[len(labels) :]))

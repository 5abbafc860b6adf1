"""What the endpoint asks Milvus under load: questions that wait at the same time become one.

Milvus answers a batch of queries in little more than the time of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np

from serving.batching import Batcher
from serving.filters import TrackFilter
from serving.metrics import Metrics
from serving.store import Hit, Stretch, TrackStore

MAX_BATCH = 64


class Searches:
    """Searches of one collection: those of the same filter and depth become one; lives on the event loop.

    Args:
        store: where the collection is.
        collection: its name.
        pool: threads that ask Milvus.
        metrics: where batches are counted.
    """

    def __init__(self, store: TrackStore, collection: str, pool: Executor, *, metrics: Metrics) -> None:
        self._store, self._collection, self._pool, self._metrics = store, collection, pool, metrics
        self._batches: dict[tuple[str, int], Batcher[np.ndarray, list[Hit]]] = {}

    async def __call__(self, query_D: np.ndarray, depth: int, narrow: TrackFilter | None = None) -> list[Hit]:
        """The ``depth`` nearest tracks, best first."""
        key = (narrow.expression() if narrow else "", depth)

        def run(queries: list[np.ndarray]) -> list[list[Hit]]:
            return self._store.search(np.stack(queries), depth, collection=self._collection, narrow=narrow)

        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = Batcher(
                run, self._pool, max_size=MAX_BATCH, note=lambda n: self._metrics.batch_size.labels("search").observe(n)
            )
        try:
            return await batch(query_D)
        finally:
            if batch.is_idle and self._batches.get(key) is batch:
                del self._batches[key]  # filters are the callers' own, so there is no end of keys


class BestStretches:
    """The stretches of hits that fit best, in a collection that has windows; lives on the event loop.

    Args:
        store: where the collection is.
        collection: its name.
        pool: threads that ask Milvus.
    """

    def __init__(self, store: TrackStore, collection: str, pool: Executor) -> None:
        self._batch: Batcher[tuple[np.ndarray, Sequence[str]], dict[str, Stretch]] = Batcher(
            lambda asked: store.best_stretches(asked, collection=collection), pool, max_size=MAX_BATCH
        )

    async def __call__(self, query_D: np.ndarray, track_ids: Sequence[str]) -> dict[str, Stretch]:
        """The window of each track that is nearest to the query; tracks without windows are left out."""
        return await self._batch((query_D, track_ids))

"""Searches of the endpoint: those that wait at the same time, with the same filter and depth, become one.

Milvus answers a batch of queries in little more than the time of one.
"""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np

from serving.batching import Batcher
from serving.filters import TrackFilter
from serving.metrics import Metrics
from serving.store import Hit, TrackStore

MAX_BATCH = 64


class Searches:
    """Searches of one collection; lives on the event loop.

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

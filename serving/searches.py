"""What the endpoint asks Milvus under load: questions that wait at the same time become one.

Milvus answers a batch of queries in little more than the time of one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Executor

import numpy as np

from serving.batching import Batcher
from serving.filters import TrackFilter
from serving.metrics import Metrics
from serving.store import Page, Span, TrackStore

MAX_BATCH = 64


_Asked = tuple[np.ndarray, Collection[str]]


class Searches:
    """Searches of one collection: those of the same filter and ranks become one; lives on the event loop.

    Args:
        store: where the collection is.
        collection: its name.
        pool: threads that ask Milvus.
        metrics: where batches are counted.
    """

    def __init__(self, store: TrackStore, collection: str, pool: Executor, *, metrics: Metrics) -> None:
        self._store, self._collection, self._pool, self._metrics = store, collection, pool, metrics
        self._batches: dict[tuple[str, int, int], Batcher[_Asked, Page]] = {}

    async def __call__(
        self,
        query_D: np.ndarray,
        k: int,
        *,
        offset: int = 0,
        narrow: TrackFilter | None = None,
        exclude: Collection[str] = (),
    ) -> Page:
        """The ``k`` nearest tracks after the first ``offset``; see ``Pages.pages``."""
        key = (narrow.expression() if narrow else "", offset, k)

        def run(asked: list[_Asked]) -> list[Page]:
            return self._store.tracks.pages(
                np.stack([query_D for query_D, _ in asked]),
                k,
                collection=self._collection,
                offset=offset,
                narrow=narrow,
                exclude=[without for _, without in asked],
            )

        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = Batcher(
                run, self._pool, max_size=MAX_BATCH, note=lambda n: self._metrics.batch_size.labels("search").observe(n)
            )
        try:
            return await batch((query_D, exclude))
        finally:
            if batch.is_idle and self._batches.get(key) is batch:
                del self._batches[key]  # filters are the callers' own, so there is no end of keys


class BestWindows:
    """The spans of hits that fit best, in a collection that has windows; lives on the event loop.

    Args:
        store: where the collection is.
        collection: its name.
        pool: threads that ask Milvus.
    """

    def __init__(self, store: TrackStore, collection: str, pool: Executor) -> None:
        self._batch: Batcher[tuple[np.ndarray, Sequence[str]], dict[str, Span]] = Batcher(
            lambda asked: store.windows.best(asked, collection=collection), pool, max_size=MAX_BATCH
        )

    async def __call__(self, query_D: np.ndarray, track_ids: Sequence[str]) -> dict[str, Span]:
        """The window of each track that is nearest to the query; tracks without windows are left out."""
        return await self._batch((query_D, track_ids))

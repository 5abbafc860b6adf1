"""Vectors of texts for the endpoint: from a cache where they were asked for lately, else in a batch with others'.

Shape letters: N texts, D embedding size.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np

from serving.batching import Batcher
from serving.metrics import Metrics

MAX_BATCH = 32


class TextVectors:
    """The texts of one release; lives on the event loop, so nothing is locked.

    Args:
        encode: texts to unit vectors (N, D); called in ``thread``.
        thread: the model's.
        size: texts whose vectors are kept, the last used ones.
        metrics: where hits, misses and batches are counted.
    """

    def __init__(
        self, encode: Callable[[Sequence[str]], np.ndarray], thread: Executor, *, size: int, metrics: Metrics
    ) -> None:
        self._encode, self._size, self._metrics = encode, size, metrics
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._batch: Batcher[str, np.ndarray] = Batcher(
            self._run, thread, max_size=MAX_BATCH, note=lambda n: metrics.batch_size.labels("encode").observe(n)
        )

    async def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, D), in the order given."""
        by_text = {text: self._cache[text] for text in texts if text in self._cache}
        new = list(dict.fromkeys(text for text in texts if text not in by_text))
        self._metrics.text_cache.labels("hit").inc(len(by_text))
        self._metrics.text_cache.labels("miss").inc(len(new))
        if new:
            vectors = await asyncio.gather(*(self._batch(text) for text in new))
            by_text |= zip(new, vectors, strict=True)
        for text, vector in by_text.items():
            self._cache[text] = vector
            self._cache.move_to_end(text)
        while len(self._cache) > self._size:
            self._cache.popitem(last=False)
        return np.stack([by_text[text] for text in texts])

    def _run(self, texts: list[str]) -> list[np.ndarray]:
        unique = list(dict.fromkeys(texts))  # two callers may have come with the same one
        vectors = dict(zip(unique, self._encode(unique), strict=True))
        return [vectors[text] for text in texts]

"""Whether people ask for other things than the catalogue is described by: the mean query beside the mean label.

Shape letters: L labels, D embedding size.
"""

from __future__ import annotations

from collections import deque

import numpy as np

WINDOW = 500
"""Text queries that the mean is taken over."""


class QueryDrift:
    """The last queries of a replica, against the labels of its release.

    The value depends on model and catalogue, so it is its change that tells; it needs no time to settle, and is
    the same before and after a restart.

    Args:
        labels_LD: unit vectors of the catalogue's labels.
        window: queries remembered.
    """

    def __init__(self, labels_LD: np.ndarray, window: int = WINDOW) -> None:
        self._reference_D = labels_LD.mean(axis=0)
        self._queries: deque[np.ndarray] = deque(maxlen=window)
        self._sum_D = np.zeros(labels_LD.shape[1])

    def note(self, query_D: np.ndarray) -> float:
        """Take a query in; returns 1 - cosine of the two means, 0 to 2."""
        if len(self._queries) == self._queries.maxlen:
            self._sum_D -= self._queries[0]
        self._queries.append(query_D)
        self._sum_D += query_D
        norms = float(np.linalg.norm(self._sum_D) * np.linalg.norm(self._reference_D))
        return 1 - float(self._sum_D @ self._reference_D) / max(norms, 1e-12)

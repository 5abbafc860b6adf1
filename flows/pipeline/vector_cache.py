"""Track vectors on disk by what they were made of: the clip's audio (``clip_key``), under one model.

A folder of Parquet parts that are only ever added, so a job that is killed keeps what it wrote, and a catalogue that
changed finds the vectors of all that did not. The folder may be deleted at any time; that costs time only.

Shape letters: N clips, D embedding size.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


class VectorCache:
    """Vectors of one model.

    Args:
        folder: named by the model's weights.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place: dict[str, int] = {}
        self._vectors: list[np.ndarray] = []
        for path in sorted(folder.glob("part-*.parquet")):
            table = pq.read_table(path)
            vectors = table["vector"].combine_chunks()
            self._keep(table["clip_key"].to_pylist(), vectors.flatten().to_numpy().reshape(len(table), -1))

    def __contains__(self, clip_key: object) -> bool:
        return clip_key in self._place

    def get(self, clip_keys: Sequence[str]) -> np.ndarray:
        """Their vectors, float32 (N, D).

        Raises:
            KeyError: if one has none.
        """
        return np.array([self._vectors[self._place[key]] for key in clip_keys], np.float32)

    def add(self, clip_keys: Sequence[str], vectors_ND: np.ndarray) -> None:
        """Keep vectors, on disk when this returns."""
        self._folder.mkdir(parents=True, exist_ok=True)
        flat = pa.array(np.ascontiguousarray(vectors_ND, np.float32).ravel())
        columns = {
            "clip_key": pa.array(clip_keys, pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors_ND.shape[1]),
        }
        # A name of its own, since two flows may embed with one model; whole or not there, since one may be killed.
        building = self._folder / f".{uuid.uuid4().hex}.building"
        pq.write_table(pa.table(columns), building)
        building.rename(self._folder / f"part-{building.stem.lstrip('.')}.parquet")
        self._keep(clip_keys, vectors_ND)

    def _keep(self, clip_keys: Sequence[str], vectors_ND: np.ndarray) -> None:
        for key, vector in zip(clip_keys, vectors_ND, strict=True):
            self._place[key] = len(self._vectors)
            self._vectors.append(vector)

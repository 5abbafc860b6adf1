"""Windows of tracks, in a collection beside that of the tracks: which stretch of a hit fits the query best.

Tracks are searched by their own vectors, so recall and filters are what they are without windows.

Shape letters: D embedding size, W windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.collection import CONSISTENCY, WINDOWS, Collections
from serving.filters import one_of


@dataclass(frozen=True)
class Stretch:
    """A window of a track: its place in the track's file."""

    start_s: float
    end_s: float


class Windows(Collections):
    """The windows in the collections at one Milvus address; see ``Collections``.

    A collection is named here by the one of its tracks.
    """

    def load(self, name: str) -> None:
        """Bring a collection into memory, and the windows of its tracks."""
        super().load(name)
        if self.has(name + WINDOWS):
            super().load(name + WINDOWS)

    def count_windows(self, collection: str) -> int:
        """How many windows of its tracks are kept; 0 also where a build of them was cut off."""
        beside = collection + WINDOWS
        if not self.has(beside):
            return 0
        info = self.describe(beside)
        return info.count if info.properties else 0  # they come last in a build

    def build_windows(self, collection: str, rows: Iterable[Sequence[Mapping[str, Any]]]) -> int:
        """Keep the windows of a collection that stands, in place of those that it had; returns how many.

        Args:
            collection: its name.
            rows: batches of rows with track_id, start_s, end_s and vector (a unit vector (D,)).

        Raises:
            StoreError: if a row does not fit; then the collection has no windows.
        """
        beside = collection + WINDOWS
        if self.has(beside):
            self._call(lambda client: client.drop_collection(beside))
        self._create_windows(beside, dim=self.describe(collection).dim)
        count = 0
        for batch in rows:
            self._call(lambda client, batch=batch: client.insert(beside, _numbered(batch)))  # type: ignore[misc]
            count += len(batch)
        self._index(beside, "FLAT")
        self._describe_as(beside, {"windows_of": collection})
        return count

    def _replace_windows(
        self, collection: str, track_ids: Sequence[str], rows: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Forget the windows of these tracks and keep those of the rows; nothing where no windows are kept."""
        beside = collection + WINDOWS
        if not track_ids or not self.has(beside):
            return
        self._loaded(beside, lambda client: client.delete(beside, filter=one_of(track_ids)))
        if rows:
            self._call(lambda client: client.insert(beside, _numbered(rows)))
        self._settle(beside)

    def windows(self, track_ids: Sequence[str], *, collection: str) -> list[dict[str, Any]]:
        """The windows of tracks as rows with track_id, start_s, end_s and vector, in no order.

        Args:
            track_ids: the tracks; those without windows are left out.
            collection: name of a collection that has windows.
        """
        if not track_ids:
            return []
        fields = ["track_id", "start_s", "end_s", "vector"]

        def ask(client: Any) -> Any:
            return client.query(
                collection + WINDOWS,
                filter=one_of(track_ids),
                output_fields=fields,
                consistency_level=CONSISTENCY,
                timeout=self._timeout_s,
            )

        return [{field: row[field] for field in fields} for row in self._loaded(collection + WINDOWS, ask)]

    def best_stretches(self, query_D: np.ndarray, track_ids: Sequence[str], *, collection: str) -> dict[str, Stretch]:
        """The window of each track that is nearest to the query; tracks without windows are left out.

        Args:
            query_D: a unit vector.
            track_ids: the tracks.
            collection: name of a collection that has windows.
        """
        rows = self.windows(track_ids, collection=collection)
        if not rows:
            return {}
        scores_W = np.array([row["vector"] for row in rows], np.float32) @ query_D
        best: dict[str, Stretch] = {}
        for i in np.argsort(-scores_W, kind="stable"):
            best.setdefault(rows[i]["track_id"], Stretch(float(rows[i]["start_s"]), float(rows[i]["end_s"])))
        return best


def _numbered(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as stored: a track has one window at a place, to the millisecond."""
    return [{**row, "window_id": f"{row['track_id']}@{round(1000 * row['start_s'])}"} for row in rows]

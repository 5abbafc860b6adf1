"""Windows of tracks, in a collection beside that of the tracks: which window of a hit fits the query best.

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

_IDS = "track@place"
_FIRST_ASKED = 4
"""Windows of each track that are asked for at once; a clip of 30 s has three or four, and of longer ones more are."""


@dataclass(frozen=True)
class Span:
    """A window of a track: its place in the track's file."""

    start_s: float
    end_s: float


class Windows:
    """The windows of tracks, in collections beside those of the tracks, by whose names they go here."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    def count(self, collection: str) -> int:
        """How many windows of its tracks are kept; 0 also where a build of them was cut off."""
        beside = collection + WINDOWS
        if not self._collections.has(beside):
            return 0
        info = self._collections.describe(beside)
        # They come last in a build. Collections of earlier versions numbered their windows otherwise.
        return info.count if info.properties.get("window_ids") == _IDS else 0

    def build(self, collection: str, rows: Iterable[Sequence[Mapping[str, Any]]]) -> int:
        """Keep the windows of a collection that stands, in place of those that it had; returns how many.

        Args:
            collection: its name.
            rows: batches of rows with track_id, place (0 for a track's first window, then 1, ...), start_s, end_s and
                vector (a unit vector (D,)).

        Raises:
            StoreError: if a row does not fit; then the collection has no windows.
        """
        beside = collection + WINDOWS
        if self._collections.has(beside):
            self._collections.call(lambda client: client.drop_collection(beside))
        self._collections.create_windows(beside, dim=self._collections.describe(collection).dim)
        count = 0
        for batch in rows:
            self._collections.call(lambda client, batch=batch: client.insert(beside, _numbered(batch)))  # type: ignore[misc]
            count += len(batch)
        self._collections.index(beside, "FLAT")
        self._collections.describe_as(beside, {"windows_of": collection, "window_ids": _IDS})
        return count

    def replace(self, collection: str, track_ids: Sequence[str], rows: Sequence[Mapping[str, Any]] = ()) -> None:
        """Forget the windows of these tracks and keep those of the rows; nothing where no windows are kept."""
        beside = collection + WINDOWS
        if not track_ids or not self._collections.has(beside):
            return
        self._collections.loaded(beside, lambda client: client.delete(beside, filter=one_of(track_ids)))
        if rows:
            self._collections.call(lambda client: client.insert(beside, _numbered(rows)))
        self._collections.settle(beside)

    def get(self, track_ids: Sequence[str], *, collection: str) -> list[dict[str, Any]]:
        """The windows of tracks as rows as ``build`` takes them, in no order.

        Args:
            track_ids: the tracks; those without windows are left out.
            collection: name of a collection that has windows.
        """
        rows: list[dict[str, Any]] = []
        first, number, asked = 0, _FIRST_ASKED, list(dict.fromkeys(track_ids))
        while asked:
            # By their own ids, which Milvus finds at once: a filter on track_id would walk over all windows.
            names = [_name(track_id, place) for track_id in asked for place in range(first, first + number)]
            window_rows = self._named(names, collection=collection)
            rows += window_rows
            first += number
            asked = [row["track_id"] for row in window_rows if row["place"] == first - 1]  # they may have more
            number *= 2
        return rows

    def _named(self, names: Sequence[str], *, collection: str) -> list[dict[str, Any]]:
        fields = ["track_id", "start_s", "end_s", "vector"]

        def ask(client: Any) -> Any:
            return client.query(
                collection + WINDOWS,
                filter=one_of(names, "window_id"),
                output_fields=["window_id", *fields],
                consistency_level=CONSISTENCY,
                timeout=self._collections.timeout_s,
            )

        return [
            {field: row[field] for field in fields} | {"place": int(row["window_id"].rpartition("@")[2])}
            for row in self._collections.loaded(collection + WINDOWS, ask)
        ]

    def best(self, asked: Sequence[tuple[np.ndarray, Sequence[str]]], *, collection: str) -> list[dict[str, Span]]:
        """The window of each track that is nearest to a query, for several queries and the tracks that each found.

        Args:
            asked: unit vectors, each with its tracks; tracks without windows are left out of the answer.
            collection: name of a collection that has windows.
        """
        rows = self.get([track_id for _, ids in asked for track_id in ids], collection=collection)
        rows.sort(key=lambda row: row["place"])  # of equal windows the first
        rows_of: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            rows_of.setdefault(row["track_id"], []).append(i)
        vectors_WD = np.array([row["vector"] for row in rows], np.float32)

        def best(query_D: np.ndarray, track_id: str) -> Span:
            windows = rows_of[track_id]
            row = rows[windows[int(np.argmax(vectors_WD[windows] @ query_D))]]
            return Span(float(row["start_s"]), float(row["end_s"]))

        return [{id_: best(query_D, id_) for id_ in ids if id_ in rows_of} for query_D, ids in asked]


def _numbered(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as stored: named by track and place."""
    return [
        {name: value for name, value in row.items() if name != "place"}
        | {"window_id": _name(row["track_id"], row["place"])}
        for row in rows
    ]


def _name(track_id: str, place: int) -> str:
    return f"{track_id}@{place}"

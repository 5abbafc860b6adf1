"""The vector store: tracks in collections of Milvus, built and proved, written, found (``pages.py``).

Shape letters: N tracks, Q queries, D embedding size.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from serving.collection import LIVE_ALIAS, CollectionInfo, Collections, Graph, collection_name
from serving.errors import StoreError
from serving.filters import begins, one_of
from serving.pages import Hit, Page, Ranks, TrackSearch, in_turn
from serving.recall import EF_CANDIDATES, FILTERED_GOAL, PROBE_K, pick_filters, pick_queries, share_found
from serving.tracks import ADDED, clean_row
from serving.windows import Span, Windows

__all__ = ["LIVE_ALIAS", "BuildResult", "CollectionInfo", "Hit", "Page", "Span", "TrackStore", "collection_name"]

MAX_CATALOGUE_LABELS = 1_000
"""Labels of the whole catalogue that the collection remembers, the most frequent ones."""


@dataclass(frozen=True)
class BuildResult:
    """What a build made and measured."""

    count: int
    recall_at_10: float
    """Of tracks as queries, or of the probes given, whichever is lower."""
    index_type: str
    """FLAT, which is exact, or HNSW, a graph."""
    seconds: float
    ef: int = 0
    """How wide the graph is searched from now on; see ``recall.EF_CANDIDATES``. 0 where there is none."""
    filtered_recall: dict[str, float] = field(default_factory=dict)
    """The same under filters that leave a share of the tracks, by that share in percent."""
    reads_filtered: bool = False
    """The graph does not hold the floor under filters: filtered searches read the tracks that pass instead."""


class TrackStore:
    """The tracks at one Milvus address: ``collections`` of them, ``tracks`` by query and id, and their ``windows``.

    What writes to more than one of them is here. For the arguments see ``Collections``.
    """

    def __init__(self, uri: str, token: str | None = None, *, timeout_s: float = 5.0, live: str = LIVE_ALIAS) -> None:
        self.collections = Collections(uri, token, timeout_s=timeout_s, live=live)
        self.tracks = TrackSearch(self.collections)
        self.windows = Windows(self.collections)

    def close(self) -> None:
        """Hang up."""
        self.collections.close()

    def build(
        self,
        name: str,
        rows: Iterable[Sequence[Mapping[str, Any]]],
        *,
        dim: int,
        properties: Mapping[str, str],
        hnsw_from: int,
        recall_floor: float,
        probes_QD: np.ndarray | None = None,
    ) -> BuildResult:
        """Build a collection from nothing, load it, and measure recall@10, with and without filters.

        A graph is searched as wide as it must be for the floor. Where it does not hold it under filters at any ef,
        the collection remembers to answer those by reading. A collection of the same name is replaced, unless it is
        live.

        Args:
            name: of the collection.
            rows: batches of rows with track_id, vector (a unit vector (D,)), title, artist, dataset,
                labels, media_path and content_hash; see ``tracks.clean_row``.
            dim: D.
            properties: kept with the collection; ``describe`` returns them.
            hnsw_from: see ``index_type``.
            recall_floor: least recall@10.
            probes_QD: queries such as people ask, unit vectors, beside some of the tracks.

        Raises:
            StoreError: if recall@10 is under the floor, a row does not fit, or there are none. The
                collection is dropped then, and the live one untouched.
        """
        started = time.perf_counter()
        if self.collections.has(name):
            self.collections.drop(name)
        self.tracks.graphs.pop(name, None)
        try:
            vectors_ND, ids, labels = self._insert(name, rows, dim=dim)
            _check_ids(name, ids)
            index_type = self.index_type(len(ids), hnsw_from)
            self.collections.index(name, index_type)
            count = self.collections.count(name)
            if count != len(ids):
                raise StoreError(f"{name} holds {count} tracks of {len(ids)}; not kept")
            probes = [vectors_ND[pick_queries(len(ids))], *([] if probes_QD is None else [probes_QD])]
            graph, recall, filtered = self._prove(
                name, probes, vectors_ND, ids, labels, floor=recall_floor, is_graph=index_type == "HNSW"
            )
            # Last, so that a collection with properties is one that was proved.
            frequent = [
                label for label, _ in Counter(label for track_labels in labels for label in track_labels).most_common()
            ]
            self.collections.describe_as(name, properties, frequent[:MAX_CATALOGUE_LABELS], graph=graph)
        except BaseException:
            with contextlib.suppress(StoreError):
                self.collections.call(lambda client: client.drop_collection(name, timeout=self.collections.timeout_s))
            raise
        seconds, ef = time.perf_counter() - started, graph.ef if graph else 0
        reads = graph is not None and not graph.holds_filters
        return BuildResult(len(ids), recall, index_type, seconds, ef, filtered, reads)

    def index_type(self, num_tracks: int, hnsw_from: int) -> str:
        """HNSW for this many tracks or more on a real Milvus, else FLAT.

        Lite's graph is no faster than its exact search, and loses most of what a filter leaves.
        """
        return "HNSW" if num_tracks >= hnsw_from and not self.collections.is_lite() else "FLAT"

    def upsert(
        self, collection: str, rows: Sequence[Mapping[str, Any]], *, windows: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Add rows, replacing those of the same track_id and their windows; returns how many.

        Args:
            collection: its name.
            rows: see ``build``.
            windows: of these tracks, see ``Windows.build``; left out where the collection has none.

        Searches find them once this returns. ``flush`` after many: until then Lite searches them one by one.

        Raises:
            StoreError: if a row does not fit; then none is written.
        """
        dim = self.collections.describe(collection).dim
        clean = [clean_row(row, dim) for row in rows]
        # Milvus keeps both of two rows with one id in the same call.
        by_id = {row["track_id"]: row for row in clean}
        if by_id:
            self.collections.call(lambda client: client.upsert(collection, list(by_id.values())))
            self.windows.replace(collection, list(by_id), windows)
            self.collections.settle(collection)
        return len(by_id)

    def delete(self, collection: str, track_ids: Sequence[str]) -> int:
        """Remove tracks and their windows; returns how many were there. Ids that are not are no error."""
        ids = list(self.tracks.get(track_ids, collection=collection))
        if ids:
            self.windows.replace(collection, ids)
            self.collections.call(lambda client: client.delete(collection, filter=one_of(ids)))
            self.collections.settle(collection)
        return len(ids)

    def copy(self, marks: Mapping[str, str], source: str, target: str) -> None:
        """Copy tracks and their windows into another collection of the same model.

        Args:
            marks: the content hash that each of them gets there, by track id.
            source, target: names of the collections.
        """
        has_windows = self.windows.count(source) > 0
        for batch in in_turn(list(marks)):
            tracks = self.tracks.get(batch, collection=source)
            rows = [asdict(track) | {"vector": vector_D} for track, vector_D in tracks.values()]
            marked = [row | {"content_hash": marks[row["track_id"]]} for row in rows]
            self.upsert(target, marked, windows=self.windows.get(batch, collection=source) if has_windows else ())

    def hashes(self, track_ids: Sequence[str], *, collection: str) -> dict[str, str]:
        """Content hashes of tracks by id; ids that are not there are left out.

        Collections of the first versions have none, which is given as an empty one.
        """
        fields, hash_of = self._hash_fields(collection), dict[str, str]()
        for batch in in_turn(track_ids):
            for rows in self.tracks.walk(collection, fields, one_of(batch), len(batch)):
                hash_of |= {row["track_id"]: row.get("content_hash", "") for row in rows}
        return hash_of

    def scroll(
        self, collection: str, *, batch: int = 5_000, only_added: bool = False
    ) -> Iterator[list[tuple[str, str]]]:
        """All tracks, or those that were added over the API, as (track_id, content_hash) in batches.

        Tracks that are written or deleted meanwhile may or may not be among them. See ``hashes``.
        """
        fields = self._hash_fields(collection)
        if only_added and "content_hash" not in fields:
            return
        for rows in self.tracks.walk(collection, fields, begins("content_hash", ADDED) if only_added else "", batch):
            yield [(row["track_id"], row.get("content_hash", "")) for row in rows]

    def _hash_fields(self, collection: str) -> list[str]:
        description = self.collections.call(
            lambda client: client.describe_collection(collection, timeout=self.collections.timeout_s)
        )
        return [field["name"] for field in description["fields"] if field["name"] in ("track_id", "content_hash")]

    def _insert(
        self, name: str, rows: Iterable[Sequence[Mapping[str, Any]]], *, dim: int
    ) -> tuple[np.ndarray, list[str], list[list[str]]]:
        self.collections.create(name, dim=dim)
        vectors: list[np.ndarray] = []
        ids: list[str] = []
        labels: list[list[str]] = []
        for batch in rows:
            clean = [clean_row(row, dim) for row in batch]
            self.collections.call(lambda client, clean=clean: client.insert(name, clean))  # type: ignore[misc]
            vectors += [row["vector"] for row in clean]
            ids += [row["track_id"] for row in clean]
            labels += [row["labels"] for row in clean]
        return np.array(vectors, np.float32), ids, labels

    def _prove(
        self,
        name: str,
        probes: Sequence[np.ndarray],
        vectors_ND: np.ndarray,
        ids: list[str],
        labels: list[list[str]],
        *,
        floor: float,
        is_graph: bool,
    ) -> tuple[Graph | None, float, dict[str, float]]:
        """The graph as narrow as it may be, the recall of the index, and that under filters."""
        filters = pick_filters(ids, labels)
        chosen: tuple[Graph | None, float, dict[str, float]] | None = None
        for ef in EF_CANDIDATES if is_graph else EF_CANDIDATES[:1]:
            graph = self.tracks.graphs[name] = Graph(ef, holds_filters=True) if is_graph else None
            recall = self._recall(name, probes, vectors_ND, ids)
            if not recall >= floor:
                continue
            filtered: dict[str, float] = {}
            for track_filter in filters:
                passing_ids = [ids[i] for i in track_filter.passing]
                filter_recall = self._recall(
                    name, probes, vectors_ND[track_filter.passing], passing_ids, narrow=track_filter.expression
                )
                filtered[track_filter.percent] = min(filter_recall, filtered.get(track_filter.percent, 1.0))
            least = min(filtered.values())
            if graph is None and not least >= floor:
                recall = least
                continue
            if chosen is None or least > min(chosen[2].values()):
                chosen = graph and Graph(ef, holds_filters=least >= floor), recall, filtered
            if least >= FILTERED_GOAL:
                break
        if chosen is None:
            raise StoreError(f"recall@10 of {name} is {recall:.3f}, under the floor of {floor:g}; not kept")
        self.tracks.graphs[name] = chosen[0]
        return chosen

    def _recall(
        self, name: str, probes: Sequence[np.ndarray], vectors_ND: np.ndarray, ids: list[str], narrow: str = ""
    ) -> float:
        """Of the tracks that pass the filter, which are given; of the worst group of probes."""
        shares = []
        for queries_QD in probes:
            pages = self.tracks.ranked(queries_QD, Ranks(name, narrow, 0, min(PROBE_K, len(ids))))
            hit_ids = [[hit.track.track_id for hit in page.hits] for page in pages]
            shares.append(share_found(hit_ids, queries_QD, vectors_ND, ids))
        return min(shares)


def _check_ids(name: str, ids: Sequence[str]) -> None:
    if not ids:
        raise StoreError(f"there is nothing to index: {name} would hold no tracks")
    twice = [track_id for track_id, times in Counter(ids).items() if times > 1]
    if twice:
        raise StoreError(f"track_id {twice[0]} occurs twice in the catalogue; {name} is not kept")

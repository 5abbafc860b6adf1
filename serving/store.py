"""The vector store: tracks in collections of Milvus, built and proved, written, found.

Shape letters: N tracks, Q queries, D embedding size.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from serving.collection import CONSISTENCY, LIVE_ALIAS, CollectionInfo, collection_name
from serving.errors import StoreError
from serving.filters import TrackFilter, equals, one_of
from serving.recall import PROBE_K, WIDTHS, pick_queries, share_found
from serving.stretches import Stretch, Windows
from serving.tracks import ADDED, METADATA, Track, clean_row, track_of

__all__ = ["LIVE_ALIAS", "BuildResult", "CollectionInfo", "Hit", "Stretch", "TrackStore", "collection_name"]

BATCH = 500
"""Tracks that Milvus is asked for by id at once."""
MAX_CATALOGUE_LABELS = 1_000
"""Labels of the whole catalogue that the collection remembers, the most frequent ones."""


@dataclass(frozen=True)
class BuildResult:
    """What a build made and measured."""

    count: int
    recall_at_10: float
    """Of tracks as queries, or of the probes given, whichever is lower."""
    index_type: str
    seconds: float
    width: int
    """How wide the graph is searched from now on, to reach that; see ``recall.WIDTHS``."""


@dataclass(frozen=True)
class Hit:
    """A track found, with its cosine to the query."""

    track: Track
    score: float


class TrackStore(Windows):
    """The tracks in the collections at one Milvus address; see ``Collections``."""

    def __init__(self, uri: str, token: str | None = None, *, timeout_s: float = 5.0) -> None:
        super().__init__(uri, token, timeout_s=timeout_s)
        self._width: dict[str, int] = {}

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
        """Build a collection from nothing, load it, and measure recall@10 against exact search.

        A graph is searched as wide as it must be for the floor. A collection of the same name is replaced, unless it is
        live.

        Args:
            name: of the collection.
            rows: batches of rows with track_id, vector (a unit vector (D,)), title, artist, dataset,
                labels, media_path and content_hash; see ``tracks.clean_row``.
            dim: D.
            properties: kept with the collection; ``describe`` returns them.
            hnsw_from: collections at least this large get an HNSW index, smaller ones FLAT.
            recall_floor: least recall@10.
            probes_QD: queries such as people ask, unit vectors, beside some of the tracks.

        Raises:
            StoreError: if recall@10 is under the floor, a row does not fit, or there are none. The
                collection is dropped then, and the live one untouched.
        """
        started = time.perf_counter()
        if self.has(name):
            self.drop(name)
        try:
            vectors_ND, ids, labels = self._insert(name, rows, dim=dim)
            if not ids:
                raise StoreError(f"there is nothing to index: {name} would hold no tracks")
            twice = [track_id for track_id, times in Counter(ids).items() if times > 1]
            if twice:
                raise StoreError(f"track_id {twice[0]} occurs twice in the catalogue; {name} is not kept")
            index_type = "HNSW" if len(ids) >= hnsw_from else "FLAT"
            self._index(name, index_type)
            count = self.count(name)
            if count != len(ids):
                raise StoreError(f"{name} holds {count} tracks of {len(ids)}; not kept")
            probes = [vectors_ND[pick_queries(len(ids))], *([] if probes_QD is None else [probes_QD])]
            for width in WIDTHS if index_type == "HNSW" else WIDTHS[:1]:
                self._width[name] = width
                recall = min(self._recall(name, queries_QD, vectors_ND, ids) for queries_QD in probes)
                if recall >= recall_floor:
                    break
            if not recall >= recall_floor:
                raise StoreError(f"recall@10 of {name} is {recall:.3f}, under the floor of {recall_floor:g}; not kept")
            # Last, so that a collection with properties is one that was proved.
            frequent = [label for label, _ in labels.most_common(MAX_CATALOGUE_LABELS)]
            self._describe_as(name, properties, frequent, width=width)
        except BaseException:
            with contextlib.suppress(StoreError):
                self._call(lambda client: client.drop_collection(name, timeout=self._timeout_s))
            raise
        return BuildResult(len(ids), recall, index_type, time.perf_counter() - started, width)

    def upsert(
        self, collection: str, rows: Sequence[Mapping[str, Any]], *, windows: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Add rows, replacing those of the same track_id and their windows; returns how many.

        Args:
            collection: its name.
            rows: see ``build``.
            windows: of these tracks, see ``build_windows``; left out where the collection has none.

        Searches find them once this returns. ``flush`` after many: until then Lite searches them one by one.

        Raises:
            StoreError: if a row does not fit; then none is written.
        """
        dim = self.describe(collection).dim
        clean = [clean_row(row, dim) for row in rows]
        # Milvus keeps both of two rows with one id in the same call.
        by_id = {row["track_id"]: row for row in clean}
        if by_id:
            self._call(lambda client: client.upsert(collection, list(by_id.values())))
            self._replace_windows(collection, list(by_id), windows)
            self._settle(collection)
        return len(by_id)

    def delete(self, collection: str, track_ids: Sequence[str]) -> int:
        """Remove tracks and their windows; returns how many were there. Ids that are not are no error."""
        found = list(self.get(track_ids, collection=collection))
        if found:
            self._replace_windows(collection, found)
            self._call(lambda client: client.delete(collection, filter=one_of(found)))
            self._settle(collection)
        return len(found)

    def added(self, collection: str, *, unknown_to: str) -> list[str]:
        """Tracks that were added to a collection over the API (``tracks.ADDED``) and that another one lacks."""
        ids = [track_id for page in self.scroll(collection, content_hash=ADDED) for track_id, _ in page]
        known = self.get(ids, collection=unknown_to)
        return [track_id for track_id in ids if track_id not in known]

    def copy_added(self, track_ids: Sequence[str], source: str, target: str) -> None:
        """Copy tracks that were added over the API, and their windows, into another collection of the same model."""
        has_windows = self.count_windows(source) > 0
        for some in _in_turn(track_ids):
            found = self.get(some, collection=source).values()
            rows = [asdict(track) | {"vector": vector_D, "content_hash": ADDED} for track, vector_D in found]
            self.upsert(target, rows, windows=self.windows(some, collection=source) if has_windows else ())

    def scroll(
        self, collection: str, *, batch: int = 5_000, content_hash: str | None = None
    ) -> Iterator[list[tuple[str, str]]]:
        """All tracks, or those of one hash, as (track_id, content_hash) in batches; it is empty where none was given.

        Tracks that are written or deleted meanwhile may or may not be among them.
        """
        found = self._call(lambda client: client.describe_collection(collection, timeout=self._timeout_s))
        # Collections of earlier versions have no hashes.
        fields = [field["name"] for field in found["fields"] if field["name"] in ("track_id", "content_hash")]
        if content_hash is not None and "content_hash" not in fields:
            return
        narrow = equals("content_hash", content_hash) if content_hash is not None else ""

        def start(client: Any) -> Any:
            return client.query_iterator(
                collection, batch_size=batch, filter=narrow, output_fields=fields, consistency_level=CONSISTENCY
            )

        iterator = self._loaded(collection, start)
        try:
            while rows := self._call(lambda _: iterator.next()):
                yield [(row["track_id"], row.get("content_hash", "")) for row in rows]
        finally:
            iterator.close()

    def search(
        self,
        vectors_QD: np.ndarray,
        k: int,
        *,
        collection: str,
        narrow: TrackFilter | None = None,
        exclude: Sequence[str] = (),
    ) -> list[list[Hit]]:
        """The k nearest tracks of each query, best first.

        Args:
            vectors_QD: unit vectors.
            k: how many; fewer come back where the filter or the collection leaves fewer.
            collection: a collection or an alias.
            narrow: only tracks that pass it.
            exclude: track ids to leave out.

        Raises:
            StoreUnavailableError: if Milvus does not answer. A collection that a restart of Milvus left
                unloaded is loaded, and the search tried again.
        """
        width = max(self._width_of(collection), k + len(exclude))

        def ask(client: Any) -> Any:
            return client.search(
                collection,
                data=np.ascontiguousarray(vectors_QD, dtype=np.float32).tolist(),
                limit=k + len(exclude),
                filter=narrow.expression() if narrow else "",
                # Lite gives the id as track_id beside the entity, a real Milvus as id: in the entity both do.
                output_fields=["track_id", *METADATA],
                search_params={"params": {"ef": width}},
                consistency_level=CONSISTENCY,
                timeout=self._timeout_s,
            )

        left_out = set(exclude)
        return [
            [
                Hit(track_of(hit["entity"]), float(hit["distance"]))
                for hit in hits
                if hit["entity"]["track_id"] not in left_out
            ][:k]
            for hits in self._loaded(collection, ask)
        ]

    def get(self, track_ids: Sequence[str], *, collection: str) -> dict[str, tuple[Track, np.ndarray]]:
        """Tracks and their vectors by id; ids that are not there are left out."""
        fields = ["track_id", "vector", *METADATA]

        def ask_for(some: Sequence[str]) -> list[dict[str, Any]]:
            def ask(client: Any) -> Any:
                return client.query(
                    collection,
                    filter=one_of(some),
                    output_fields=fields,
                    consistency_level=CONSISTENCY,
                    timeout=self._timeout_s,
                )

            return list(self._loaded(collection, ask))

        rows = [row for some in _in_turn(track_ids) for row in ask_for(some)]
        return {row["track_id"]: (track_of(row), np.asarray(row["vector"], np.float32)) for row in rows}

    def _insert(
        self, name: str, rows: Iterable[Sequence[Mapping[str, Any]]], *, dim: int
    ) -> tuple[np.ndarray, list[str], Counter[str]]:
        self._create(name, dim=dim)
        vectors: list[np.ndarray] = []
        ids: list[str] = []
        counts: Counter[str] = Counter()
        for batch in rows:
            clean = [clean_row(row, dim) for row in batch]
            self._call(lambda client, clean=clean: client.insert(name, clean))  # type: ignore[misc]
            vectors += [row["vector"] for row in clean]
            ids += [row["track_id"] for row in clean]
            counts.update(label for row in clean for label in row["labels"])
        return np.array(vectors, np.float32), ids, counts

    def _recall(self, name: str, queries_QD: np.ndarray, vectors_ND: np.ndarray, ids: list[str]) -> float:
        hits = self.search(queries_QD, min(PROBE_K, len(ids)), collection=name)
        return share_found([[hit.track.track_id for hit in of] for of in hits], queries_QD, vectors_ND, ids)

    def _width_of(self, collection: str) -> int:
        width = self._width.get(collection)
        if width is None:
            info = self.describe(collection)
            width = info.width
            if info.name == collection:  # an alias may name another one soon
                self._width[collection] = width
        return width


def _in_turn(track_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(track_ids), BATCH):
        yield track_ids[first : first + BATCH]

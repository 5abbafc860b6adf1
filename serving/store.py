"""The vector store: collections of tracks in Milvus, built beside the live one and switched by alias.

The only module that knows Milvus. It speaks to Lite (in process or as a server) and to a real Milvus alike.

Order of a switch: build, flush, index, load, probe, then alter the alias. An alias does not load its target,
and before the flush a search is many times slower.

Shape letters: N tracks, Q queries, D embedding size.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from serving.errors import StoreError, StoreUnavailableError
from serving.filters import TrackFilter, one_of
from serving.recall import PROBE_K, pick_queries, share_found
from serving.tracks import MAX_LABEL_BYTES, MAX_LABELS, MAX_TEXT_BYTES, METADATA, Track, clean_row, track_of

T = TypeVar("T")

LIVE_ALIAS = "tracks_live"
MAX_CATALOGUE_LABELS = 1_000
"""Labels of the whole catalogue that the collection remembers, the most frequent ones."""

_PREFIX = "mulan."
_AWAY = ("illegal connection params or server unavailable", "No channel in handler", "closed channel", "retry timeout")
_FULL = ("No space left on device", "Disk quota exceeded", "File too large")
_CHANNEL = {
    # A new client dials at once; from the shared pool it would wait out the back-off of the one that broke.
    "grpc.use_local_subchannel_pool": 1,
    # pymilvus pings idle connections every 10 s, which Lite's server punishes by hanging up.
    "grpc.keepalive_time_ms": 300_000,
    "grpc.keepalive_permit_without_calls": 0,
}
_HNSW = {"M": 16, "efConstruction": 200}
_HNSW_EF = 128
_CONSISTENCY = "Bounded"
"""Of reads: what is there now. Writes wait until that is what they wrote, so that no search has to."""

# pymilvus prints whole tracebacks of errors that it also raises
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class BuildResult:
    """What a build made and measured."""

    count: int
    recall_at_10: float
    index_type: str
    seconds: float


@dataclass(frozen=True)
class CollectionInfo:
    """A collection and what it was made from."""

    name: str
    dim: int
    count: int
    is_loaded: bool
    properties: dict[str, str]
    """What ``build`` was given: model_version, data_hash, preprocessing_hash."""
    labels: tuple[str, ...]
    """Labels in the catalogue, most frequent first."""


@dataclass(frozen=True)
class Hit:
    """A track found, with its cosine to the query."""

    track: Track
    score: float


def collection_name(model_version: str, data_hash: str) -> str:
    """``tracks_<model version>_<first 8 of the data hash>``, in letters that Milvus takes."""
    name = f"tracks_{model_version}_{data_hash[:8]}"
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in name)


class TrackStore:
    """Collections of tracks at one Milvus address.

    Args:
        uri: ``http://host:port``, or a path that ends in ``.db`` for Lite inside this process.
        token: password or API key of a real Milvus.
        timeout_s: how long a search or look-up may take. Building takes as long as it takes.
    """

    def __init__(self, uri: str, token: str | None = None, *, timeout_s: float = 5.0) -> None:
        self.uri = uri
        self._token = token
        self._timeout_s = timeout_s
        self._client: MilvusClient | None = None
        self._lock = threading.Lock()

    def ping(self) -> None:
        """See whether Milvus answers.

        Raises:
            StoreUnavailableError: in one sentence, within seconds.
        """
        self._call(lambda client: client.list_collections(timeout=self._timeout_s))

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # a connection that is gone cannot be closed
                client.close()

    def list_collections(self) -> list[str]:
        """Names of all collections of tracks."""
        names = self._call(lambda client: client.list_collections(timeout=self._timeout_s))
        return sorted(name for name in names if name.startswith("tracks_"))

    def describe(self, name: str) -> CollectionInfo:
        """What a collection, or the target of an alias, is.

        Raises:
            StoreError: if there is none of that name.
        """
        found = self._call(lambda client: client.describe_collection(name, timeout=self._timeout_s))
        name = found["collection_name"]
        stored = {str(key): str(value) for key, value in found.get("properties", {}).items()}
        own = {key.removeprefix(_PREFIX): value for key, value in stored.items() if key.startswith(_PREFIX)}
        labels = tuple(json.loads(own.pop("labels", "[]")))
        dim = next(int(field["params"]["dim"]) for field in found["fields"] if field["name"] == "vector")
        return CollectionInfo(name, dim, self.count(name), self._is_loaded(name), own, labels)

    def count(self, name: str) -> int:
        """Tracks in a collection; in one that is not loaded, those that were ever flushed."""
        if not self._is_loaded(name):
            # These go on counting rows that were replaced or deleted.
            stats = self._call(lambda client: client.get_collection_stats(name, timeout=self._timeout_s))
            return int(stats["row_count"])
        return self._count_rows(name, _CONSISTENCY)

    def _count_rows(self, name: str, consistency: str) -> int:
        options = {"consistency_level": consistency, "timeout": self._timeout_s}
        rows = self._call(lambda client: client.query(name, filter="", output_fields=["count(*)"], **options))
        return int(rows[0]["count(*)"])

    def _is_loaded(self, name: str) -> bool:
        state = self._call(lambda client: client.get_load_state(name, timeout=self._timeout_s))
        return str(state["state"]) == "Loaded"

    def has(self, name: str) -> bool:
        """Whether a collection of that name exists."""
        return bool(self._call(lambda client: client.has_collection(name, timeout=self._timeout_s)))

    def live_collection(self) -> str | None:
        """The collection that ``tracks_live`` names, or None while there is none."""
        try:
            return str(self._call(lambda c: c.describe_alias(LIVE_ALIAS, timeout=self._timeout_s))["collection_name"])
        except StoreUnavailableError:
            raise
        except StoreError:
            return None

    def drop(self, name: str) -> None:
        """Delete a collection.

        Raises:
            StoreError: if it is the live one.
        """
        if self.live_collection() == name:
            raise StoreError(f"{name} is live; switch {LIVE_ALIAS} to another collection before it is dropped")
        self._call(lambda client: client.drop_collection(name))

    def load(self, name: str) -> None:
        """Bring a collection into memory; after a restart of Milvus nothing is."""
        self._call(lambda client: client.load_collection(name, timeout=600))

    def build(
        self,
        name: str,
        rows: Iterable[Sequence[Mapping[str, Any]]],
        *,
        dim: int,
        properties: Mapping[str, str],
        hnsw_from: int,
        recall_floor: float,
    ) -> BuildResult:
        """Build a collection from nothing, load it, and measure recall@10 against exact search.

        A collection of the same name is replaced, unless it is live.

        Args:
            name: of the collection.
            rows: batches of rows with track_id, vector (a unit vector (D,)), title, artist, dataset,
                labels, media_path and content_hash; see ``tracks.clean_row``.
            dim: D.
            properties: kept with the collection; ``describe`` returns them.
            hnsw_from: collections at least this large get an HNSW index, smaller ones FLAT.
            recall_floor: least recall@10.

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
            recall = self._recall(name, vectors_ND, ids)
            if not recall >= recall_floor:
                raise StoreError(f"recall@10 of {name} is {recall:.3f}, under the floor of {recall_floor:g}; not kept")
            # Last, so that a collection with properties is one that was proved.
            kept = {f"{_PREFIX}{key}": str(value) for key, value in properties.items()}
            kept[f"{_PREFIX}labels"] = json.dumps([label for label, _ in labels.most_common(MAX_CATALOGUE_LABELS)])
            self._call(lambda client: client.alter_collection_properties(name, properties=kept))
        except BaseException:
            with contextlib.suppress(StoreError):
                self._call(lambda client: client.drop_collection(name, timeout=self._timeout_s))
            raise
        return BuildResult(len(ids), recall, index_type, time.perf_counter() - started)

    def upsert(self, collection: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Add rows, replacing those of the same track_id; returns how many.

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
            self._settle(collection)
        return len(by_id)

    def delete(self, collection: str, track_ids: Sequence[str]) -> int:
        """Remove tracks; returns how many were there. Ids that are not are no error."""
        found = list(self.get(track_ids, collection=collection))
        if found:
            self._call(lambda client: client.delete(collection, filter=one_of(found)))
            self._settle(collection)
        return len(found)

    def _settle(self, collection: str) -> None:
        """Wait until reads see the last write: a strong read does, and all that come after it are as new."""
        self._loaded(collection, lambda _: self._count_rows(collection, "Strong"))

    def flush(self, collection: str) -> None:
        """Seal what was written, so that searches of it are fast."""
        self._call(lambda client: client.flush(collection))

    def scroll(self, collection: str, *, batch: int = 5_000) -> Iterator[list[tuple[str, str]]]:
        """All tracks as (track_id, content_hash), in batches; the hash is empty where none was given.

        Tracks that are written or deleted meanwhile may or may not be among them.
        """
        found = self._call(lambda client: client.describe_collection(collection, timeout=self._timeout_s))
        # Collections of earlier versions have no hashes.
        fields = [field["name"] for field in found["fields"] if field["name"] in ("track_id", "content_hash")]

        def start(client: MilvusClient) -> Any:
            return client.query_iterator(
                collection, batch_size=batch, filter="", output_fields=fields, consistency_level=_CONSISTENCY
            )

        iterator = self._loaded(collection, start)
        try:
            while rows := self._call(lambda _: iterator.next()):
                yield [(row["track_id"], row.get("content_hash", "")) for row in rows]
        finally:
            iterator.close()

    def switch_alias(self, name: str) -> None:
        """Point ``tracks_live`` at a collection, loaded first.

        Raises:
            StoreError: if there is no such collection; the alias stays where it was.
        """
        self.load(name)
        if self.live_collection() is None:
            self._call(lambda client: client.create_alias(name, LIVE_ALIAS))
        else:
            self._call(lambda client: client.alter_alias(name, LIVE_ALIAS))

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

        def ask(client: MilvusClient) -> Any:
            return client.search(
                collection,
                data=np.ascontiguousarray(vectors_QD, dtype=np.float32).tolist(),
                limit=k + len(exclude),
                filter=narrow.expression() if narrow else "",
                # Lite gives the id as track_id beside the entity, a real Milvus as id: in the entity both do.
                output_fields=["track_id", *METADATA],
                search_params={"params": {"ef": max(_HNSW_EF, k + len(exclude))}},
                consistency_level=_CONSISTENCY,
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
        if not track_ids:
            return {}

        def ask(client: MilvusClient) -> Any:
            fields = ["track_id", "vector", *METADATA]
            return client.query(
                collection,
                filter=one_of(track_ids),
                output_fields=fields,
                consistency_level=_CONSISTENCY,
                timeout=self._timeout_s,
            )

        rows = self._loaded(collection, ask)
        return {row["track_id"]: (track_of(row), np.asarray(row["vector"], np.float32)) for row in rows}

    def _loaded(self, collection: str, ask: Callable[[MilvusClient], T]) -> T:
        try:
            return self._call(ask)
        except StoreUnavailableError:
            raise
        except StoreError:
            name = self.describe(collection).name
            if self._is_loaded(name):
                raise
            self.load(name)
            return self._call(ask)

    def _insert(
        self, name: str, rows: Iterable[Sequence[Mapping[str, Any]]], *, dim: int
    ) -> tuple[np.ndarray, list[str], Counter[str]]:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("track_id", DataType.VARCHAR, max_length=MAX_TEXT_BYTES["track_id"], is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        for field in ("title", "artist", "dataset", "media_path"):
            schema.add_field(field, DataType.VARCHAR, max_length=MAX_TEXT_BYTES[field])
        labels = {"element_type": DataType.VARCHAR, "max_capacity": MAX_LABELS, "max_length": MAX_LABEL_BYTES}
        schema.add_field("labels", DataType.ARRAY, **labels)
        schema.add_field("content_hash", DataType.VARCHAR, max_length=MAX_TEXT_BYTES["content_hash"])
        self._call(lambda client: client.create_collection(name, schema=schema, consistency_level="Strong"))
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

    def _index(self, name: str, index_type: str) -> None:
        params = MilvusClient.prepare_index_params()
        options = _HNSW if index_type == "HNSW" else {}
        params.add_index("vector", index_type=index_type, metric_type="COSINE", params=options)
        self._call(lambda client: client.flush(name))
        self._call(lambda client: client.create_index(name, params))
        self.load(name)

    def _recall(self, name: str, vectors_ND: np.ndarray, ids: list[str]) -> float:
        queries_QD = vectors_ND[pick_queries(len(ids))]
        hits = self.search(queries_QD, min(PROBE_K, len(ids)), collection=name)
        return share_found([[hit.track.track_id for hit in of] for of in hits], queries_QD, vectors_ND, ids)

    def _call(self, ask: Callable[[MilvusClient], T]) -> T:
        """Ask Milvus; a connection that broke is thrown away, so that the next call starts afresh."""
        with _sentences(self.uri) as failed:
            with self._lock:
                if self._client is None:
                    self._client = MilvusClient(
                        uri=self.uri, token=self._token or "", timeout=self._timeout_s, grpc_options=_CHANNEL
                    )
                client = self._client
            failed.append(self.close)
            return ask(client)


@contextlib.contextmanager
def _sentences(uri: str) -> Iterator[list[Callable[[], None]]]:
    """Turn what pymilvus raises into StoreError; runs the given clean-ups when the connection is gone."""
    clean_ups: list[Callable[[], None]] = []
    try:
        yield clean_ups
    except (MilvusException, grpc.RpcError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        message = str(getattr(error, "message", None) or error)
        if not isinstance(error, MilvusException) or any(words in message for words in _AWAY):
            for clean_up in clean_ups:
                clean_up()
            raise StoreUnavailableError(f"Milvus does not answer at {uri}; start it, or correct its address") from error
        if any(words in message for words in _FULL):
            raise StoreError(f"the disk of Milvus at {uri} is full; free some of it and run this again") from error
        raise StoreError(f"Milvus at {uri} refuses: {message.splitlines()[0] if message else error}") from error

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
from serving.filters import TrackFilter
from serving.tracks import MAX_LABEL_BYTES, MAX_LABELS, MAX_TEXT_BYTES, METADATA, Track, clean_row, track_of

T = TypeVar("T")

LIVE_ALIAS = "tracks_live"
MAX_CATALOGUE_LABELS = 1_000
"""Labels of the whole catalogue that the collection remembers, the most frequent ones."""
PROBE_QUERIES = 64

_PREFIX = "mulan."
_AWAY = ("illegal connection params or server unavailable", "No channel in handler", "closed channel", "retry timeout")
_CHANNEL = {
    # A new client dials at once; from the shared pool it would wait out the back-off of the one that broke.
    "grpc.use_local_subchannel_pool": 1,
    # pymilvus pings idle connections every 10 s, which Lite's server punishes by hanging up.
    "grpc.keepalive_time_ms": 300_000,
    "grpc.keepalive_permit_without_calls": 0,
}
_HNSW = {"M": 16, "efConstruction": 200}
_HNSW_EF = 128

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
        state = self._call(lambda client: client.get_load_state(name, timeout=self._timeout_s))
        return CollectionInfo(name, dim, self.count(name), str(state["state"]) == "Loaded", own, labels)

    def count(self, name: str) -> int:
        """Tracks in a flushed collection."""
        stats = self._call(lambda client: client.get_collection_stats(name, timeout=self._timeout_s))
        return int(stats["row_count"])

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
                labels and media_path.
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
            kept = {f"{_PREFIX}{key}": str(value) for key, value in properties.items()}
            kept[f"{_PREFIX}labels"] = json.dumps([label for label, _ in labels.most_common(MAX_CATALOGUE_LABELS)])
            self._call(lambda client: client.alter_collection_properties(name, properties=kept))
            index_type = "HNSW" if len(ids) >= hnsw_from else "FLAT"
            self._index(name, index_type)
            count = self.count(name)
            if count != len(ids):
                raise StoreError(f"{name} holds {count} tracks of {len(ids)}: a track_id occurs twice in the catalogue")
            recall = self._recall(name, vectors_ND, ids)
            if not recall >= recall_floor:
                raise StoreError(f"recall@10 of {name} is {recall:.3f}, under the floor of {recall_floor:g}; not kept")
        except BaseException:
            with contextlib.suppress(StoreError):
                self._call(lambda client: client.drop_collection(name, timeout=self._timeout_s))
            raise
        return BuildResult(len(ids), recall, index_type, time.perf_counter() - started)

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
                output_fields=list(METADATA),
                search_params={"params": {"ef": max(_HNSW_EF, k + len(exclude))}},
                consistency_level="Bounded",
                timeout=self._timeout_s,
            )

        left_out = set(exclude)
        return [
            [
                Hit(track_of(hit["track_id"], hit["entity"]), float(hit["distance"]))
                for hit in hits
                if hit["track_id"] not in left_out
            ][:k]
            for hits in self._loaded(collection, ask)
        ]

    def get(self, track_ids: Sequence[str], *, collection: str) -> dict[str, tuple[Track, np.ndarray]]:
        """Tracks and their vectors by id; ids that are not there are left out."""

        def ask(client: MilvusClient) -> Any:
            fields = ["track_id", "vector", *METADATA]
            return client.get(collection, ids=list(track_ids), output_fields=fields, timeout=self._timeout_s)

        rows = self._loaded(collection, ask)
        return {
            row["track_id"]: (track_of(row["track_id"], row), np.asarray(row["vector"], np.float32)) for row in rows
        }

    def _loaded(self, collection: str, ask: Callable[[MilvusClient], T]) -> T:
        try:
            return self._call(ask)
        except StoreUnavailableError:
            raise
        except StoreError:
            if self.describe(collection).is_loaded:
                raise
            self.load(self.describe(collection).name)
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
        """Share of the exact ten best scores that the index finds; tracks of equal score are as good."""
        picked = np.random.default_rng(0).permutation(len(ids))[:PROBE_QUERIES]
        queries_QD, k = vectors_ND[picked], min(10, len(ids))
        exact_QN = queries_QD.astype(np.float64) @ vectors_ND.T
        worst_Q = np.partition(exact_QN, -k, axis=1)[:, -k]
        place = {track_id: i for i, track_id in enumerate(ids)}
        found = 0
        for query, hits in enumerate(self.search(queries_QD, k, collection=name)):
            scores = exact_QN[query, [place[hit.track.track_id] for hit in hits]]
            found += int((scores >= worst_Q[query] - 1e-5).sum())
        return found / (len(picked) * k)

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
        raise StoreError(f"Milvus at {uri} refuses: {message.splitlines()[0] if message else error}") from error

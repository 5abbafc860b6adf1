"""The collections of a Milvus and the alias of the live one: made, loaded, described, switched, dropped.

An alias does not load its target, and before the flush a search is many times slower. So the order of a switch is:
build, flush, index, load, probe, then alter the alias.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pymilvus import DataType, MilvusClient

from serving.connection import Connection
from serving.errors import StoreError, StoreUnavailableError
from serving.recall import EF_CANDIDATES
from serving.tracks import MAX_LABEL_BYTES, MAX_LABELS, MAX_TEXT_BYTES

T = TypeVar("T")

LIVE_ALIAS = "tracks_live"
"""Of the demo; other catalogues have aliases of their own."""
WINDOWS = "_windows"
"""After the name of a collection of tracks: that of their windows."""
CONSISTENCY = "Bounded"
"""Of reads: what is there now. Writes wait until that is what they wrote, so that no search has to."""

_PREFIX = "mulan."
_HELD = "held"
_HNSW = {"M": 16, "efConstruction": 200}


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
class Graph:
    """A graph (HNSW) in place of an exact index (FLAT)."""

    ef: int
    """How wide it is searched (``ef``); see ``recall.EF_CANDIDATES``."""
    holds_filters: bool
    """Its build measured the floor of recall under filters too; otherwise filtered searches read the tracks instead."""


def collection_name(model_version: str, data_hash: str, catalogue: str = "") -> str:
    """``tracks_[<catalogue>_]<model version>_<first 8 of the data hash>``, in letters that Milvus takes."""
    name = "_".join(["tracks", *([catalogue] if catalogue else []), model_version, data_hash[:8]])
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in name)


class Collections:
    """Collections of tracks at one Milvus address.

    Args:
        uri: ``http://host:port``, or a path that ends in ``.db`` for Lite inside this process.
        token: password or API key of a real Milvus.
        timeout_s: how long a search or look-up may take. Building takes as long as it takes.
        live: the alias of the live collection; each catalogue has its own.

    ``call`` asks Milvus something, ``loaded`` something about a collection that a restart may have left unloaded; both
    raise StoreError in one sentence.
    """

    def __init__(self, uri: str, token: str | None = None, *, timeout_s: float = 5.0, live: str = LIVE_ALIAS) -> None:
        self._connection = Connection(uri, token, timeout_s=timeout_s)
        self.call = self._connection.call
        self.timeout_s = timeout_s
        self._live = live

    def ping(self) -> None:
        """See whether Milvus answers.

        Raises:
            StoreUnavailableError: in one sentence, within seconds.
        """
        self.call(lambda client: client.list_collections(timeout=self.timeout_s))

    def server_version(self) -> str:
        """The version that Milvus says it is."""
        return str(self.call(lambda client: client.get_server_version(timeout=self.timeout_s)))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def list_collections(self) -> list[str]:
        """Names of all collections of tracks."""
        names = self.call(lambda client: client.list_collections(timeout=self.timeout_s))
        return sorted(name for name in names if name.startswith("tracks_") and not name.endswith(WINDOWS))

    def describe(self, name: str) -> CollectionInfo:
        """What a collection, or the target of an alias, is.

        Raises:
            StoreError: if there is none of that name.
        """
        description = self.call(lambda client: client.describe_collection(name, timeout=self.timeout_s))
        name = description["collection_name"]
        stored = {str(key): str(value) for key, value in description.get("properties", {}).items()}
        own = {key.removeprefix(_PREFIX): value for key, value in stored.items() if key.startswith(_PREFIX)}
        labels = tuple(json.loads(own.pop("labels", "[]")))
        for graph_key in ("ef", "filters"):
            own.pop(graph_key, None)
        dim = next(int(field["params"]["dim"]) for field in description["fields"] if field["name"] == "vector")
        return CollectionInfo(name, dim, self.count(name), self._is_loaded(name), own, labels)

    def describe_graph(self, name: str) -> tuple[str, Graph | None]:
        """The name of a collection, or of the target of an alias, and its graph; None where its index is exact.

        A graph of an earlier version was never measured under filters. One that does not say how wide it must
        be searched is searched as wide as any.
        """
        description = self.call(lambda client: client.describe_collection(name, timeout=self.timeout_s))
        target, properties = str(description["collection_name"]), description.get("properties", {})
        index = self.call(lambda client: client.describe_index(target, "vector", timeout=self.timeout_s))
        if not index or index["index_type"] == "FLAT":
            return target, None
        ef = int(properties.get(f"{_PREFIX}ef", EF_CANDIDATES[-1]))
        return target, Graph(ef, properties.get(f"{_PREFIX}filters") == _HELD)

    def is_lite(self) -> bool:
        """Whether this is Milvus Lite; the engine of PyPI calls itself v2.3.5-lite and is none."""
        return self.server_version().startswith("milvus_lite")

    def count(self, name: str) -> int:
        """Tracks in a collection; in one that is not loaded, those that were ever flushed."""
        if not self._is_loaded(name):
            # These go on counting rows that were replaced or deleted.
            stats = self.call(lambda client: client.get_collection_stats(name, timeout=self.timeout_s))
            return int(stats["row_count"])
        return self.count_rows(name)

    def count_rows(self, name: str, consistency: str = CONSISTENCY, narrow: str = "") -> int:
        """Rows that pass a filter in Milvus's language, in a collection that is loaded."""
        options = {"consistency_level": consistency, "timeout": self.timeout_s}
        rows = self.call(lambda client: client.query(name, filter=narrow, output_fields=["count(*)"], **options))
        return int(rows[0]["count(*)"])

    def _is_loaded(self, name: str) -> bool:
        state = self.call(lambda client: client.get_load_state(name, timeout=self.timeout_s))
        return str(state["state"]) == "Loaded"

    def has(self, name: str) -> bool:
        """Whether a collection of that name exists."""
        return bool(self.call(lambda client: client.has_collection(name, timeout=self.timeout_s)))

    def live_collection(self) -> str | None:
        """The collection that the alias names, or None while there is none."""
        try:
            return str(self.call(lambda c: c.describe_alias(self._live, timeout=self.timeout_s))["collection_name"])
        except StoreUnavailableError:
            raise
        except StoreError:
            return None

    def drop(self, name: str) -> None:
        """Delete a collection, and the windows of its tracks.

        Raises:
            StoreError: if it is the live one.
        """
        if self.live_collection() == name:
            raise StoreError(f"{name} is live; switch {self._live} to another collection before it is dropped")
        for collection in (name + WINDOWS, name):
            if self.has(collection):
                self.call(lambda client, collection=collection: client.drop_collection(collection))  # type: ignore[misc]

    def load(self, name: str) -> None:
        """Bring a collection and the windows of its tracks into memory; after a restart of Milvus nothing is."""
        self.call(lambda client: client.load_collection(name, timeout=600))
        if not name.endswith(WINDOWS) and self.has(name + WINDOWS):
            self.load(name + WINDOWS)

    def switch_alias(self, name: str) -> None:
        """Point the alias at a collection, loaded first.

        Raises:
            StoreError: if there is no such collection; the alias stays where it was.
        """
        self.load(name)
        if self.live_collection() is None:
            self.call(lambda client: client.create_alias(name, self._live))
        else:
            self.call(lambda client: client.alter_alias(name, self._live))

    def drop_alias(self) -> None:
        """Have no live collection any more; the collection itself stays."""
        if self.live_collection() is not None:
            self.call(lambda client: client.drop_alias(self._live))

    def flush(self, collection: str) -> None:
        """Seal what was written, so that searches of it are fast."""
        self.call(lambda client: client.flush(collection))

    def create(self, name: str, *, dim: int) -> None:
        """Make a collection of tracks, empty and without an index."""
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("track_id", DataType.VARCHAR, max_length=MAX_TEXT_BYTES["track_id"], is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        for field in ("title", "artist", "dataset", "media_path"):
            schema.add_field(field, DataType.VARCHAR, max_length=MAX_TEXT_BYTES[field])
        labels = {"element_type": DataType.VARCHAR, "max_capacity": MAX_LABELS, "max_length": MAX_LABEL_BYTES}
        schema.add_field("labels", DataType.ARRAY, **labels)
        schema.add_field("content_hash", DataType.VARCHAR, max_length=MAX_TEXT_BYTES["content_hash"])
        self.call(lambda client: client.create_collection(name, schema=schema, consistency_level="Strong"))

    def create_windows(self, name: str, *, dim: int) -> None:
        """Make a collection of windows, empty and without an index."""
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        id_bytes = MAX_TEXT_BYTES["track_id"]
        schema.add_field("window_id", DataType.VARCHAR, max_length=id_bytes + 16, is_primary=True)
        schema.add_field("track_id", DataType.VARCHAR, max_length=id_bytes)
        schema.add_field("start_s", DataType.FLOAT)
        schema.add_field("end_s", DataType.FLOAT)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        self.call(lambda client: client.create_collection(name, schema=schema, consistency_level="Strong"))

    def settle(self, collection: str) -> None:
        """Wait until reads see the last write: a strong read does, and all that come after it are as new."""
        self.loaded(collection, lambda _: self.count_rows(collection, "Strong"))

    def index(self, name: str, index_type: str) -> None:
        """Seal a collection, index its vectors (FLAT or HNSW) and bring it into memory."""
        params = MilvusClient.prepare_index_params()
        options = _HNSW if index_type == "HNSW" else {}
        params.add_index("vector", index_type=index_type, metric_type="COSINE", params=options)
        self.call(lambda client: client.flush(name))
        self.call(lambda client: client.create_index(name, params))
        self.load(name)

    def describe_as(
        self, name: str, properties: Mapping[str, str], labels: Sequence[str] = (), *, graph: Graph | None = None
    ) -> None:
        """Keep with a collection what ``describe`` and ``describe_graph`` give back."""
        kept = {f"{_PREFIX}{key}": str(value) for key, value in properties.items()}
        kept |= {f"{_PREFIX}labels": json.dumps(list(labels))}
        if graph is not None:
            kept |= {f"{_PREFIX}ef": str(graph.ef), f"{_PREFIX}filters": _HELD if graph.holds_filters else ""}
        self.call(lambda client: client.alter_collection_properties(name, properties=kept))

    def loaded(self, collection: str, ask: Callable[[MilvusClient], T]) -> T:
        """Ask about a collection; where it was not loaded, load it and ask again."""
        try:
            return self.call(ask)
        except StoreUnavailableError:
            raise
        except StoreError:
            name = self.describe(collection).name
            if not self._is_loaded(name):  # where it is, another caller may have been faster
                self.load(name)
            return self.call(ask)

"""The connection to Milvus: Lite (in process or as a server) and a real one alike; what goes wrong is one sentence."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc
from pymilvus import MilvusClient, MilvusException

from serving.errors import StoreError, StoreUnavailableError
from serving.loopback import stays_here

T = TypeVar("T")

_AWAY = ("illegal connection params or server unavailable", "No channel in handler", "closed channel", "retry timeout")
_FULL = ("No space left on device", "Disk quota exceeded", "File too large")
_DAMAGED = ("Parquet", "not valid JSON", "fully written", "Corrupt")
_CHANNEL = {
    # A new client dials at once; from the shared pool it would wait out the back-off of the one that broke.
    "grpc.use_local_subchannel_pool": 1,
    # pymilvus pings idle connections every 10 s, which Lite's server punishes by hanging up.
    "grpc.keepalive_time_ms": 300_000,
    "grpc.keepalive_permit_without_calls": 0,
}

# pymilvus prints whole tracebacks of errors that it also raises
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


class Connection:
    """A client of one Milvus, made when it is first needed and again after it broke.

    Args:
        uri: ``http://host:port``, or a path that ends in ``.db`` for Lite inside this process.
        token: password or API key of a real Milvus.
        timeout_s: how long connecting may take.
    """

    def __init__(self, uri: str, token: str | None, *, timeout_s: float) -> None:
        self.uri = uri
        self._token = token
        self._timeout_s = timeout_s
        self._client: MilvusClient | None = None
        self._lock = threading.Lock()

    def call(self, ask: Callable[[MilvusClient], T]) -> T:
        """Ask Milvus; a connection that broke is thrown away, so that the next call starts afresh.

        Raises:
            StoreUnavailableError: if Milvus does not answer.
            StoreError: if it refuses.
        """
        with _sentences(self.uri) as failed:
            with self._lock:
                if self._client is None:
                    options = _CHANNEL | ({"grpc.enable_http_proxy": 0} if stays_here(self.uri) else {})
                    self._client = MilvusClient(
                        uri=self.uri, token=self._token or "", timeout=self._timeout_s, grpc_options=options
                    )
                client = self._client
            failed.append(self.close)
            return ask(client)

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # a connection that is gone cannot be closed
                client.close()


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
            sentence = f"Milvus does not answer at {uri}; start it, or correct its address or token"
            raise StoreUnavailableError(sentence) from error
        if any(words in message for words in _FULL):
            raise StoreError(f"the disk of Milvus at {uri} is full; free some of it and run this again") from error
        if any(words in message for words in _DAMAGED):
            raise StoreError(
                f"a file of Milvus at {uri} is damaged ({message.splitlines()[0]}); move its collection's folder away "
                "and run `mulan index`, which builds it anew"
            ) from error
        raise StoreError(f"Milvus at {uri} refuses: {message.splitlines()[0] if message else error}") from error

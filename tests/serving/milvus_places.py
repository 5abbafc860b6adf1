"""Where the store's contract is tested: Lite in this process, Lite's server, the real engine."""

from contextlib import contextmanager, nullcontext

import milvus_engine

from serving.milvus import MilvusServer


@contextmanager
def _lite_server(data):
    with MilvusServer(data) as server:
        yield server.uri


PLACES = {
    "in process": lambda folder: nullcontext(str(folder / "lite.db")),
    "server": lambda folder: _lite_server(folder / "data"),
    "engine": lambda folder: milvus_engine.running(folder / "data"),
}
"""Each gives a context that yields the address of a Milvus over a folder."""

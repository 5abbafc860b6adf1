"""Vector search over a large catalogue: Milvus through ``TrackStore``, beside exact search in this process.

    python benchmarks/vector_search.py [--tracks 100000] [--index HNSW|FLAT] [--floor 0.95] [--uri http://...]

Without ``--uri`` a Milvus Lite server is started, as ``mulan serve`` does. The vectors lie in clusters, as those of
tracks do. Builds a collection as ``mulan index`` does and prints how long that took and recall@10: of tracks as
queries, of others near a cluster, and of directions anywhere, which no track lies near. With ``--floor`` the graph is
searched as wide as it must be for that recall of the last ones. One query at a time and batches of 64 take turns with
exact search (the matrix product and the ten best, one thread); so do, as ratios, the tenth page and the first, filters
and none, and a question to Milvus for ten tracks as they come, which is what a search was before pages had one order.
All ratios are of medians. On Lite the index is FLAT whatever is asked for; ``--graph-on-lite`` builds one all the same.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the exact search

import numpy as np

from serving.collection import CONSISTENCY
from serving.filters import TrackFilter
from serving.milvus import MilvusServer
from serving.recall import pick_queries, share_found
from serving.store import TrackStore
from serving.tracks import METADATA

NAME, DIM, CLUSTERS, BATCH, K = "tracks_bench", 128, 500, 64, 10
INSERTED = 500
NARROWED = {f"{100 / every:g} %": TrackFilter(labels=[f"every:{every}"]) for every in (1_000, 100, 10, 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=100_000)
    parser.add_argument("--index", choices=["HNSW", "FLAT"], default="HNSW")
    parser.add_argument("--floor", type=float, default=0.0, help="least recall@10 of directions anywhere")
    parser.add_argument("--graph-on-lite", action="store_true")
    parser.add_argument("--uri", help="a Milvus that runs; by default a Lite server")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    centres_CD = unit(random.standard_normal((CLUSTERS, DIM)))
    vectors_ND = near(centres_CD, arguments.tracks, random)
    ids = [f"t{i}" for i in range(arguments.tracks)]
    kinds = {"near a cluster": near(centres_CD, 256, random), "anywhere": unit(random.standard_normal((256, DIM)))}
    with milvus(arguments.uri) as uri:
        store = TrackStore(uri, os.environ.get("MULAN_MILVUS_TOKEN"), timeout_s=60)
        if arguments.graph_on_lite:
            store.collections.is_lite = lambda: False  # type: ignore[method-assign]
        hnsw_from = 1 if arguments.index == "HNSW" else arguments.tracks + 1
        build = {"dim": DIM, "properties": {}, "hnsw_from": hnsw_from, "recall_floor": arguments.floor}
        probes_QD = kinds["anywhere"] if arguments.floor else None
        built = store.build(NAME, rows(ids, vectors_ND), probes_QD=probes_QD, **build)
        ef = f" searched {built.ef} wide" if built.ef else ""
        print(f"{built.count:,} tracks, {built.index_type}{ef}: built in {built.seconds:.0f} s")
        kinds = {"tracks": vectors_ND[pick_queries(len(ids))]} | kinds
        filtered = ", ".join(f"{percent} % {value:.3f}" for percent, value in built.filtered_recall.items())
        print(f"recall@{K} under filters: {filtered}{'; filtered searches are read' if built.reads_filtered else ''}")
        print(f"recall@{K}:", end="")
        for kind, queries_QD in kinds.items():
            hits = store.tracks.search(queries_QD, K, collection=NAME)
            found = [[hit.track.track_id for hit in of] for of in hits]
            print(f" {kind} {share_found(found, queries_QD, vectors_ND, ids):.3f}", end=";", flush=True)
        print()
        for size, rounds in ((1, arguments.rounds), (BATCH, max(10, arguments.rounds // 10))):
            queries = [near(centres_CD, size, random) for _ in range(rounds)]
            ask = [
                lambda queries_QD: store.tracks.search(queries_QD, K, collection=NAME),
                lambda queries_QD: exact(queries_QD, vectors_ND),
            ]
            ours, theirs = in_turn(ask, queries)
            for what, times_ms in (("Milvus", ours), ("exact", theirs)):
                p50, p99 = np.percentile(times_ms, [50, 99])
                print(f"{size:3} at once, {what:6}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {size / p50 * 1000:,.0f}/s")
            print(f"{size:3} at once, Milvus over exact search: {np.median(ours) / np.median(theirs):.2f}", flush=True)
            plain = {"Milvus as it comes": lambda queries_QD: as_it_comes(store, queries_QD)}
            plain |= {"page 10": lambda queries_QD: store.tracks.pages(queries_QD, K, collection=NAME, offset=9 * K)}
            for share, narrow in NARROWED.items():
                plain[f"a filter of {share}"] = lambda queries_QD, narrow=narrow: store.tracks.pages(  # type: ignore[misc]
                    queries_QD, K, collection=NAME, narrow=narrow
                )
            first, *others = in_turn([ask[0], *plain.values()], queries[: max(5, rounds // 10)])
            for what, times_ms in zip(plain, others, strict=True):
                print(f"{size:3} at once, {what} over page 1: {np.median(times_ms) / np.median(first):.2f}", flush=True)
        store.collections.drop(NAME)
        store.close()


def as_it_comes(store: TrackStore, queries_QD: np.ndarray) -> object:
    """The ten nearest as Milvus gives them, with what is shown of them; a graph is asked 128 wide."""
    fields = ["track_id", *METADATA]
    return store.collections.call(
        lambda client: client.search(
            NAME,
            queries_QD.tolist(),
            limit=K,
            output_fields=fields,
            search_params={"params": {"ef": 128}},
            consistency_level=CONSISTENCY,
        )
    )


@contextmanager
def milvus(uri: str | None) -> Iterator[str]:
    """The address given, or that of a Lite server which ends with this."""
    if uri:
        yield uri
        return
    with tempfile.TemporaryDirectory() as folder, MilvusServer(Path(folder) / "milvus") as server:
        yield server.uri


def in_turn(asks: list[Callable[[np.ndarray], object]], queries: list[np.ndarray]) -> list[list[float]]:
    """Milliseconds of each for each of the queries, after a warm-up."""
    times: list[list[float]] = [[] for _ in asks]
    for queries_QD in [*queries[:5], *queries]:
        for ask, of in zip(asks, times, strict=True):
            started = time.perf_counter()
            ask(queries_QD)
            of.append((time.perf_counter() - started) * 1000)
    return [of[5:] for of in times]


def exact(queries_QD: np.ndarray, vectors_ND: np.ndarray) -> np.ndarray:
    """The ten best of each query, best first."""
    scores_QN = queries_QD @ vectors_ND.T
    best_QK = np.argpartition(scores_QN, -K, axis=1)[:, -K:]
    order_QK = np.argsort(-np.take_along_axis(scores_QN, best_QK, 1), axis=1)
    return np.take_along_axis(best_QK, order_QK, 1)


def near(centres_CD: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Unit vectors about cosine 0.7 from one of the centres."""
    of_ND = centres_CD[random.integers(len(centres_CD), size=count)]
    return unit(of_ND + random.standard_normal((count, DIM)) / DIM**0.5)


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    """Their directions, float32."""
    return (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float32)


def labels(i: int) -> list[str]:
    """Of a track: a genre, and those that the filters ask for."""
    return [f"genre:{i % 40}", *(f"every:{every}" for every in (1_000, 100, 10, 2) if i % every == 0)]


def rows(ids: list[str], vectors_ND: np.ndarray) -> Iterator[list[dict[str, object]]]:
    """What a collection is built from."""
    for first in range(0, len(ids), INSERTED):
        yield [
            {"track_id": ids[i], "vector": vectors_ND[i], "title": f"Title {i}", "labels": labels(i)}
            for i in range(first, min(first + INSERTED, len(ids)))
        ]


if __name__ == "__main__":
    main()

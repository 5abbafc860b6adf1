"""Tracks by query: pages of a search, in one order at every depth, on an index that is exact and on a graph.

An exact index (FLAT) is asked for as many as the page needs and a few more. Where the score at the end of the page goes
on to the last that came, tracks beyond may be equal: it is asked for more, and in the end all tracks are read.

A graph (HNSW) finds other tracks when it is asked for another number, so all pages down to ``GRAPH_DEPTH`` are cut from
one and the same question. All tracks that pass the filter are read instead where a graph does not hold its recall under
filters (``Graph``), and where it gave fewer than there are.

Nothing is remembered between searches but the kind of the index, so what another replica adds or deletes is seen.

Shape letters: Q queries, D embedding size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.collection import CONSISTENCY, Collections, Graph
from serving.filters import TrackFilter, after, one_of
from serving.ranking import MAX_DEPTH, NOISE, Best, Candidate, Window, exact_scores
from serving.tracks import METADATA, Track, track_of

BATCH = 500
"""Tracks that Milvus is asked for by id at once."""
GRAPH_DEPTH = MAX_DEPTH + 24
"""Tracks that every question to a graph asks for: all that pages reach, one more, those left out, and a few."""
MAX_LIMIT = 16_384
"""Tracks that Milvus gives in one answer at most."""
_FEW = 4
_WIDER = 8
_WITH_ROWS = 256
"""Up to so many tracks are asked for with all that is shown of them; of more the page's alone are, afterwards."""


@dataclass(frozen=True)
class Hit:
    """A track found, with its cosine to the query, to ``SCORE_DIGITS``."""

    track: Track
    score: float


@dataclass(frozen=True)
class Ranks:
    """Some ranks of a search, of the tracks of a collection that pass a filter."""

    collection: str
    narrow: str
    """In Milvus's language; empty for no filter."""
    offset: int
    k: int


@dataclass(frozen=True)
class Page:
    """Some ranks of a search."""

    hits: list[Hit]
    best: float | None
    """Score of the first rank of all, which may be on an earlier page; None where nothing is found."""
    has_more: bool
    """There are tracks after these."""


class TrackSearch:
    """Tracks by query and by id, in any collection."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections
        self.graphs: dict[str, Graph | None] = {}
        """Of collections that were asked; a build tries one after the other here."""

    def search(
        self,
        vectors_QD: np.ndarray,
        k: int,
        *,
        collection: str,
        narrow: TrackFilter | None = None,
        exclude: Sequence[str] = (),
    ) -> list[list[Hit]]:
        """The k nearest tracks of each query; see ``pages``. ``exclude`` holds for all of them."""
        without = [frozenset(exclude)] * len(vectors_QD)
        return [page.hits for page in self.pages(vectors_QD, k, collection=collection, narrow=narrow, exclude=without)]

    def pages(
        self,
        vectors_QD: np.ndarray,
        k: int,
        *,
        collection: str,
        offset: int = 0,
        narrow: TrackFilter | None = None,
        exclude: Sequence[Collection[str]] | None = None,
    ) -> list[Page]:
        """Of each query the k nearest tracks after the first ``offset``: best score first, equal scores by id.

        Args:
            vectors_QD: unit vectors.
            k: how many; fewer come back where the filter or the collection leaves fewer.
            collection: a collection or an alias.
            offset: how many of the best to skip.
            narrow: only tracks that pass it.
            exclude: of each query, track ids that have no rank.

        Raises:
            StoreUnavailableError: if Milvus does not answer. A collection that a restart of Milvus left
                unloaded is loaded, and the search tried again.
        """
        without = [frozenset(ids) for ids in exclude] if exclude else None
        return self.ranked(vectors_QD, Ranks(collection, narrow.expression() if narrow else "", offset, k), without)

    def get(self, track_ids: Sequence[str], *, collection: str) -> dict[str, tuple[Track, np.ndarray]]:
        """Tracks and their vectors by id; ids that are not there are left out."""
        fields = ["track_id", "vector", *METADATA]

        def ask_for(batch: Sequence[str]) -> list[dict[str, Any]]:
            def ask(client: Any) -> Any:
                return client.query(
                    collection,
                    filter=one_of(batch),
                    output_fields=fields,
                    consistency_level=CONSISTENCY,
                    timeout=self._collections.timeout_s,
                )

            return list(self._collections.loaded(collection, ask))

        rows = [row for batch in in_turn(track_ids) for row in ask_for(batch)]
        return {row["track_id"]: _row(row) for row in rows}

    def ranked(
        self, vectors_QD: np.ndarray, ranks: Ranks, without: Sequence[frozenset[str]] | None = None
    ) -> list[Page]:
        """As ``pages``, with the filter in Milvus's language."""
        without = without or [frozenset()] * len(vectors_QD)
        graph, last = self._graph(ranks.collection), ranks.offset + ranks.k + 1  # one more tells whether there is more
        # Whether a graph's answer serves must not depend on the page, or pages would be cut from different answers.
        settled = last if graph is None else max(last, MAX_DEPTH + 1)
        windows: dict[int, Window] = {}
        first: dict[int, str] = {}
        rows: dict[str, tuple[Track, np.ndarray]] = {}
        open_ = list(range(len(vectors_QD)))
        for limit in self._limits(graph, last + max(map(len, without), default=0), ranks.narrow):
            answers, came = self._ask(vectors_QD[open_], limit, ranks, graph)
            rows |= came
            number = 0 if graph is None or all(len(answer) == limit for answer in answers) else self._count(ranks)
            for query, candidates in zip(open_, answers, strict=True):
                kept = [candidate for candidate in candidates if candidate[0] not in without[query]]
                is_all = number <= len(candidates) < limit  # a graph may have lost some
                is_full = len(candidates) == limit and len(kept) >= settled
                if is_all or (is_full and candidates[-1][1] < kept[settled - 1][1] - NOISE):
                    windows[query] = Window(kept, ranks.offset, last)
                    first |= {query: kept[0][0]} if kept else {}
            open_ = [query for query in open_ if query not in windows]
            if not open_:
                break
        if open_:
            read = self._read_all(vectors_QD[open_], last, ranks, [without[query] for query in open_])
            for query, candidates in zip(open_, read, strict=True):
                windows[query] = Window(candidates[ranks.offset :], 0, ranks.k + 1)
                first |= {query: candidates[0][0]} if candidates else {}
        needed = {track_id for window in windows.values() for track_id in window.ids} | set(first.values())
        rows |= self.get(sorted(needed - rows.keys()), collection=ranks.collection)
        pages = []
        for query, query_D in enumerate(vectors_QD):
            placed = windows[query].ranks(_score(query_D, windows[query].ids, rows))
            hits = [Hit(rows[track_id][0], score) for track_id, score in placed[: ranks.k]]
            best = placed if ranks.offset == 0 else _score(query_D, [first[query]] if query in first else [], rows)
            pages.append(Page(hits, best[0][1] if best else None, len(placed) > ranks.k))
        return pages

    def _limits(self, graph: Graph | None, needed: int, narrow: str) -> list[int]:
        """How many tracks to ask for, and for how many next where those do not settle the page."""
        if graph is not None:
            return [min(max(needed, GRAPH_DEPTH), MAX_LIMIT)] if graph.holds_filters or not narrow else []
        limits = [min(needed + _FEW, MAX_LIMIT)]
        while limits[-1] * _WIDER <= MAX_LIMIT:
            limits.append(limits[-1] * _WIDER)
        return limits

    def _count(self, ranks: Ranks) -> int:
        return self._collections.loaded(
            ranks.collection, lambda _: self._collections.count_rows(ranks.collection, narrow=ranks.narrow)
        )

    def _ask(
        self, vectors_QD: np.ndarray, limit: int, ranks: Ranks, graph: Graph | None
    ) -> tuple[list[list[Candidate]], dict[str, tuple[Track, np.ndarray]]]:
        """What Milvus finds for each query, best first by its own scores, and the rows of it if they are few."""
        with_rows = graph is None and limit <= _WITH_ROWS

        def ask(client: Any) -> Any:
            return client.search(
                ranks.collection,
                data=np.ascontiguousarray(vectors_QD, dtype=np.float32).tolist(),
                limit=limit,
                filter=ranks.narrow,
                # Lite gives the id as track_id beside the entity, a real Milvus as id: in the entity both do.
                output_fields=["track_id", *(["vector", *METADATA] if with_rows else [])],
                search_params={"params": {"ef": max(limit, graph.ef)} if graph else {}},
                consistency_level=CONSISTENCY,
                timeout=self._collections.timeout_s,
            )

        answers = [
            [(hit["entity"], float(hit["distance"])) for hit in hits]
            for hits in self._collections.loaded(ranks.collection, ask)
        ]
        candidates = [[(entity["track_id"], score) for entity, score in answer] for answer in answers]
        rows = {entity["track_id"]: _row(entity) for answer in answers for entity, _ in answer} if with_rows else {}
        return candidates, rows

    def _read_all(
        self, vectors_QD: np.ndarray, depth: int, ranks: Ranks, without: Sequence[Collection[str]]
    ) -> list[list[Candidate]]:
        """The first ``depth`` of each query, of all tracks that pass the filter."""
        best = [Best(np.asarray(query_D, np.float32), depth) for query_D in vectors_QD]
        for rows in self.walk(ranks.collection, ["track_id", "vector"], ranks.narrow, MAX_LIMIT):
            ids = [row["track_id"] for row in rows]
            vectors_ND = np.array([row["vector"] for row in rows], np.float32)
            for nearest, left_out in zip(best, without, strict=True):
                keep = [i for i, track_id in enumerate(ids) if track_id not in left_out] if left_out else None
                nearest.add(*((ids, vectors_ND) if keep is None else ([ids[i] for i in keep], vectors_ND[keep])))
        return [nearest.kept for nearest in best]

    def walk(self, collection: str, fields: Sequence[str], narrow: str, batch: int) -> Iterator[list[dict[str, Any]]]:
        """All rows that pass a filter, by id, ``batch`` at a time.

        (pymilvus's iterator pastes the last id of a batch into the next filter as it is, quotes and backslashes
        included.)
        """
        last = ""
        while True:
            here = after("track_id", last) + (f" and ({narrow})" if narrow else "")

            def ask(client: Any, here: str = here) -> Any:
                return client.query(
                    collection,
                    filter=here,
                    output_fields=list(fields),
                    limit=batch,
                    # What makes both kinds of Milvus give the lowest ids, as they do to pymilvus's iterator.
                    iterator="True",
                    reduce_stop_for_best="True",
                    consistency_level=CONSISTENCY,
                    timeout=self._collections.timeout_s,
                )

            rows = list(self._collections.loaded(collection, ask))
            if not rows:
                return
            yield rows
            last = max(row["track_id"] for row in rows)

    def _graph(self, collection: str) -> Graph | None:
        """The graph of a collection; None where its index is exact."""
        if collection in self.graphs:
            return self.graphs[collection]
        name, graph = self._collections.describe_graph(collection)
        if name == collection:  # an alias may name another one soon
            self.graphs[name] = graph
        return graph


def _score(query_D: np.ndarray, ids: Sequence[str], rows: Mapping[str, tuple[Track, np.ndarray]]) -> list[Candidate]:
    there = [track_id for track_id in ids if track_id in rows]  # one may have been deleted a moment ago
    if not there:
        return []
    scores = exact_scores(np.asarray(query_D, np.float32), np.array([rows[track_id][1] for track_id in there]))
    return [(track_id, float(score)) for track_id, score in zip(there, scores, strict=True)]


def _row(row: dict[str, Any]) -> tuple[Track, np.ndarray]:
    return track_of(row), np.asarray(row["vector"], np.float32)


def in_turn(track_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Ids, ``BATCH`` at a time."""
    for first in range(0, len(track_ids), BATCH):
        yield track_ids[first : first + BATCH]

"""Pages of a search: every track once, score before id, filters exact, "no more" true; a plain restatement tells."""

from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from milvus_places import PLACES

from serving.collection import Graph
from serving.errors import StoreError
from serving.filters import TrackFilter
from serving.ranking import MAX_DEPTH, Best, exact_scores, in_order
from serving.store import TrackStore

DIM = 32
NAMES = ('quo"te', "back\\slash", "100%", "音楽", "it's", "{x}", "\\n")


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class Tracks:
    """A catalogue, and what a search of it must give."""

    def __init__(self, vectors, ids, labels):
        self.vectors, self.ids, self.labels = vectors, ids, labels

    def some(self, first, end):
        """Those at these places."""
        return Tracks(self.vectors[first:end], self.ids[first:end], self.labels[first:end])

    def rows(self):
        rows = [
            {"track_id": track_id, "vector": vector, "labels": of}
            for track_id, vector, of in zip(self.ids, self.vectors, self.labels, strict=True)
        ]
        return [rows[first : first + 1_000] for first in range(0, len(rows), 1_000)]

    def build(self, store, name, **options):
        options = {"hnsw_from": 10**9, "recall_floor": 0.9} | options
        return store.build(name, self.rows(), dim=self.vectors.shape[1], properties={}, **options)

    def ranks(self, query, label=None, without=()):
        """All of them in order, as (id, score)."""
        query, vectors = query.astype(np.float64), self.vectors.astype(np.float64)
        cosines = np.round(vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query), 6)
        passing = [
            i for i, of in enumerate(self.labels) if (label is None or label in of) and self.ids[i] not in without
        ]
        return [(self.ids[i], cosines[i]) for i in sorted(passing, key=lambda i: (-cosines[i], self.ids[i]))]


def narrowed(label):
    return TrackFilter(labels=[label]) if label else None


def shown(page):
    return [(hit.track.track_id, hit.score) for hit in page.hits]


def walk(store, name, query, k, *, label=None, without=(), most=MAX_DEPTH):
    """All pages after one another, as a client asks for them; none is empty but the first."""
    hits, more = [], True
    while more and len(hits) < most:
        asked = min(k, most - len(hits))
        (page,) = store.tracks.pages(
            query[None], asked, collection=name, offset=len(hits), narrow=narrowed(label), exclude=[without]
        )
        assert page.hits or not hits
        assert len(page.hits) == asked or not page.has_more
        hits, more = hits + shown(page), page.has_more
    return hits, more


@cache
def clustered(count):
    """Tracks in 100 clusters, with 40 and with 300 of one vector; filters from 0.1 to 50 % of them; and queries."""
    random = np.random.default_rng(0)
    centres = unit(random.standard_normal((100, DIM)))
    of = random.integers(100, size=count)
    vectors = unit(centres[of] + 0.6 * random.standard_normal((count, DIM)) / DIM**0.5)
    vectors[100:400], vectors[1_000:1_040] = vectors[100], vectors[1_000]
    ids = [f"t{i:05}" if i % 2 else f"a{i}" for i in range(count)]
    labels = [
        [f"cluster:{of[i]}", *(name for name, every in SHARES.items() if i % every == 3 % every)] for i in range(count)
    ]
    queries = [*unit(centres[:4] + 0.3 * random.standard_normal((4, DIM)) / DIM**0.5), vectors[150], vectors[1_010]]
    return Tracks(vectors, ids, labels), np.array([*queries, *unit(random.standard_normal((2, DIM)))])


SHARES = {"0.1 %": 1_000, "1 %": 100, "10 %": 10, "50 %": 2}
LABELS = [None, *SHARES, "cluster:7"]
CATALOGUE = clustered(4_000)


@pytest.fixture(
    scope="module",
    params=[
        "in process",
        pytest.param("server", marks=pytest.mark.drill),
        pytest.param("engine", marks=[pytest.mark.drill, pytest.mark.milvus]),
    ],
)
def large(request, tmp_path_factory):
    """A store with a catalogue of more tracks than pages reach; at a server, of more than Milvus gives at once."""
    catalogue = CATALOGUE if request.param == "in process" else clustered(20_000)
    with PLACES[request.param](tmp_path_factory.mktemp("milvus")) as uri:
        store = TrackStore(uri, timeout_s=30)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("serving.recall.PROBE_QUERIES", 16)
            built = catalogue[0].build(store, "tracks_flat", recall_floor=0.99)
        assert built.index_type == "FLAT" and built.filtered_recall == {"1": 1.0, "10": 1.0, "50": 1.0}
        yield store, *catalogue
        store.close()


@pytest.mark.parametrize("label", LABELS)
def test_large_catalogues_are_searched_exactly_under_every_filter(large, label):
    store, tracks, queries = large
    pages = store.tracks.pages(queries, 10, collection="tracks_flat", narrow=narrowed(label))
    for query, page in zip(queries, pages, strict=True):
        expected = tracks.ranks(query, label)
        assert shown(page) == expected[:10]
        assert page.has_more == (len(expected) > 10)
    for i in (0, 4, 5):  # of none, of 300 and of 40 equal tracks
        (alone,) = store.tracks.pages(queries[i : i + 1], 10, collection="tracks_flat", narrow=narrowed(label))
        assert alone == pages[i], "alone as in a batch"


@pytest.mark.parametrize(("label", "k"), [(None, 100), ("0.1 %", 1), ("1 %", 7), ("cluster:7", 20), ("10 %", 100)])
def test_large_catalogues_page_by_page(large, label, k):
    store, tracks, queries = large
    for query in queries[[4]]:
        without = [track_id for track_id, _ in tracks.ranks(query, label)[:3]]
        expected = tracks.ranks(query, label, without)
        hits, more = walk(store, "tracks_flat", query, k, label=label, without=without)
        assert hits == expected[:MAX_DEPTH] and more == (len(expected) > MAX_DEPTH)


@pytest.mark.drill
@pytest.mark.milvus
@pytest.mark.parametrize("large", ["engine"], indirect=True)
def test_a_graph_of_the_engine(large):
    store, tracks, queries = large
    built = tracks.build(store, "tracks_graph", hnsw_from=1, recall_floor=0.95)
    assert built.index_type == "HNSW" and built.recall_at_10 >= 0.95
    assert min(built.filtered_recall.values()) >= 0.95 or built.reads_filtered
    good = {}
    for label in LABELS:
        pages = store.tracks.pages(queries, 10, collection="tracks_graph", narrow=narrowed(label))
        expected = [tracks.ranks(query, label)[:10] for query in queries]
        # Not those at equal tracks: of these a graph may lose a whole group (0 of 10), as docs/serving.md says.
        apart = [(page, of) for i, (page, of) in enumerate(zip(pages, expected, strict=True)) if i not in {4, 5}]
        good[label] = np.mean([hit.score >= of[-1][1] for page, of in apart for hit in page.hits])
        for k, query in ((7, queries[0]), (100, queries[4])) if label is None else ((100, queries[4]),):
            check_walk(tracks.ranks(query, label), *walk(store, "tracks_graph", query, k, label=label))
    assert min(good.values()) >= 0.93 and np.mean([good[label] for label in SHARES]) >= 0.98


def check_walk(expected, hits, more, most=MAX_DEPTH):
    """A graph may miss some of very many, but shows each once, in order, and all where pages reach all."""
    assert len({track_id for track_id, _ in hits}) == len(hits) == min(most, len(expected))
    assert hits == in_order(hits) and set(hits) <= set(expected)
    assert more == (len(expected) > most)
    if len(expected) <= most:
        assert hits == expected


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    store = TrackStore(str(tmp_path_factory.mktemp("lite") / "lite.db"), timeout_s=30)
    yield store
    store.close()


def test_lite_is_always_exact(lite):
    tracks = CATALOGUE[0].some(400, 700)
    built = tracks.build(lite, "tracks_exact", hnsw_from=1)
    assert (built.index_type, built.recall_at_10, built.reads_filtered) == ("FLAT", 1.0, False)
    lite.collections.drop("tracks_exact")


@pytest.fixture(scope="module")
def graph(lite):
    """A graph that loses most of what filters leave, as Lite's does, with pages down to 12 tracks."""
    tracks = CATALOGUE[0].some(0, 1_200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lite.collections, "is_lite", lambda: False)
        patch.setattr("serving.store.EF_CANDIDATES", (24,))
        patch.setattr("serving.pages.GRAPH_DEPTH", 24)
        patch.setattr("serving.pages.MAX_DEPTH", 12)
        built = tracks.build(lite, "tracks_graph", hnsw_from=1, recall_floor=0.95)
        assert (built.index_type, built.ef) == ("HNSW", 24)
        yield tracks, built


def test_a_graph_that_loses_tracks_under_filters_says_so_and_they_are_read_instead(lite, graph, monkeypatch):
    tracks, built = graph
    assert built.reads_filtered and min(built.filtered_recall.values()) < 0.95 <= built.recall_at_10
    expected = [tracks.ranks(query, "10 %")[:10] for query in CATALOGUE[1]]

    def found():
        return [
            shown(page)
            for page in lite.tracks.pages(CATALOGUE[1], 10, collection="tracks_graph", narrow=narrowed("10 %"))
        ]

    lite.tracks.graphs.clear()  # as of another process that opens it
    assert found() == expected
    monkeypatch.setitem(lite.tracks.graphs, "tracks_graph", Graph(24, holds_filters=True))
    assert found() != expected


@pytest.mark.parametrize(("label", "k"), [(None, 1), (None, 5), ("1 %", 5), ("50 %", 12)])
def test_pages_of_a_graph_are_cut_from_one_answer(lite, graph, label, k):
    tracks, _ = graph
    for query in CATALOGUE[1][[0, 4]]:
        check_walk(tracks.ranks(query, label), *walk(lite, "tracks_graph", query, k, label=label, most=12), most=12)


def test_a_graph_of_an_earlier_version_is_not_trusted_with_filters(lite, graph):
    tracks, query = graph[0], CATALOGUE[1][0]
    lite.collections.call(
        lambda client: client.alter_collection_properties("tracks_graph", properties={"mulan.filters": ""})
    )
    lite.tracks.graphs.clear()
    assert not lite.tracks._graph("tracks_graph").holds_filters
    (page,) = lite.tracks.pages(query[None], 10, collection="tracks_graph", narrow=narrowed("1 %"))
    assert shown(page) == tracks.ranks(query, "1 %")[:10]


def test_a_graph_that_does_not_say_its_ef_is_searched_as_wide_as_any(lite, graph):
    lite.collections.call(lambda client: client.drop_collection_properties("tracks_graph", ["mulan.ef"]))
    lite.tracks.graphs.clear()
    assert lite.tracks._graph("tracks_graph").ef == 4_096


def test_a_build_under_the_floor_is_refused(lite, monkeypatch):
    tracks = CATALOGUE[0].some(400, 700)
    with pytest.raises(StoreError, match=r"recall@10 of tracks_low is 1.000, under the floor of 1.01; not kept"):
        tracks.build(lite, "tracks_low", recall_floor=1.01)
    assert not lite.collections.has("tracks_low")


@pytest.mark.parametrize(("equal", "limit"), [(20, 16_384), (150, 16_384), (150, 64), (200, 64)])
def test_equal_tracks_stand_by_id_on_every_page(lite, monkeypatch, equal, limit):
    """Where Milvus gives 64 tracks at most, ties are settled by reading all."""
    monkeypatch.setattr("serving.pages.MAX_LIMIT", limit)
    monkeypatch.setattr("serving.recall.PROBE_QUERIES", 4)  # what the build measures is not asked here
    random = np.random.default_rng(equal)
    vectors = unit(random.standard_normal((200, DIM)))
    vectors[random.permutation(200)[:equal]] = vectors[0]
    ids = [f"{NAMES[i % len(NAMES)]} {i}" for i in random.permutation(200)]
    tracks = Tracks(vectors, ids, [["half"] if i % 2 else [] for i in range(200)])
    tracks.build(lite, "tracks_equal")
    for label, k in ((None, 10), (None, 100), ("half", 70)):
        for query in (vectors[0], unit(random.standard_normal((1, DIM)))[0]):
            hits, more = walk(lite, "tracks_equal", query, k, label=label, without=ids[:2])
            assert hits == tracks.ranks(query, label, ids[:2]) and not more
    some = np.array([vectors[0], vectors[1]])
    together = lite.tracks.pages(some, 10, collection="tracks_equal")
    assert together == [lite.tracks.pages(query[None], 10, collection="tracks_equal")[0] for query in some]
    lite.collections.drop("tracks_equal")


@pytest.fixture(scope="module")
def small(lite):
    """A collection whose tracks are replaced, which is much faster than to build one."""
    Tracks(np.eye(1, 8), ["a"], [[]]).build(lite, "tracks_any")
    return lite


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_pages_are_the_restatement_cut_up(small, data):
    """Few directions for many tracks, so that most are equal to others; labels of any letters."""
    count = data.draw(st.integers(1, 40), "tracks")
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed"))
    directions = unit(random.standard_normal((data.draw(st.integers(1, 8), "directions"), 8)))
    letters = st.text(
        st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp", "Cf", "Cn", "Co"]), min_size=1, max_size=6
    )
    names = data.draw(st.lists(letters | st.sampled_from(NAMES), min_size=1, max_size=4, unique=True), "labels")
    ids = data.draw(st.lists(letters | st.sampled_from(NAMES), min_size=count, max_size=count, unique=True), "ids")
    labels = [[name for name in names if random.random() < 0.4] for _ in ids]
    tracks = Tracks(directions[random.integers(len(directions), size=count)], ids, labels)
    small.delete("tracks_any", [track_id for rows in small.scroll("tracks_any") for track_id, _ in rows])
    for rows in tracks.rows():
        small.upsert("tracks_any", rows)
    for label in (None, *names):
        query = unit(random.standard_normal((1, 8)))[0]
        without = data.draw(st.lists(st.sampled_from(ids), max_size=3), "without")
        k = data.draw(st.sampled_from([1, 7, 10, 100]), "k")
        hits, more = walk(small, "tracks_any", query, k, label=label, without=without)
        assert hits == tracks.ranks(query, label, without) and not more


def test_a_score_does_not_depend_on_the_tracks_beside():
    random = np.random.default_rng(0)
    vectors, query = unit(random.standard_normal((500, 128))), unit(random.standard_normal((1, 128)))[0]
    together = exact_scores(query, vectors)
    for size in (1, 2, 3, 17, 64):
        parts = [exact_scores(query, vectors[first : first + size]) for first in range(0, 500, size)]
        np.testing.assert_array_equal(np.concatenate(parts), together)
    best = Best(query, 30)
    for first in range(0, 500, 41):
        best.add([f"{i}" for i in range(first, min(first + 41, 500))], vectors[first : first + 41])
    assert best.kept == in_order([(f"{i}", score) for i, score in enumerate(together)])[:30]

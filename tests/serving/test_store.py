"""The store's contract, against Lite in process, a Lite server and the real engine; exact search is the reference."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from milvus_places import PLACES

from serving.errors import StoreError, StoreUnavailableError
from serving.filters import TrackFilter
from serving.store import LIVE_ALIAS, TrackStore, collection_name
from serving.tracks import ADDED

DIM, COUNT = 16, 300
PROPERTIES = {"model_version": "3", "data_hash": "0123456789abcdef", "preprocessing_hash": "feed"}
NASTY = 'genre:R&B "quoted" \\ back\' 音楽'


@pytest.fixture(scope="module", params=["in process", "server", pytest.param("engine", marks=pytest.mark.milvus)])
def store(request, tmp_path_factory):
    with PLACES[request.param](tmp_path_factory.mktemp("milvus")) as uri:
        store = TrackStore(uri)
        yield store
        store.close()


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    """For what is ours rather than Milvus's: the engine takes seconds for each collection."""
    store = TrackStore(str(tmp_path_factory.mktemp("lite") / "lite.db"))
    yield store
    store.close()


def unit_vectors(count=COUNT, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def row(i, vector, **changes):
    labels = ["genre:Jazz" if i % 3 else "genre:Reggae", *([NASTY] if i % 50 == 0 else [])]
    fields = {"title": f"Straße {i}", "artist": f"artist {i % 5}", "dataset": "even" if i % 2 == 0 else "odd"}
    return {"track_id": f"t{i}", "vector": vector, "labels": labels, "media_path": f"/m/{i}.ogg", **fields, **changes}


def build(store, name, vectors, *, rows=None, hnsw_from=10_000, recall_floor=0.95):
    rows = rows or [row(i, v) for i, v in enumerate(vectors)]
    batches = [rows[i : i + 64] for i in range(0, len(rows), 64)]
    return store.build(
        name, iter(batches), dim=DIM, properties=PROPERTIES, hnsw_from=hnsw_from, recall_floor=recall_floor
    )


@pytest.fixture(scope="module")
def name(store):
    name = collection_name("3", PROPERTIES["data_hash"])
    build(store, name, unit_vectors())
    return name


def ids(hits):
    return [hit.track.track_id for hit in hits]


def test_names():
    assert collection_name("3", "0123456789abcdef") == "tracks_3_01234567"
    assert collection_name("v1.2-rc", "ab/cd") == "tracks_v1_2_rc_ab_cd"


def test_search_is_exact_search(store, name):
    vectors, queries = unit_vectors(), unit_vectors(5, seed=1)
    expected = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    found = store.tracks.search(queries, 10, collection=name)
    assert [ids(hits) for hits in found] == [[f"t{i}" for i in of_query] for of_query in expected]
    scores = [[hit.score for hit in hits] for hits in found]
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, expected, 1), atol=1e-5)


def test_track_comes_back_as_it_was(store, name):
    track, vector = store.tracks.get(["t50", "nobody"], collection=name)["t50"]
    assert (track.title, track.artist, track.dataset) == ("Straße 50", "artist 0", "even")
    assert track.labels == ("genre:Jazz", NASTY)
    assert track.media_path == "/m/50.ogg"
    np.testing.assert_allclose(vector, unit_vectors()[50], atol=1e-6)
    assert store.tracks.get(["nobody"], collection=name) == {}


STRANGE = ('t1" or track_id != "', "t1'] or track_id in ['t2", "it's", "both \" and '", "back\\slash", '\\"')


def test_a_strange_id_is_only_a_string(store, name):
    for strange in STRANGE:
        assert store.tracks.get([strange], collection=name) == {}
    vectors, count = unit_vectors(len(STRANGE), seed=9), store.collections.count(name)
    store.upsert(name, [row(0, vector, track_id=strange) for vector, strange in zip(vectors, STRANGE, strict=True)])
    try:
        assert set(store.tracks.get([*STRANGE, "nobody"], collection=name)) == set(STRANGE)
    finally:
        assert store.delete(name, STRANGE) == len(STRANGE)
    assert store.collections.count(name) == count


def test_properties_count_and_labels_round_trip(store, name):
    info = store.collections.describe(name)
    assert info.properties == PROPERTIES
    assert (info.name, info.dim, info.count, info.is_loaded) == (name, DIM, COUNT, True)
    assert info.labels == ("genre:Jazz", "genre:Reggae", NASTY)


@pytest.mark.parametrize(
    ("narrow", "passes"),
    [
        (TrackFilter(labels=["genre:Reggae"]), lambda i: i % 3 == 0),
        (TrackFilter(labels=["genre:Reggae", NASTY]), lambda i: i % 3 == 0 and i % 50 == 0),
        (TrackFilter(dataset="odd", artist="artist 3"), lambda i: i % 2 == 1 and i % 5 == 3),
        (TrackFilter(labels=["genre:Polka"]), lambda i: False),
    ],
)
def test_filters(store, name, narrow, passes):
    vectors, query = unit_vectors(), unit_vectors(1, seed=2)
    order = [int(i) for i in np.argsort(-(query @ vectors.T)[0]) if passes(i)]
    assert ids(store.tracks.search(query, 8, collection=name, narrow=narrow)[0]) == [f"t{i}" for i in order[:8]]


@pytest.mark.parametrize(
    "attack",
    [
        '") or track_id != ("',
        '"',
        "\\",
        '\\" or 1 == 1 or \\"',
        '") || array_contains(labels, "genre:Jazz',
        "' or ''='",
        "{x}",
        "%",
        "genre:%",
    ],
)
def test_filter_text_is_never_code(store, name, attack):
    for narrow in (TrackFilter(labels=[attack]), TrackFilter(dataset=attack), TrackFilter(artist=attack)):
        assert store.tracks.search(unit_vectors(1), 10, collection=name, narrow=narrow) == [[]]


@pytest.mark.parametrize("value", ["", "a\nb", "a\0b", "x" * 513])
def test_filter_values_are_checked(value):
    with pytest.raises(ValueError, match="dataset"):
        TrackFilter(dataset=value)


def test_excluded_tracks_are_replaced_by_the_next(store, name):
    query = unit_vectors(1, seed=3)
    full = ids(store.tracks.search(query, 6, collection=name)[0])
    assert ids(store.tracks.search(query, 5, collection=name, exclude=[full[0]])[0]) == full[1:]


def test_what_is_written_is_found_at_once_and_what_is_deleted_is_not(store):
    vectors, query = unit_vectors(40), unit_vectors(1, seed=5)
    build(store, "tracks_edited", vectors)
    marked = [row(i, vectors[i], content_hash=f"h{i}") for i in (7, 8)]
    new = row(99, query[0], title="first", content_hash="h99")
    assert store.upsert("tracks_edited", [*marked, new, new | {"title": "last"}]) == 3
    assert store.collections.count("tracks_edited") == 41
    found = store.tracks.search(query, 1, collection="tracks_edited")[0][0].track
    assert (found.track_id, found.title) == ("t99", "last")
    assert store.delete("tracks_edited", ["t0", "t7", "nobody", 't1" or track_id != "']) == 2
    assert store.collections.count("tracks_edited") == 39
    assert "t7" not in ids(store.tracks.search(vectors[[7]], 40, collection="tracks_edited")[0])
    assert store.tracks.get(["t0", "t7"], collection="tracks_edited") == {}
    store.collections.flush("tracks_edited")
    pages = list(store.scroll("tracks_edited", batch=10))
    assert max(len(page) for page in pages) <= 10
    scrolled = dict(pair for page in pages for pair in page)
    assert scrolled == {f"t{i}": "" for i in range(40) if i not in (0, 7)} | {"t8": "h8", "t99": "h99"}
    strange = ['" or 1 == 1 or "', "t99", "t8", "nobody"]
    assert store.hashes(strange, collection="tracks_edited") == {"t8": "h8", "t99": "h99"}
    with pytest.raises(StoreError, match="unit vector"):
        store.upsert("tracks_edited", [row(1, vectors[1]), row(2, vectors[2] * 2)])
    assert store.upsert("tracks_edited", []) == store.delete("tracks_edited", []) == 0
    store.collections.drop("tracks_edited")


AWKWARD = ('"', "\\", "\\n", '" or track_id != "', "'", "%", "音楽", "{x}")


def test_all_tracks_are_walked_over_whatever_their_ids_hold(store):
    """pymilvus's own iterator pastes the last id of a batch into a filter as it is."""
    vectors = unit_vectors(24)
    ids_ = [f"{i:02}{AWKWARD[i % len(AWKWARD)]}{i}" for i in range(24)]
    rows = [row(i, vectors[i], track_id=track_id) for i, track_id in enumerate(ids_)]
    build(store, "tracks_awkward", None, rows=rows)
    for batch in (1, 5, 24, 25):
        walked = [track_id for page in store.scroll("tracks_awkward", batch=batch) for track_id, _ in page]
        assert walked == ids_
    store.collections.drop("tracks_awkward")


def window(i, place, vector):
    cut = {"track_id": f"t{i}", "place": place, "start_s": 2.5 * place, "end_s": 2.5 * place + 5}
    return cut | {"vector": vector}


def test_windows_say_where_a_track_fits_best(store):
    name, vectors, queries = "tracks_cut", unit_vectors(4), unit_vectors(12, seed=7)
    build(store, name, vectors)
    windows = [window(i, place, queries[3 * i + place]) for i in range(4) for place in range(3)]
    assert store.windows.count(name) == 0
    with pytest.raises(ZeroDivisionError):  # killed half-way
        store.windows.build(name, ([row] if i < 5 else 1 / 0 for i, row in enumerate(windows)))
    assert store.windows.count(name) == 0
    assert store.windows.build(name, iter([windows[:7], windows[7:]])) == 12
    assert store.windows.count(name) == 12
    assert (
        name in store.collections.list_collections() and f"{name}_windows" not in store.collections.list_collections()
    )

    def best(query, *ids):
        (spans,) = store.windows.best([(query, ids)], collection=name)
        return {track: s.start_s for track, s in spans.items()}

    for i in range(4):
        for place in range(3):
            assert best(queries[3 * i + place], f"t{i}")[f"t{i}"] == 2.5 * place
    expected = {f"t{i}": 2.5 * int(np.argmax(queries[3 * i : 3 * i + 3] @ vectors[0])) for i in (0, 3)}
    assert best(vectors[0], "t0", "nobody", "t3") == expected
    assert best(vectors[0]) == {} and store.windows.best([], collection=name) == []
    several = [(vectors[0], ["t3", "nobody"]), (queries[5], ["t1", "t3"])]
    alone = [store.windows.best([ask], collection=name)[0] for ask in several]
    assert store.windows.best(several, collection=name) == alone

    # The best of many comes last: all of them are asked for, however many a track has.
    many = [window(0, place, vectors[0] if place == 29 else queries[place % 12]) for place in range(30)]
    store.upsert(name, [row(0, vectors[0]), row(1, vectors[1])], windows=many)
    assert best(vectors[0], "t0", "t1") == {"t0": 72.5}
    assert sorted(row["place"] for row in store.windows.get(["t0"], collection=name)) == [*range(30)]
    store.delete(name, ["t0", "t2"])
    assert best(vectors[0], "t0", "t1", "t2") == {}
    store.collections.drop(name)
    assert not store.collections.has(f"{name}_windows")


def test_many_may_find_that_nothing_is_in_memory(lite):
    """As after a restart of Milvus, when searches come before anything is loaded."""
    name, vectors = "tracks_cold", unit_vectors(20)
    build(lite, name, vectors)
    lite.windows.build(name, [[window(i, 0, vectors[i]) for i in range(20)]])

    def ask(i):
        hit = lite.tracks.search(vectors[[i]], 1, collection=name)[0][0].track.track_id
        return hit, [*lite.windows.best([(vectors[i], [f"t{i}"])], collection=name)[0]]

    def unload():
        for of in (name, f"{name}_windows"):
            lite.collections.call(lambda client, of=of: client.release_collection(of))

    unload()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [(f"t{i}", [f"t{i}"]) for i in range(8)]
    unload()
    lite.collections.load(name)
    assert lite.collections.describe(f"{name}_windows").is_loaded
    lite.collections.drop(name)


def test_tracks_are_copied_with_their_windows_under_the_hash_that_is_given(store):
    vectors = unit_vectors(6)
    marked = {4: {"content_hash": ADDED, "labels": [NASTY]}, 5: {"content_hash": f"{ADDED}:1f"}}
    build(store, "tracks_old", None, rows=[row(i, vectors[i], content_hash=f"ad{i}") for i in range(3)])
    store.windows.build("tracks_old", [[window(0, 0, vectors[0])]])
    cuts = [window(4, place, vectors[place]) for place in range(2)]
    store.upsert("tracks_old", [row(i, vectors[i], **more) for i, more in marked.items()], windows=cuts)
    build(store, "tracks_new", None, rows=[row(i, vectors[i], content_hash=f"ad{i}") for i in (1, 2, 5)])
    store.windows.build("tracks_new", [[window(1, 0, vectors[1])]])
    added = [pair for page in store.scroll("tracks_old", only_added=True, batch=1) for pair in page]
    assert added == [("t4", ADDED), ("t5", f"{ADDED}:1f")]
    asked = ["t0", "t4", "nobody", *(f"t{i}" for i in range(10, 600)), "t5"]
    assert store.hashes(asked, collection="tracks_old") == dict(added) | {"t0": "ad0"}
    store.copy({}, "tracks_old", "tracks_new")
    store.copy({"t4": "marked", "nobody": "x"}, "tracks_old", "tracks_new")
    there = {"t1": "ad1", "t2": "ad2", "t4": "marked", "t5": "ad5"}
    assert dict(pair for page in store.scroll("tracks_new") for pair in page) == there
    before, after = (store.tracks.get(["t4"], collection=f"tracks_{of}")["t4"] for of in ("old", "new"))
    assert before[0] == after[0] and np.array_equal(before[1], after[1])
    placed = sorted((cut["start_s"], cut["end_s"]) for cut in store.windows.get(["t4"], collection="tracks_new"))
    assert placed == [(0.0, 5.0), (2.5, 7.5)]
    for name in ("tracks_old", "tracks_new"):
        store.collections.drop(name)


def test_equal_vectors_do_not_count_against_recall(lite):
    vectors = np.repeat(unit_vectors(3), 20, axis=0)
    assert build(lite, "tracks_equal", vectors).recall_at_10 == 1.0
    lite.collections.drop("tracks_equal")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(0, unit_vectors()[0] * 2)], "unit vector"),
        ([row(0, unit_vectors()[0] * np.nan)], "unit vector"),
        ([row(0, unit_vectors()[0][:-1])], "unit vector"),
        ([row(0, unit_vectors()[0], track_id="x" * 600)], "512 bytes"),
        ([row(0, unit_vectors()[0]), row(0, unit_vectors()[1])], "twice"),
    ],
)
def test_a_bad_row_leaves_nothing_behind(lite, rows, words):
    with pytest.raises(StoreError, match=words):
        build(lite, "tracks_bad", None, rows=rows)
    assert not lite.collections.has("tracks_bad")


def test_recall_under_the_floor_is_refused(lite):
    with pytest.raises(StoreError, match="under the floor"):
        build(lite, "tracks_low", unit_vectors(), recall_floor=1.01)
    assert "tracks_low" not in lite.collections.list_collections()


def test_an_empty_catalogue_is_refused(lite):
    with pytest.raises(StoreError, match="nothing to index"):
        lite.build("tracks_none", iter([]), dim=DIM, properties={}, hnsw_from=10, recall_floor=0.9)
    assert not lite.collections.has("tracks_none")


def test_the_longest_names_fit_and_longer_ones_are_told(lite):
    """A real Milvus counts bytes, Lite characters; a path that is too long only means that the track does not play."""
    longest = {"title": "ü" * 1024, "artist": "ü" * 512, "dataset": "ü" * 128, "labels": ["ü" * 256] * 256}
    build(lite, "tracks_long", None, rows=[row(0, unit_vectors()[0], **longest, media_path="p" * 5000)])
    track, _ = lite.tracks.get(["t0"], collection="tracks_long")["t0"]
    assert longest == {field: getattr(track, field) for field in longest} | {"labels": list(track.labels)}
    assert track.media_path == ""
    lite.collections.drop("tracks_long")
    for field, value in longest.items():
        longer = [*value, "x"] if field == "labels" else f"{value}x"
        with pytest.raises(StoreError, match=r"of track t0 has more than|track t0 carries 257 labels"):
            build(lite, "tracks_long", None, rows=[row(0, unit_vectors()[0], **longest | {field: longer})])


def test_switching_the_alias(store, name):
    build(store, "tracks_other", unit_vectors(40, seed=9))
    store.collections.switch_alias(name)
    assert store.collections.live_collection() == name
    assert store.collections.describe(LIVE_ALIAS).name == name
    store.collections.switch_alias("tracks_other")
    assert store.collections.describe(LIVE_ALIAS).count == 40
    with pytest.raises(StoreError, match="live"):
        store.collections.drop("tracks_other")
    with pytest.raises(StoreError):
        store.collections.switch_alias("tracks_nowhere")
    assert store.collections.live_collection() == "tracks_other"
    store.collections.switch_alias(name)
    store.collections.drop("tracks_other")


def test_a_second_build_replaces_the_first(lite):
    build(lite, "tracks_again", unit_vectors(20))
    build(lite, "tracks_again", unit_vectors(30))
    assert lite.collections.count("tracks_again") == 30
    lite.collections.drop("tracks_again")


def test_unknown_collection_is_one_sentence(store):
    with pytest.raises(StoreError, match="tracks_nowhere") as caught:
        store.collections.describe("tracks_nowhere")
    assert not isinstance(caught.value, StoreUnavailableError)
    assert "\n" not in str(caught.value)

"""Edits come to a collection whichever it is, once, and whoever else writes at the same time; nothing else changes."""

import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from serving_fixtures import tone, wav

from serving.edited_collection import Applied, EditedCollection, Heard
from serving.edits import Edits, to_flac
from serving.errors import StoreError
from serving.store import TrackStore
from serving.tracks import ADDED

DIM = 8
FIELDS = {"title": "", "artist": "A", "dataset": "added", "labels": ["genre:Jazz"]}


def vector_of(content):
    vector = np.random.default_rng(list(hashlib.sha256(content).digest())).standard_normal(DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def encode(flac):
    """What a model does, but sooner: the same audio has the same vector, and windows."""
    vector_D = vector_of(flac)
    return vector_D, [{"place": 0, "start_s": 0.0, "end_s": 2.0, "vector": vector_D}]


def flac_of(seed):
    return to_flac(wav(tone(seed, 0.6)), max_s=20)


FLACS = [flac_of(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = TrackStore(str(tmp_path_factory.mktemp("lite") / "lite.db"))
    yield store
    store.close()


def row(track_id, content_hash):
    return {"track_id": track_id, "vector": vector_of(content_hash.encode()), "content_hash": content_hash}


def build(store, name, rows, built="2000"):
    """A collection with windows, built long ago unless something else is said."""
    properties = {"built": built}
    store.build(name, [rows], dim=DIM, properties=properties, hnsw_from=10_000, recall_floor=0.0)
    cut = [{"track_id": r["track_id"], "place": 0, "start_s": 0, "end_s": 2, "vector": r["vector"]} for r in rows]
    store.windows.build(name, [cut])


@pytest.fixture
def edited(store, tmp_path):
    """The tracks a to d of a catalogue, none of them edited."""
    build(store, "tracks_1", [row(track_id, f"{number:02x}") for number, track_id in enumerate("abcd")])
    yield EditedCollection(store, Edits(tmp_path / "edits"), "tracks_1")
    for name in store.collections.list_collections():
        store.collections.drop(name)


def add(edited, track_id, number, **fields):
    return edited.add(FIELDS | fields | {"track_id": track_id}, Heard(FLACS[number], *encode(FLACS[number])))


def hashes(edited):
    return dict(pair for page in edited.store.scroll(edited.name) for pair in page)


def windows(edited):
    names = list(hashes(edited))
    return {cut["track_id"] for cut in edited.store.windows.get(names, collection=edited.name)}


def beside(edited, rows, built="2000"):
    """Another collection under the same edits."""
    build(edited.store, "tracks_2", rows, built)
    return EditedCollection(edited.store, edited.edits, "tracks_2")


def test_another_collection_gets_what_was_done_to_the_first(edited):
    added = add(edited, "new", 0, title="New")
    add(edited, "a", 1)
    edited.delete("b")
    other = beside(edited, [row(track_id, f"{number:02x}") for number, track_id in enumerate("abcd")])
    assert other.apply(encode) == Applied(added=2, deleted=1)
    assert hashes(other) == hashes(edited) == {
        "a": edited.edits.get("a").mark, "c": "02", "d": "03", "new": edited.edits.get("new").mark,
    }  # fmt: skip
    assert windows(other) == set("acd") | {"new"}
    track, vector_D = other.store.tracks.get(["new"], collection=other.name)["new"]
    assert np.array_equal(vector_D, added["vector"])
    assert (track.title, track.artist, track.labels) == ("New", "A", ("genre:Jazz",))
    assert track.media_path == str(edited.edits.folder / edited.edits.get("new").audio)


def test_once_more_it_writes_nothing(edited, monkeypatch):
    add(edited, "new", 0)
    edited.delete("b")
    assert edited.apply(None) == Applied(added=1, deleted=1), "nothing is encoded"
    monkeypatch.setattr(edited.store, "upsert", lambda *_, **__: pytest.fail("it was there"))
    assert edited.apply(None) == Applied(added=1, deleted=1)


def test_vectors_of_the_same_model_are_copied(edited):
    add(edited, "new", 0)
    other = beside(edited, [row("a", "00")])
    assert other.apply(None, source=edited.name) == Applied(added=1)
    assert windows(other) == {"a", "new"}
    before, after = (one.store.tracks.get(["new"], collection=one.name)["new"] for one in (edited, other))
    assert before[0] == after[0] and np.array_equal(before[1], after[1])


def test_the_catalogues_newer_row_stands(edited):
    add(edited, "a", 0)
    add(edited, "new", 0)
    later = beside(edited, [row("a", "ff"), row("new", "fe"), row("b", "01")], built="9999")
    assert later.apply(encode) == Applied(superseded=["a", "new"])
    assert hashes(later) == {"a": "ff", "new": "fe", "b": "01"}
    again = add(later, "a", 1)
    assert hashes(later)["a"] == again["content_hash"] and later.apply(encode).superseded == ["new"]
    before = beside(edited, [row("a", "aa")], built="2000")
    assert before.apply(encode) == Applied(added=2), "a collection from before the API's word"


def test_what_is_taken_back_goes_with_the_next_application(edited):
    add(edited, "new", 0)
    legacy = row("of old", ADDED)
    edited.store.upsert(edited.name, [legacy])
    edited.edits.forget("new")
    assert edited.apply(encode) == Applied()
    assert set(hashes(edited)) == set("abcd") | {"of old"}, "what was added without a record is nobody's to remove"


@pytest.mark.parametrize("word", ["added", "deleted", "added, then deleted"])
@pytest.mark.parametrize("where", ["here", "beside"])
def test_the_catalogues_row_comes_back_when_a_word_is_taken_back(edited, word, where):
    """Its vector and windows too, in each collection that stands, though nothing is indexed again."""
    other = beside(edited, [row("a", "f0")])
    before = {one.name: one.store.tracks.get(["a"], collection=one.name)["a"] for one in (edited, other)}
    if word != "deleted":
        add(edited, "a", 1)
    if word != "added":
        edited.delete("a")
    one = edited if where == "here" else other
    one.apply(encode, source=edited.name)
    edited.edits.forget("a")
    for _ in range(2):
        assert one.apply(encode) == Applied()
    track, vector_D = one.store.tracks.get(["a"], collection=one.name)["a"]
    assert track == before[one.name][0] and np.array_equal(vector_D, before[one.name][1])
    assert hashes(one)["a"] == ("00" if one is edited else "f0") and "a" in windows(one)


def test_an_upload_after_a_deletion_that_was_taken_back_knows_what_it_replaces(edited):
    edited.delete("a")
    edited.edits.forget("a")
    add(edited, "a", 0)
    later = beside(edited, [row("a", "00")], built="9999")
    assert later.apply(encode) == Applied(added=1)


def test_an_upload_over_a_row_that_was_hashed_otherwise_stays(store, tmp_path):
    """Nobody can tell whether the catalogue's row has changed since then."""
    store.build("tracks_1", [[row("a", "01d")]], dim=DIM, properties={}, hnsw_from=10_000, recall_floor=0.0)
    old = EditedCollection(store, Edits(tmp_path / "edits"), "tracks_1")
    add(old, "a", 0)
    later = beside(old, [row("a", "7e")], built="9999")
    assert later.apply(encode) == Applied(added=1)
    again = add(later, "a", 1)
    assert later.apply(encode) == Applied(added=1) and hashes(later)["a"] == again["content_hash"]
    for name in store.collections.list_collections():
        store.collections.drop(name)


def test_a_deletion_of_what_no_catalogue_had_gives_way_to_a_later_table(edited):
    add(edited, "new", 0)
    edited.delete("new")
    edited.delete("a")
    rows = [row("new", "fe"), row("a", "ff")]
    assert beside(edited, rows, built="9999").apply(encode) == Applied(deleted=1, superseded=["new"])
    other = beside(edited, rows, built="2000")
    assert other.apply(encode) == Applied(deleted=2), "a table from before the deletion"
    assert hashes(other) == {}


def test_audio_that_is_gone_or_damaged_is_named_and_stops_nothing(edited):
    for number, track_id in enumerate(("gone", "damaged", "there")):
        add(edited, track_id, number)
    (edited.edits.folder / edited.edits.get("gone").audio).unlink()
    (edited.edits.folder / edited.edits.get("damaged").audio).write_bytes(b"fLaC")

    def decoding(flac):
        from mulan_core.audio.decode import decode_audio

        decode_audio(flac)
        return encode(flac)

    other = beside(edited, [row("a", "00")])
    assert other.apply(decoding) == Applied(added=1, left=["damaged", "gone"])
    assert set(hashes(other)) == {"a", "there"}
    assert edited.apply(decoding) == Applied(added=3), "where they are, they stay"


def test_windows_that_come_later_are_made_of_the_audio(edited):
    add(edited, "new", 0)
    edited.store.windows.build(edited.name, [])
    assert windows(edited) == set()
    assert edited.apply(encode, anew=True) == Applied(added=1)
    assert windows(edited) == {"new"}


@pytest.mark.parametrize("step", ["upsert", "delete"])
def test_a_collection_that_fails_leaves_no_record(edited, monkeypatch, step):
    def fails(*_, **__):
        raise StoreError("Milvus is away")

    monkeypatch.setattr(edited.store, step, fails)
    with pytest.raises(StoreError, match="away"):
        add(edited, "a", 0) if step == "upsert" else edited.delete("a")
    assert edited.edits.all() == [] and hashes(edited)["a"] == "00"


@pytest.mark.parametrize("cut", ["add", "delete"])
def test_a_process_that_dies_between_record_and_collection_is_mended(edited, monkeypatch, cut):
    """What it would have restored on an error it leaves: its record is the word that counts."""

    class Killed(BaseException):
        pass

    def dies(*_, **__):
        monkeypatch.setattr(edited.edits, "_write", lambda *_: None)
        monkeypatch.setattr(edited.edits, "_remove", lambda *_: None)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(edited.store, "upsert" if cut == "add" else "delete", dies)
        with pytest.raises(Killed):
            add(edited, "new", 0) if cut == "add" else edited.delete("a")
    fresh = EditedCollection(edited.store, Edits(edited.edits.location), edited.name)
    assert set(hashes(fresh)) == set("abcd")
    fresh.apply(encode)
    assert set(hashes(fresh)) == (set("abcd") | {"new"} if cut == "add" else set("bcd"))


@pytest.mark.parametrize("word", ["added", "deleted", "taken back"])
@pytest.mark.parametrize("while_", ["encoding", "writing"])
def test_who_writes_meanwhile_has_the_last_word(edited, monkeypatch, word, while_):
    """Another replica's write falls between this one's look at the record and its own write."""
    add(edited, "new", 0)
    other = beside(edited, [row("a", "00")])
    done = []

    def meanwhile():
        if not done:
            done.append(True)
            if word == "added":
                add(other, "new", 1)
            elif word == "deleted":
                other.delete("new")
            else:
                other.edits.forget("new")

    def encoding(flac):
        if while_ == "encoding":
            meanwhile()
        return encode(flac)

    upsert = edited.store.upsert

    def writing(*args, **more):
        if while_ == "writing" and len(args[1]) and not done:
            meanwhile()
        return upsert(*args, **more)

    monkeypatch.setattr(edited.store, "upsert", writing)
    other.apply(encoding)
    assert done
    last = other.edits.get("new")
    assert hashes(other).get("new") == (last.mark if word == "added" else None)
    assert other.apply(encode) == Applied(added=int(word == "added"), deleted=int(word == "deleted"))


def test_whatever_is_done_in_whatever_order_all_collections_agree(store, tmp_path_factory):
    """A plain model: what the catalogue says, and over it the last word of the API."""

    class Machine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            for name in store.collections.list_collections():
                store.collections.drop(name)
            edits = Edits(tmp_path_factory.mktemp("edits"))
            self.catalogue = {track_id: f"{number:02x}" for number, track_id in enumerate("abcd")}
            rows = [row(track_id, mark) for track_id, mark in self.catalogue.items()]
            self.both = []
            for name in ("tracks_1", "tracks_2"):
                build(store, name, rows)
                self.both.append(EditedCollection(store, edits, name))
            self.live, self.words = 0, {}

        @rule(track_id=st.sampled_from("abxy"), number=st.integers(0, 2), title=st.sampled_from(["", "T"]))
        def add(self, track_id, number, title):
            self.words[track_id] = add(self.both[self.live], track_id, number, title=title)["content_hash"]

        @rule(track_id=st.sampled_from("abcxy"))
        def delete(self, track_id):
            there = track_id in hashes(self.both[self.live])
            assert self.both[self.live].delete(track_id) is there
            self.words[track_id] = None

        @rule()
        def switch(self):
            before = self.both[self.live]
            self.live = 1 - self.live
            self.both[self.live].apply(encode, source=before.name)

        @rule(track_id=st.sampled_from("abcxy"))
        def take_back(self, track_id):
            assert self.both[0].edits.forget(track_id) is (self.words.pop(track_id, "none") != "none")
            self.both[self.live].apply(encode)

        @invariant()
        def the_live_one_has_what_was_said_last(self):
            said = {track_id: mark for track_id, mark in (self.catalogue | self.words).items() if mark is not None}
            assert hashes(self.both[self.live]) == said
            assert windows(self.both[self.live]) == set(said)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )

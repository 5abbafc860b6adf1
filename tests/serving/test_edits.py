"""Records of what was added and deleted over the API: whole or not at all, whatever the ids, here or in a bucket."""

import contextlib
import errno
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_fixtures import tone, wav

from mulan_core.audio.decode import AudioError, decode_audio
from mulan_core.errors import UserError
from serving import edits as module
from serving.edit import Edit
from serving.edits import Edits, to_flac
from serving.errors import StoreError

FIELDS = {"title": "T", "artist": "", "dataset": "added", "labels": ["genre:Jazz"]}


@pytest.fixture(params=["folder", "bucket"])
def edits(request, tmp_path):
    """An empty place; fsspec's file system in memory stands on URLs as buckets do."""
    place = tmp_path / "a home?of=100% [x]" / "edits" if request.param == "folder" else f"memory://{uuid.uuid4().hex}/e"
    made = Edits(place)
    yield made
    made.remove()


def add(edits, track_id, flac=b"flac", row_hash=None, **fields):
    with edits.adding(track_id, FIELDS | fields, flac, row_hash=row_hash) as edit:
        return edit


def delete(edits, track_id, row_hash=None):
    with edits.deleting(track_id, row_hash=row_hash) as edit:
        return edit


def files_of(edits):
    files, path = edits._files
    return sorted(str(name).rsplit("/", 1)[-1] for name in files.ls(path, detail=False)) if files.exists(path) else []


def test_the_last_word_counts_and_leaves_no_audio_behind(edits):
    assert edits.all() == [] and edits.get("a") is None
    first = add(edits, "a", b"one")
    assert edits.get("a") == first and edits.audio(first) == b"one" and len(files_of(edits)) == 2
    second = add(edits, "a", b"two")
    assert edits.audio(first) is None and edits.audio(second) == b"two" and first.mark != second.mark
    renamed = add(edits, "a", b"two", title="other")
    assert edits.audio(renamed) == b"two" and len({first.mark, second.mark, renamed.mark}) == 3
    gone = delete(edits, "a")
    other = add(edits, "b")
    assert edits.all() == [gone, other] and len(files_of(edits)) == 3
    assert edits.forget("a") and not edits.forget("a") and edits.all() == [other]


def test_where_the_collection_fails_the_word_before_stands(edits):
    kept = add(edits, "a", b"one")
    before = files_of(edits)
    for track_id, flac in (("a", b"two"), ("a", b"one"), ("b", b"one")):
        with pytest.raises(StoreError, match="away"), edits.adding(track_id, FIELDS, flac, row_hash=None):
            raise StoreError("away")
    with pytest.raises(StoreError, match="away"), edits.deleting("a", row_hash=None):
        raise StoreError("away")
    assert files_of(edits) == before and edits.all() == [kept] and edits.audio(kept) == b"one"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(track_id=st.text(min_size=1, max_size=600), title=st.text(max_size=20))
def test_any_id_has_a_file(edits, track_id, title):
    made = add(edits, track_id, title=title)
    assert edits.get(track_id) == made and edits.get(track_id + "x") is None
    edits.forget(track_id)


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("audio", [b"one", b"two", b"three"])
def test_who_ends_late_leaves_what_was_written_meanwhile(edits, fails, audio):
    """A write that outlived its turn neither takes back another's record, nor removes the audio that it names."""
    add(edits, "a", b"one")
    with contextlib.suppress(StoreError), edits.adding("a", FIELDS, b"two", row_hash=None):
        newer = add(edits, "a", audio, title="newer")
        if fails:
            raise StoreError("Milvus is away")
    assert edits.get("a") == newer and edits.audio(newer) == audio and len(files_of(edits)) == 2


def test_what_the_catalogue_had_is_remembered_through_edits(edits):
    assert add(edits, "a", row_hash="ab12").replaces == "ab12"
    assert add(edits, "a", b"two", row_hash=edits.get("a").mark).replaces == "ab12"
    assert delete(edits, "a", row_hash=edits.get("a").mark).replaces == "ab12"
    assert add(edits, "a", row_hash=None).replaces == "ab12"
    assert add(edits, "a", row_hash="cd34").replaces == "cd34", "the catalogue's row had come back"


@pytest.mark.parametrize(
    ("row_hash", "built", "holds"),
    [
        (None, "2026-01-03", True),
        ("added", "2026-01-03", True),
        ("added:12", "2026-01-03", True),
        ("ab12", "2026-01-03", True),
        ("cd34", "2026-01-03", False),
        ("cd34", "2026-01-01", True),
        ("cd34", "", True),
    ],
)
def test_the_newest_word_counts(row_hash, built, holds):
    assert Edit("a", "added", "2026-01-02", "ab12", FIELDS, "a.flac").holds(row_hash, built) is holds
    assert Edit("a", "deleted", "2026-01-02", "ab12").holds(row_hash, built), "until it is taken back"
    of_added = Edit("a", "deleted", "2026-01-02").holds(row_hash, built)
    assert of_added is (row_hash not in ("ab12", "cd34") or built < "2026-01-02"), "until a table brings the track"


def test_a_full_disk_is_one_sentence_and_nothing_is_left(edits, monkeypatch):
    kept = add(edits, "a", b"one")
    before, files = files_of(edits), type(edits._files[0])
    whole = files.pipe_file

    def full(self, path, value, **more):
        if failing in path:
            whole(self, path, value[: len(value) // 2], **more)
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(self, path, value, **more)

    monkeypatch.setattr(files, "pipe_file", full)
    for failing in (".flac", ".json"):  # noqa: B007 - read by full
        with pytest.raises(StoreError, match=r"^the disk of .* is full; free some of it and try again$"):
            add(edits, "b")
    monkeypatch.undo()
    assert files_of(edits) == before and edits.all() == [kept]


def test_kept_rows_are_of_one_collection_and_wait_for_the_record_to_go(edits):
    def kept(track_id):
        return {"track_id": track_id, "vector": np.array([0.6, 0.8], np.float32), "labels": ("l",)}

    window = {"track_id": "a", "place": 0, "start_s": 0.0, "end_s": 1.0, "vector": kept("a")["vector"]}
    add(edits, "a")
    edits.keep_row("tracks_1", kept("a"), [window])
    edits.keep_row("tracks_11", kept("b"), [])
    assert edits.taken_back("tracks_1") == [] and edits.taken_back("tracks_11") == ["b"]
    edits.forget("a")
    assert edits.taken_back("tracks_1") == ["a"] and edits.all() == []
    found, (cut,) = edits.kept_row("tracks_1", "a")
    assert np.array_equal(np.array(found["vector"], np.float32), kept("a")["vector"]) and found["labels"] == ["l"]
    assert cut["place"] == 0 and edits.kept_row("tracks_1", "b") is None
    edits.forget_rows("tracks_1")
    assert edits.kept_row("tracks_1", "a") is None and edits.taken_back("tracks_11") == ["b"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"track_id": "other"}', b"\xff"])
def test_a_damaged_record_is_named(edits, content):
    add(edits, "a")
    files, path = edits._files
    (record,) = [name for name in files_of(edits) if name.endswith(".json")]
    files.pipe_file(f"{path}/{record}", content)
    for look in (edits.all, lambda: edits.get("a")):
        with pytest.raises(UserError, match=rf"{record} is damaged, so what was done to a track"):
            look()


def test_many_at_once_keep_whole_records(edits):
    """One track at a time is written by one (``repeats.alone_at``); others read meanwhile."""
    done = threading.Event()

    def read():
        while not done.is_set():
            for edit in edits.all():
                assert edit.kind == "deleted" or edit.fields["title"] == edit.track_id

    def write(i):
        for _ in range(5):
            add(edits, f"t{i}", bytes([i]) * 1000, title=f"t{i}")
            delete(edits, f"t{i}")

    with ThreadPoolExecutor(9) as pool:
        reading = pool.submit(read)
        list(pool.map(write, range(8)))
        done.set()
        reading.result()
    assert [edit.kind for edit in edits.all()] == ["deleted"] * 8 and len(files_of(edits)) == 8


def test_another_place_has_all_of_it(tmp_path):
    edits, there = Edits(tmp_path / "old"), Edits(tmp_path / "new")
    edits.move(there.location)  # nothing yet
    made = add(edits, "a", b"one")
    edits.move(str(tmp_path / "old"))
    edits.move(there.location)
    assert there.all() == [made] and there.audio(made) == b"one" and edits.all() == []


@pytest.mark.parametrize(("rate_hz", "kept_hz"), [(8_000, 8_000), (44_100, 44_100), (48_000, 48_000), (96_000, 48_000)])
def test_audio_is_kept_at_its_own_rate(rate_hz, kept_hz):
    wave = tone(1, 1.0, rate_hz)
    flac = to_flac(wav(wave, rate_hz), max_s=20)
    kept, seconds = decode_audio(flac, sample_rate_hz=kept_hz)
    assert module.rate_of(flac) == kept_hz and seconds == pytest.approx(1.0, abs=1e-3)
    if rate_hz == kept_hz:
        assert np.abs(kept - wave).max() < 1e-4


def test_what_is_no_audio_is_not_kept():
    for data, reason in ((b"", "empty"), (b"RIFF", "undecodable"), (wav(tone(1, 30.0)), "too_long")):
        with pytest.raises(AudioError) as caught:
            to_flac(data, max_s=20)
        assert caught.value.reason == reason


def test_a_place_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/edits, where tracks added over the API are kept, cannot be used: "):
        add(Edits(tmp_path / "file" / "edits"), "a")
    with pytest.raises(StoreError, match="nowhere"):
        Edits("nowhere://x/y").all()
    assert "memory" in fsspec.available_protocols()

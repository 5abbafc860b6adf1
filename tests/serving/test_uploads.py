"""Uploads that mean harm, and tracks that come and go: 4xx or 200, memory that stays, nothing unpickled."""

import io
import json
import re
import sys
import threading

import numpy as np
import psutil
import pytest
import soundfile
from serving_fixtures import NUM_TRACKS, SERVE, check_error, ids, tone, wav

from mulan_core.data.names import MAX_LABELS
from serving.encoder import Encoder

pytestmark = pytest.mark.slow

UPLOADS = 150


def encoded(wave, kind, rate_hz=16_000):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate_hz, format=kind)
    return buffer.getvalue()


def mangle(random, whole):
    """A file that is broken in one of the ways that files are, or that someone thinks of."""
    kind = random.choice(sorted(whole))
    data = bytearray(whole[kind])
    how = random.integers(8)
    if how == 0:  # truncated
        del data[random.integers(len(data)) :]
    elif how == 1:  # the wrong container
        other = whole[random.choice(sorted(whole))]
        data[: random.integers(4, 64)] = other[: random.integers(4, 64)]
    elif how == 2:  # nothing, or nearly
        del data[random.integers(3) :]
    elif how == 3:  # a header that claims something else
        for _ in range(random.integers(1, 6)):
            data[random.integers(min(64, len(data)))] = random.choice([0, 0x7F, 0x80, 0xFF])
    elif how == 4:  # damage all over
        for place in random.integers(len(data), size=random.integers(1, 200)):
            data[place] = random.integers(256)
    elif how == 5:  # samples that are no numbers
        wave = tone(1).astype(np.float64)
        wave[random.integers(len(wave), size=3)] = random.choice([np.nan, np.inf, -np.inf])
        buffer = io.BytesIO()
        soundfile.write(buffer, wave, 16_000, format="WAV", subtype=random.choice(["FLOAT", "DOUBLE"]))
        data = bytearray(buffer.getvalue())
    elif how == 6:  # noise
        data = bytearray(random.bytes(random.integers(1, 5_000)))
    else:  # twice, one in the other
        data[len(data) // 2 : len(data) // 2] = data[:100]
    return bytes(data)


def send(client, count, seed):
    random = np.random.default_rng(seed)
    whole = {kind: encoded(tone(1), kind) for kind in ("WAV", "FLAC", "OGG", "MP3")}
    statuses = {}
    for _ in range(count):
        path = random.choice(["/v1/search", "/v1/tag", "/v1/embed"])
        response = client.post(path, files={"audio": ("x", mangle(random, whole))})
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        if response.status_code != 200:
            assert response.status_code == 422, response.text
            assert response.json()["error"]["code"].startswith("audio_"), response.text
    return statuses


def test_mangled_uploads_are_refused_and_leave_nothing_behind(bare):
    send(bare, 30, seed=1)
    process = psutil.Process()
    before = process.memory_info().rss, process.num_fds(), threading.active_count()
    statuses = send(bare, UPLOADS, seed=2)
    after = process.memory_info().rss, process.num_fds(), threading.active_count()
    assert statuses[422] > UPLOADS / 2, "a file may bear its damage, most do not"
    assert after[0] < before[0] + 40 * 2**20 and after[1] <= before[1] + 5 and after[2] <= before[2] + 5
    assert bare.post("/v1/embed", files={"audio": wav(tone(1))}).status_code == 200


@pytest.mark.load
def test_a_thousand_mangled_uploads(bare):
    send(bare, 100, seed=3)
    before = psutil.Process().memory_info().rss
    assert sum(send(bare, 1_000, seed=4).values()) == 1_000
    assert psutil.Process().memory_info().rss < before + 40 * 2**20


def hours_of_silence(hours, rate_hz=8_000):
    """A FLAC of silence, which packs a thousandfold, and the place of its length."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate_hz, 1, format="FLAC", subtype="PCM_16") as file:
        block = np.zeros(rate_hz * 600, np.int16)
        for _ in range(round(hours * 6)):
            file.write(block)
    return bytearray(buffer.getvalue())


def claim(flac, num_samples):
    """Write another length into a FLAC's header: 36 bits, 21 bytes into the file; 0 is "unknown"."""
    changed = bytearray(flac)
    changed[21] = (changed[21] & 0xF0) | (num_samples >> 32)
    changed[22:26] = (num_samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(changed)


def test_a_bomb_is_put_down_where_it_passes_the_limit(bare):
    """Two hours in 100 KB; SERVE takes 20 s. Whatever the header says, no more than that is decoded."""
    bomb = hours_of_silence(2.0)
    assert len(bomb) < 300_000
    claims = {"the truth": None, "ten hours": 10 * 3600 * 8_000, "unknown": 0, "five seconds": 5 * 8_000}
    bare.post("/v1/embed", files={"audio": wav(tone(1))})
    process, peak, done = psutil.Process(), [0], threading.Event()

    def watch():
        while not done.wait(0.002):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    before = process.memory_info().rss
    watcher.start()
    try:
        for what, length in claims.items():
            data = bytes(bomb) if length is None else claim(bomb, length)
            response = bare.post("/v1/embed", files={"audio": data})
            assert response.status_code == 422, what
            assert response.json()["error"]["code"] in ("audio_too_long", "audio_silent", "audio_undecodable"), what
            assert response.json()["error"]["code"] == "audio_too_long" or what == "five seconds"
            decode = re.search(r"decode;dur=([\d.]+)", response.headers.get("server-timing", ""))
            assert decode is None or float(decode[1]) < 1_000
    finally:
        done.set()
        watcher.join()
    # Two hours decoded are 440 MiB of float32 at 16 kHz.
    assert peak[0] - before < 60 * 2**20


def test_opening_a_model_unpickles_nothing(model_folder):
    """Python itself tells of every class that a pickle asks for."""
    asked, watching = [], True

    def hook(event, arguments):
        if watching and event == "pickle.find_class":
            asked.append(arguments)

    sys.addaudithook(hook)  # there is no way to take it off again
    try:
        Encoder(model_folder).warm_up()
    finally:
        watching = False
    assert asked == []


def test_a_track_comes_and_goes(bare, service, store, edits):
    audio = wav(tone(77))
    fields = {"track_id": "new/söng", "title": "New", "artist": "Ada", "labels": '["genre:Jazz"]'}
    before = bare.get("/v1/release").json()["num_tracks"]
    try:
        added = bare.post("/v1/tracks", files={"audio": audio}, data=fields)
        assert added.status_code == 200, added.text
        track = added.json()["track"]
        assert (track["track_id"], track["title"], track["labels"]) == ("new/söng", "New", ["genre:Jazz"])
        kept = edits.get("new/söng")
        assert ("new/söng", kept.mark) in [pair for page in store.scroll(service.release.collection) for pair in page]
        assert (track["dataset"], added.json()["replaced"]) == ("added", False)
        played = bare.get(track["audio_url"])
        assert (played.headers["content-type"], played.content) == ("audio/flac", edits.audio(kept))
        assert added.json()["timing_ms"]["store"] > 0
        assert bare.get("/v1/release").json()["num_tracks"] == before + 1
        found = bare.post("/v1/search", files={"audio": audio}, data={"k": "1"}).json()
        assert ids(found) == ["new/söng"] and found["hits"][0]["score"] == pytest.approx(1, abs=1e-4)
        assert (found["hits"][0]["start_s"], found["hits"][0]["end_s"]) in ((0, 2), (1, 3))
        narrow = {"text": "a", "filter": {"dataset": "added"}}
        assert ids(bare.post("/v1/search", json=narrow).json()) == ["new/söng"]
        again = bare.post("/v1/tracks", files={"audio": wav(tone(78))}, data=fields | {"title": ""}).json()
        assert again["replaced"] and again["track"]["title"] == "new/söng"
        assert bare.get("/v1/release").json()["num_tracks"] == before + 1
    finally:
        deleted = bare.delete("/v1/tracks/new%2Fs%C3%B6ng")
    assert deleted.json()["deleted"] == "new/söng"
    assert edits.get("new/söng").kind == "deleted" and not list(edits.folder.glob("*.flac"))
    assert bare.get("/v1/release").json()["num_tracks"] == before == NUM_TRACKS
    assert "new/söng" not in ids(bare.post("/v1/search", files={"audio": audio}).json())
    for address in ("new%2Fs%C3%B6ng", "a%0Db", "a%0A", "%00"):  # Milvus cannot be asked for a line break
        check_error(bare.delete(f"/v1/tracks/{address}"), 404, "not_found", "no track")
        check_error(bare.get(f"/v1/tracks/{address}"), 404, "not_found", "no track")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "track_id: .*required"),
        ({"track_id": " "}, "track_id: .*blanks at its edges"),
        ({"track_id": "x" * 513}, "track_id: .*at most 512"),
        ({"track_id": "a\nb"}, "track_id: .*control characters"),
        ({"track_id": "x", "labels": "jazz"}, "labels: must be JSON"),
        ({"track_id": "x", "labels": json.dumps([f"l{i}" for i in range(257)])}, "labels: .*256 labels"),
        ({"track_id": "x", "media_path": "/etc/passwd"}, "media_path: .*not permitted"),
    ],
)
def test_bad_tracks(bare, fields, words):
    check_error(bare.post("/v1/tracks", files={"audio": wav(tone(0))}, data=fields), 422, "invalid", words)
    assert bare.get("/v1/release").json()["num_tracks"] == NUM_TRACKS


def test_a_track_without_usable_audio_is_not_added(bare):
    for audio, code in ((b"", "audio_empty"), (wav(np.zeros(16_000)), "audio_silent"), (b"RIFF", "audio_undecodable")):
        check_error(bare.post("/v1/tracks", files={"audio": audio}, data={"track_id": "x"}), 422, code)
    check_error(bare.post("/v1/tracks", json={"track_id": "x"}), 415, "unsupported_media_type")
    over = b"x" * (SERVE.max_body_mb * 2**20)
    check_error(bare.post("/v1/tracks", files={"audio": over}, data={"track_id": "x"}), 413, "too_large")


def form_of(*parts, boundary=b"x"):
    """A form as bytes, of (head's end, content) each, without the last boundary."""
    head = b"--" + boundary + b"\r\nContent-Disposition: form-data; name="
    return b"".join(head + name + b"\r\n\r\n" + content + b"\r\n" for name, content in parts)


def post_form(client, body, path="/v1/tracks", charset=""):
    kind = f"multipart/form-data; boundary=x{charset}"
    return client.post(path, content=body, headers={"Content-Type": kind})


@pytest.mark.parametrize("raw", [b"\xe9", b"caf\xe9 bar", b"\xff\xfea\x00", b"\xed\xa0\x80", b"\xc3", b"\xf0\x9f\x8e"])
def test_text_of_a_form_that_is_not_utf_8_is_refused_by_field(bare, raw):
    audio = (b'"audio"; filename="caf\xe9.wav"', wav(tone(0, 0.6)))  # that name is read by nobody
    places = [("/v1/tracks", name) for name in ("track_id", "title", "artist", "dataset", "labels")]
    for path, name in [*places, ("/v1/search", "filter"), ("/v1/tag", "labels"), ("/v1/embed", "x")]:
        body = form_of(audio, (f'"{name}"'.encode(), raw)) + b"--x--"
        check_error(post_form(bare, body, path), 422, "invalid", f"^{name}: its bytes are not UTF-8 text; send it as")
    declared = post_form(bare, form_of(audio, (b'"track_id"', "é".encode())) + b"--x--", charset="; charset=us-ascii")
    check_error(declared, 422, "invalid", "^track_id: its bytes")
    assert bare.get("/v1/release").json()["num_tracks"] == NUM_TRACKS


def test_a_form_that_ends_early_is_told_so_wherever_it_is_cut(bare):
    audio = (b'"audio"; filename="a.wav"', wav(tone(0, 0.6)))
    whole = form_of((b'"track_id"', b"cut"), audio, (b'"title"', b"T")) + b"--x--"
    for end in {0, 1, 3, 20, 60, 90, 95, 120, 170, 500, *range(len(whole) - 70, len(whole), 3), len(whole) - 1}:
        check_error(post_form(bare, whole[:end]), 400, "bad_request", "the form ends early, before its last boundary")
    assert bare.get("/v1/release").json()["num_tracks"] == NUM_TRACKS
    for more in (b"", b"\r\n", b"\r\nand a word after it"):
        assert post_form(bare, whole + more).status_code == 200
    assert bare.delete("/v1/tracks/cut").status_code == 200


def test_labels_given_twice_are_kept_once(bare, store, service):
    labels = ["mood:Calm", "genre:Jazz", "", "mood:Calm", "calm", *["genre:Jazz"] * MAX_LABELS]
    fields = {"track_id": "twice", "labels": json.dumps(labels)}
    try:
        added = bare.post("/v1/tracks", files={"audio": wav(tone(0, 0.6))}, data=fields)
        assert added.json()["track"]["labels"] == ["mood:Calm", "genre:Jazz", "calm"]
        kept, _ = store.tracks.get(["twice"], collection=service.release.collection)["twice"]
        assert kept.labels == ("mood:Calm", "genre:Jazz", "calm")
    finally:
        bare.delete("/v1/tracks/twice")


@pytest.mark.parametrize("fault", ["damaged", "no folder"])
def test_records_that_cannot_be_used_are_a_503_that_names_no_place(bare, edits, fault, caplog):
    """Where they lie on the endpoint's machine is the operator's business, whom the log tells."""
    before = set(edits.folder.glob("*.json"))
    with edits.deleting("x9", row_hash=None):
        pass
    (record,) = set(edits.folder.glob("*.json")) - before if fault == "damaged" else [edits.folder]
    if fault == "damaged":
        record.write_text("{")
    else:
        edits.forget("x9")
        edits.folder.rename(edits.folder.with_name("away"))
        edits.folder.write_text("")
    try:
        answer = bare.post("/v1/tracks", files={"audio": wav(tone(77))}, data={"track_id": "x9"})
    finally:
        if fault == "damaged":
            record.unlink()
        else:
            edits.folder.unlink()
            edits.folder.with_name("away").rename(edits.folder)
    check_error(answer, 503, "store_failed", "; the endpoint's log")
    assert str(edits.folder.parent) not in answer.text and record.name not in answer.text
    assert [str(record) in line for line in caplog.messages if "cannot be used" in line or "is damaged" in line] == [
        True
    ]

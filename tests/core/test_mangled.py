"""Official files and manifests mangled at random: what comes is a manifest, or one sentence that says where.

The readers are the real ones, the files made by hand in the official layouts. No traceback is allowed, and nothing that
an import lets through may trouble the check of its manifest.
"""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reader_fixtures import (
    ANNOTATIONS,
    AUDIOSET,
    CAPTIONS,
    DESCRIBER,
    FMA,
    GENRES,
    INFO,
    LABELS,
    META,
    MUSIC4ALL,
    MUSICCAPS,
    TRACK,
    jamendo,
)

from mulan_core.config import PrepareConfig
from mulan_core.data.check import check_manifest
from mulan_core.errors import UserError
from mulan_core.readers import DATASETS
from mulan_core.readers.importing import import_tracks, write_manifest

JAMENDO = jamendo(train=[TRACK], validation=[TRACK.replace("948", "949")], test=[TRACK.replace("948", "950")])
OFFICIAL = {
    "audioset": (AUDIOSET, {"music_only": True, "expand_parents": True, "whole_videos": True}),
    "musiccaps": ({"musiccaps-public.csv": MUSICCAPS, "class_labels_indices.csv": LABELS}, {"whole_videos": True}),
    "magnatagatune": ({"annotations_final.csv": ANNOTATIONS, "clip_info_final.csv": INFO}, {"top": 2}),
    "mtg_jamendo": (JAMENDO | {"raw.meta.tsv": META}, {"subset": "genre"}),
    "fma": ({"tracks.csv": FMA, "genres.csv": GENRES}, {}),
    "song_describer": ({"song_describer.csv": DESCRIBER}, {}),
    "music4all": (MUSIC4ALL, {}),
}
"""Data set -> its official files and the options that read most of them; Parquet has a test of its own."""

ODD = [
    "",
    "x",
    "-1",
    "nan",
    "inf",
    "1e999",
    "-0",
    "9" * 5000,
    "[",
    "[" * 300,
    "{}",
    "['a'",
    "None",
    '"',
    "'",
    "../../x",
]
ODD += ["\0", "\u2028", "é", "\ud800", "\r", "a\nb", "---", "#", "\ufeff", "/m/04rlf", "true", "0" * 40, "²", "１"]


def fuzz(examples):
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


def change_cell(draw, text):
    delimiter = draw(st.sampled_from([",", "\t", '"', "'", " "]))
    cells = text.split(delimiter)
    cells[draw(st.integers(0, len(cells) - 1))] = draw(st.sampled_from(ODD) | st.text(max_size=5))
    return delimiter.join(cells)


def change_line(draw, text):
    lines = text.split("\n")
    place = draw(st.integers(0, len(lines) - 1))
    how = draw(st.sampled_from(["drop", "repeat", "ragged", "longer"]))
    if how == "ragged":
        lines[place] = lines[place][: draw(st.integers(0, len(lines[place])))]
    else:
        lines[place : place + 1] = {"drop": [], "repeat": 2 * [lines[place]], "longer": [lines[place] + ",x\ty"]}[how]
    return "\n".join(lines)


def change_delimiter(draw, text):
    found, put = draw(st.permutations([",", "\t", ";", "|", "\n", "\r\n"]))[:2]
    return text.replace(found, put)


def mangled(draw, content):
    """The bytes of a file after one to three changes."""
    text = content
    for _ in range(draw(st.integers(1, 3))):
        text = draw(st.sampled_from([change_cell, change_line, change_delimiter]))(draw, text)
    encoding = draw(st.sampled_from(["utf-8"] * 5 + ["utf-16", "latin-1", "utf-8-sig"]))
    data = bytearray(text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace"))
    for _ in range(draw(st.integers(0, 2))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.sampled_from([0, 0x0A, 0x22, 0x80, 0xFF]))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 4)) == 0 else data)


def told(error, folder):
    """One sentence that names a file or folder, or, where no file is to blame, what was looked for."""
    assert "\n" not in str(error) and len(str(error)) < 1500
    assert str(folder) in str(error)


def import_and_check(name, options, tmp_path):
    official, out = tmp_path / "official", tmp_path / "out" / "m.parquet"
    (tmp_path / "audio").mkdir(exist_ok=True)
    try:
        imported = import_tracks(DATASETS[name], official, str(tmp_path / "audio"), keep_missing=True, options=options)
    except UserError as error:
        told(error, official)
        return
    write_manifest(imported.table, out)
    report = check_manifest(out, PrepareConfig(), allow_outside=True)
    assert report["rows"] == len(imported.table)
    assert report["bad_rows"] == [], "what an import lets through is a whole manifest"
    assert report["reasons"] == {"missing": len(imported.table)}


@pytest.mark.parametrize("name", OFFICIAL)
@fuzz(60)
@given(data=st.data())
def test_an_import_of_mangled_files_is_a_manifest_or_a_sentence(tmp_path, name, data):
    files, options = OFFICIAL[name]
    shutil.rmtree(tmp_path / "official", ignore_errors=True)
    victim = data.draw(st.sampled_from(sorted(files)))
    for file, content in files.items():
        path = tmp_path / "official" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mangled(data.draw, content) if file == victim else content.encode())
    import_and_check(name, options, tmp_path)


VALUES = st.none() | st.integers() | st.floats() | st.sampled_from(ODD[:15]) | st.lists(st.integers() | st.text())


@fuzz(150)
@given(data=st.data())
def test_an_import_of_mangled_parquet_is_a_manifest_or_a_sentence(tmp_path, data):
    clip = {"ytid": "-aB", "start_s": "30", "end_s": "40", "aspect_list": "['calm']", "is_audioset_eval": "True"}
    clip |= {"audioset_positive_labels": "/m/04rlf"}
    song = {"path": "f/some_band-first_album-01-a_song-30-59.mp3", "tag_top188": ["beat"], "title": "A"}
    million = {"track_id": "TRIHXPZ128F1466744", "title": "T", "artist_name": "A", "tag": ["soul"]}
    row = data.draw(st.sampled_from([clip, song, million])) | CAPTIONS
    for column in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=2)):
        row = row | {column: data.draw(VALUES)}
    shutil.rmtree(tmp_path / "official", ignore_errors=True)
    (tmp_path / "official").mkdir()
    path = tmp_path / "official" / "test.parquet"
    try:
        pq.write_table(pa.Table.from_pylist([row, row]), path)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return  # no such file can exist
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 2))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    (tmp_path / "official" / "class_labels_indices.csv").write_text(LABELS)
    import_and_check("lp_musiccaps", {"whole_videos": True}, tmp_path)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """A folder with a usable file and two that are not; a manifest of them is mangled beside them."""
    folder = tmp_path_factory.mktemp("catalogue")
    wave = 0.1 * np.random.default_rng(0).standard_normal(16_000 * 4)
    soundfile.write(folder / "good.wav", wave, 16_000)
    whole = (folder / "good.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[:5000])
    (folder / "empty.flac").write_bytes(b"")
    return folder


MANIFEST = [
    {"uri": "good.wav", "split": "train", "text": "calm piano", "labels": "jazz|piano", "start_s": "0", "title": "A"},
    {"uri": "cut.wav", "split": "valid", "text": "loud", "labels": "rock", "start_s": "1", "title": "B"},
    {"uri": "empty.flac", "split": "test", "text": "sad", "labels": "", "start_s": "", "title": "C"},
    {"uri": "gone.mp3", "split": "test", "text": "a song", "labels": "pop", "start_s": "", "title": "D"},
]


def as_text(rows, kind):
    if kind == "jsonl":
        return "\n".join(json.dumps({key: value for key, value in row.items() if value}) for row in rows) + "\n"
    delimiter = "," if kind == "csv" else "\t"
    return "\n".join(delimiter.join(row) for row in [list(rows[0]), *(row.values() for row in rows)]) + "\n"


@fuzz(250)
@given(data=st.data())
def test_the_check_of_a_mangled_manifest_is_a_report_or_a_sentence(catalogue, data):
    kind = data.draw(st.sampled_from(["csv", "tsv", "jsonl"]))
    path = catalogue / f"m.{kind}"
    content = mangled(data.draw, as_text(MANIFEST, kind))
    path.write_bytes(content)
    try:
        report = check_manifest(path, PrepareConfig(min_s=1.0))
    except UserError as error:
        told(error, path)
        return
    json.dumps(report)
    numbers = [bad["row"] for bad in report["bad_rows"]]
    lines = content.count(b"\n") + content.count(b"\r") + 1
    assert numbers == sorted(numbers) and all(1 <= number <= lines for number in numbers)
    assert report["usable"] + len(report["bad_files"]) + len(report["bad_rows"]) == report["rows"], "nothing is lost"
    assert all("\n" not in problem for bad in report["bad_rows"] for problem in bad["problems"])
    assert all(file["reason"] and file["uri"] for file in report["bad_files"])


def test_a_name_that_no_disk_takes_is_a_missing_file(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(f"uri,text\n{'9' * 5000}.wav,calm\n")
    report = check_manifest(path, PrepareConfig())
    assert report["reasons"] == {"missing": 1}
    assert "too long" in report["bad_files"][0]["detail"]


def test_a_manifest_that_is_whole_is_checked_as_ever(catalogue):
    """What the test above mangles; without this it could pass on refusals alone."""
    for kind in ("csv", "tsv", "jsonl"):
        path = catalogue / f"whole.{kind}"
        path.write_text(as_text(MANIFEST, kind))
        report = check_manifest(path, PrepareConfig(min_s=1.0))
        assert (report["usable"], report["bad_rows"]) == (1, [])
        assert {file["uri"]: file["reason"] for file in report["bad_files"]}["gone.mp3"] == "missing"
    for name, (files, _) in OFFICIAL.items():
        assert files, name

"""What a track may be called: one rule in every format, told by row and column; what nobody typed stops nothing."""

import csv
import json
import os
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mulan_core.config import PrepareConfig
from mulan_core.data.check import check_manifest
from mulan_core.data.names import MAX_BYTES, MAX_LABELS, clean_name, title_of_file, unescaped, why_misnamed
from mulan_core.data.tracks import read_manifest
from mulan_core.errors import UserError
from mulan_core.readers.dataset import Dataset, Track
from mulan_core.readers.importing import import_tracks

ODD = [
    "a\xa0b",
    "a\u3000b",
    "a\u200db",
    "a\u200cb",
    "\u202eb",
    "e\u0301",
    "👩\u200d🎤",
    "\ufeffx",
    "\uffff",
    "<b>&amp;",
    "a%2Fb",
    "?#;\\+%",
]
BAD = ["a\nb", "a\tb", "\x00", "a\x7f", "a\x85b", "a\u2028b", "a\u2029", " a", "a ", "\xa0a", "a\u3000", " ", "\ud800"]
NO_IDS = [".", "..", "a/..", "../a", "a/./b", "/a", "a/", "a//b", "https://x.y/z", "a/audio", "a/b/audio", "/", "//"]
IDS = [
    "audio",
    "audio/b",
    "a/b",
    "...",
    "a..",
    "a/...",
    "Audio",
    "a/Audio",
    "%2e%2e",
    "a/audio.wav",
    "x" * 512,
    "ü" * 256,
]


def written(folder, kind, rows):
    """A manifest of these rows; lists are JSON in the cells of a CSV."""
    path = folder / f"m.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(ids=[*ODD, *IDS], names=ODD)
@given(
    ids=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=1, max_size=5, unique=True),
    names=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), max_size=5),
)
def test_what_the_rule_takes_comes_out_as_it_went_in_and_the_rest_is_told(tmp_path, kind, ids, names):
    name = names[0] if names else "x"
    rows = [
        {"track_id": i, "uri": f"{n}.wav", "title": name, "artist": name, "dataset": name, "labels": names}
        for n, i in enumerate(ids)
    ]
    path = written(tmp_path, kind, rows)
    labels = list(map(unescaped, names))  # web pages leave entities in them
    wrong = any(why_misnamed("title", name) for name in [name, *labels])
    bad = [wrong or why_misnamed("track_id", i) is not None for i in ids]
    if any(bad):
        with pytest.raises(UserError) as error:
            read_manifest(path)
        assert f"row {bad.index(True) + 1}, column '" in str(error.value)
        assert f"{sum(bad)} bad rows of {len(ids)}" in str(error.value) or sum(bad) == 1
        return
    read = read_manifest(path).to_pylist()
    once = {"labels": list(dict.fromkeys(labels))}
    assert [{key: row[key] for key in rows[0]} for row in read] == [row | once for row in rows]


@pytest.mark.parametrize("field", MAX_BYTES)
def test_the_rule(field):
    assert [name for name in ODD if why_misnamed(field, name)] == []
    assert [name for name in BAD if not why_misnamed(field, name)] == []
    assert [name for name in NO_IDS if bool(why_misnamed(field, name)) != (field == "track_id")] == []
    assert [name for name in IDS if field == "track_id" and why_misnamed(field, name)] == []
    most = MAX_BYTES[field]
    assert why_misnamed(field, "é" * (most // 2)) is None
    assert f"has {most + 1:,} bytes; at most {most:,} are taken" in why_misnamed(field, "é" * (most // 2) + "x")
    for name in [*ODD, *BAD, *NO_IDS, "é" * most]:
        cleaned = clean_name(field, name)
        assert not cleaned or field == "track_id" or why_misnamed(field, cleaned) is None
        assert field == "track_id" or cleaned == name or name in BAD or len(name) == most


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (
            "track_id",
            "a/audio",
            "column 'track_id': 'a/audio' ends in /audio, which is the address where a track plays",
        ),
        ("track_id", "..", "column 'track_id': '..' has a part '.' or '..'"),
        ("track_id", "lead ", "column 'track_id': 'lead ' has blanks at its edges; remove them"),
        ("title", "a\x07b", "column 'title': must not hold control characters or line breaks; remove U+0007"),
        ("artist", " Ann", "column 'artist': ' Ann' has blanks at its edges"),
        ("artist", 1975, "column 'artist': expected text, got 1975"),
        ("labels", ["x", "genre:Jazz\u3000"], "column 'labels': 'genre:Jazz\\u3000' has blanks"),
        (
            "labels",
            [f"{i}" for i in range(MAX_LABELS + 1)],
            "column 'labels': a track may carry 256 labels, this one has 257",
        ),
        ("dataset", "d" * 257, "column 'dataset': "),
    ],
)
def test_row_and_column_are_told(tmp_path, field, value, words):
    good = {"track_id": "a", "uri": "a.wav"}
    for kind in ("jsonl", "parquet"):
        path = written(tmp_path, kind, [{"track_id": "b", "uri": "b.wav", field: value}])
        with pytest.raises(UserError) as error:
            read_manifest(path)
        assert f"row 1, {words}" in str(error.value) and "\n" not in str(error.value)
    path = written(tmp_path, "jsonl", [good, {"track_id": "b", "uri": "b.wav", field: value}])
    problems = check_manifest(path, PrepareConfig())["bad_rows"]
    assert [row["row"] for row in problems] == [2] and problems[0]["problems"][0].startswith(words)


def test_a_label_is_held_to_one_rule_in_cells_and_in_json_and_empty_names_are_none(tmp_path):
    path = tmp_path / "m.csv"
    for cell in ("rock| jazz ", "rock ;jazz", '"[""rock"", "" jazz ""]"'):
        path.write_text(f"uri,labels\na.wav,{cell}\n")
        with pytest.raises(UserError, match=r"row 1, column 'labels': '.*' has blanks at its edges; remove them"):
            read_manifest(path)
    path.write_text("uri,track_id,title,artist,labels\na.wav,,,,rock;genre:Jazz|\n")
    row = read_manifest(path).to_pylist()[0]
    assert (row["labels"], row["title"], row["artist"], len(row["track_id"])) == (
        ["rock", "genre:Jazz"],
        None,
        None,
        16,
    )
    path = written(tmp_path, "jsonl", [{"uri": "a.wav", "track_id": "", "title": "", "dataset": "", "labels": [""]}])
    row = read_manifest(path).to_pylist()[0]
    assert (row["dataset"], row["labels"], len(row["track_id"])) == ("m", [], 16)


def test_ids_that_look_the_same_are_two_and_the_check_says_so(tmp_path):
    ids = ["caf\u00e9", "cafe\u0301", "x", "日本"]
    path = written(tmp_path, "jsonl", [{"track_id": i, "uri": "a.wav"} for i in ids])
    assert read_manifest(path)["track_id"].to_pylist() == ids
    warnings = check_manifest(path, PrepareConfig())["warnings"]
    assert len(warnings) == 1 and r"'caf\xe9'" in warnings[0] and r"'cafe\u0301'" in warnings[0]
    assert not any(unicodedata.normalize("NFC", word) != word for word in warnings), "told in letters anyone can read"


def test_no_name_in_a_folder_stops_the_others(tmp_path):
    """Names of files are nobody's typing: one that a table cannot hold is put aside by name."""
    folder = tmp_path / " odd\nfolder "
    folder.mkdir()
    names = [
        b"good.wav",
        b"caf\xe9.wav",
        b"caf\xe8.wav",
        b"a::b.wav",
        b"new\nline.wav",
        b" lead .wav",
        "é ü.wav".encode(),
    ]
    for name in names:
        with (folder / os.fsdecode(name)).open("wb") as file:
            soundfile.write(file, np.full(64_000, 0.1), 16_000, format="WAV")
    rows = read_manifest(folder).to_pylist()
    assert len(rows) == len(names) and {row["dataset"] for row in rows} == {"odd folder"}
    assert all(why_misnamed("title", row["title"]) is None for row in rows)
    report = check_manifest(folder, PrepareConfig())
    assert report["usable"] == 4 and report["bad_rows"] == []
    bad = {file["uri"]: file["detail"] for file in report["bad_files"]}
    assert sorted(bad) == [r"a:\x3ab.wav", r"caf\xe8.wav", r"caf\xe9.wav"]
    assert all("rename the file" in detail for detail in bad.values())


def test_an_import_cleans_names_and_refuses_a_broken_id(tmp_path):
    (tmp_path / "a.wav").touch()

    def dataset(**fields):
        track = {"track_id": "set:1", "audio": ("a.wav",), "split": "test"} | fields
        facts = dict.fromkeys(("tracks", "about", "license", "size", "home"), "")
        read = lambda folder, notes: iter([Track(**track)])  # noqa: E731
        return Dataset(name="set", title="A Set", files=(), ids=None, read=read, **facts)

    odd = dataset(title=" One\r\nTwo ", artist="\x00", labels=[" a ", "\n", "b" * 600])
    row = import_tracks(odd, tmp_path, str(tmp_path)).table.to_pylist()[0]
    assert (row["title"], row["artist"], row["labels"]) == ("One Two", None, ["a", "b" * 512])
    with pytest.raises(UserError, match=r"track 1 of A Set in .*: its id 'set:1/audio' ends in /audio"):
        import_tracks(dataset(track_id="set:1/audio"), tmp_path, str(tmp_path))


UNSEEN = st.text(
    st.sampled_from(
        "\u200b\u200c\u200d\u200e\u200f\u2060\u2063\ufeff\u00ad\u034f\u061c"
        "\u115f\u3164\uffa0\u180e\ufe0f\U000e0041 \xa0\u2800"
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(
    field=st.sampled_from(sorted(MAX_BYTES)),
    unseen=UNSEEN,
    letters=st.sampled_from(["a", "é", "日", "👩", "\u0301", "7", "."]),
)
def test_a_name_shows_something(field, unseen, letters):
    """What cannot be seen names nothing alone, and is a part of a name beside what can be."""
    refused = why_misnamed(field, unseen)
    assert refused and ("nothing that can be seen" in refused or "blanks at its edges" in refused)
    assert clean_name(field, unseen) == ""
    if field != "track_id" or letters != ".":
        name = f"{letters}{unseen}{letters}"
        assert why_misnamed(field, name) is None and clean_name(field, name) == name


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_given_twice_are_kept_once(tmp_path, kind):
    labels = ["calm", "genre:Jazz", "calm", *["genre:Jazz"] * MAX_LABELS, "a"]
    path = written(tmp_path, kind, [{"uri": "a.wav", "labels": labels}])
    assert read_manifest(path)["labels"].to_pylist() == [["calm", "genre:Jazz", "a"]]


@pytest.mark.parametrize(
    ("uri", "title"),
    [
        ("music/0001.flac", "0001"),
        ("/a b/sad_piano v2.0.mp3", "sad piano v2.0"),
        ("https://x.org/a/Blue%20Moon.mp3?v=2#t", "Blue Moon"),
        ("s3://bucket/a/b.wav", "b"),
        ("file:///a/100%25.wav", "100%"),
        ("100% love.wav", "100% love"),
        ("what?.wav", "what?"),
        (".wav", ".wav"),
        ("a\nb.wav", "a b"),
        ("x" * 5_000 + ".wav", "x" * MAX_BYTES["title"]),
    ],
)
def test_a_track_without_a_title_is_called_as_its_file(uri, title):
    assert title_of_file(uri) == title and not why_misnamed("title", title_of_file(uri))

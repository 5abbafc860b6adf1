"""Manifests: what is read from each format and how mistakes are told."""

import gc
import json
import os
import re
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mulan_core.config import PrepareConfig
from mulan_core.data.check import check_manifest
from mulan_core.data.clips import fetch_clip
from mulan_core.data.rows import SPLITS, hashed_split
from mulan_core.data.tables import Problems
from mulan_core.data.tracks import SCHEMA, open_manifest, read_manifest, read_playlists
from mulan_core.data.uris import locate, root_of
from mulan_core.errors import UserError
from mulan_core.text.filters import filter_texts

ROW = {"track_id": "a", "uri": "a.wav", "split": "train", "texts": [{"source": "lf", "text": "A calm song."}]}


def write_jsonl(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_two_columns_are_enough_in_csv(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("uri,text\nx.mp3,calm piano\ny.mp3,\n", encoding="utf-8-sig")
    rows = read_manifest(path).to_pylist()
    assert [row["texts"] for row in rows] == [[{"source": "sf", "text": "calm piano"}], []]
    assert {row["dataset"] for row in rows} == {"mine"}
    assert rows[0]["track_id"] != rows[1]["track_id"]
    assert read_manifest(path).to_pylist() == rows, "ids and splits must not change from run to run"


TAGS = "piano, calm, rainy evening, slow waltz, lo-fi, tape hiss, female vocals, 90s, live"


@pytest.mark.parametrize(
    ("typed", "sources"),
    [
        ("calm piano", ["sf"]),
        ("calm piano, rainy evening", ["sf"]),
        ("A song about a dog that is lame", ["sf"]),
        ("Recorded in one take with two acoustic guitars and a warm upright bass", ["lf"]),
        ("Made with love: warm lo-fi piano, a soft kick drum and rain at the window", ["lf"]),
        ("A slow waltz for piano. It was played by two hands, live, in a church.", ["lf"]),
        (TAGS, ["sf"] * 9),
        (TAGS.replace(", ", " | "), ["sf"] * 9),
        (TAGS.replace(", ", "; "), ["sf"] * 9),
        (f"{TAGS}, a voice that sings of the sea", ["lf"]),
    ],
)
def test_nothing_that_is_typed_into_text_is_lost_for_its_length(tmp_path, typed, sources):
    rows = [{"uri": "a.wav", "text": typed}]
    path = write_jsonl(tmp_path / "m.jsonl", rows)
    (texts,) = read_manifest(path)["texts"].to_pylist()
    assert [text["source"] for text in texts] == sources
    assert "".join(text["text"] for text in texts) == (typed if len(sources) == 1 else re.sub(r" ?[,;|] ", "", typed))
    assert {text["drop"] for text in filter_texts(texts)} == {None}


@pytest.mark.parametrize("rows", [1, 9, 40, 120, 499, 500])
def test_a_small_catalogue_has_a_tenth_of_its_tracks_in_each_small_split(tmp_path, rows):
    table = [{"uri": f"audio/demo-{i:05}.flac", "text": "x"} for i in range(rows)]
    found = read_manifest(write_jsonl(tmp_path / "m.jsonl", table)).to_pylist()
    assert found == read_manifest(tmp_path / "m.jsonl").to_pylist(), "ids and splits must not change from run to run"
    counts = {split: [row["split"] for row in found].count(split) for split in SPLITS}
    if rows < 500:
        assert min(counts["test"], counts["valid"]) >= rows // 10, "by their hashes 4 of 120 are test"
    moved = [row for row in found if row["split"] != hashed_split(row["track_id"])]
    assert all(hashed_split(row["track_id"]) == "train" for row in moved) and len(moved) < 20
    assert not moved or rows < 500
    given = [row | {"split": ("train", "")[i % 2]} for i, row in enumerate(table)]
    kept = read_manifest(write_jsonl(tmp_path / "m.jsonl", given)).to_pylist()
    assert all(row["split"] == "train" for row in kept[::2]), "what somebody gave stays"


def test_formats_agree(tmp_path):
    rows = [ROW | {"labels": ["jazz", "piano"], "duration_s": 3.5, "mine": 7}]
    by_jsonl = read_manifest(write_jsonl(tmp_path / "m.jsonl", rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    cells = [str(v) if not isinstance(v, list) else json.dumps(v) for v in rows[0].values()]
    (tmp_path / "m.tsv").write_text("\t".join(rows[0]) + "\n" + "\t".join(cells) + "\n")
    for name in ("m.parquet", "m.tsv"):
        table = read_manifest(tmp_path / name)
        assert table.select(SCHEMA.names).to_pylist() == by_jsonl.select(SCHEMA.names).to_pylist()
    assert by_jsonl["mine"].to_pylist() == [7]


def test_labels_in_a_cell_may_be_split_by_bars_or_semicolons(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('uri,text,labels\nx.mp3,t,"jazz|piano"\ny.mp3,t,"rock;guitar|"\n')
    assert read_manifest(path)["labels"].to_pylist() == [["jazz", "piano"], ["rock", "guitar"]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"uri": 5}, "row 2, column 'uri': expected text, got 5"),
        ({"uri": None}, "row 2, column 'uri': a value is required"),
        ({"duration_s": "long"}, "row 2, column 'duration_s': expected seconds (a number from 0), got 'long'"),
        ({"start_s": -1}, "row 2, column 'start_s'"),
        ({"split": "dev"}, "row 2, column 'split': 'dev' is not one of train, valid, test"),
        ({"labels": [1]}, "row 2, column 'labels': expected a list of text, got [1]"),
        ({"texts": [{"source": "blog", "text": "x"}]}, "row 2, column 'texts': expected {source, text}"),
        ({"track_id": "a"}, "id 'a' stands in row 1 and again in row 2"),
    ],
)
def test_wrong_values_are_told_with_row_and_column(tmp_path, change, sentence):
    path = write_jsonl(tmp_path / "m.jsonl", [ROW, ROW | {"track_id": "b"} | change])
    with pytest.raises(UserError) as error:
        read_manifest(path)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("missing.csv", None, "there is no file"),
        ("empty.csv", "uri,text\n", "has no rows"),
        ("m.csv", "path,text\na,b\n", "has no column 'uri'; did you mean 'path'?"),
        ("m.csv", "uri,text\na,b,c\n", "row 1, line 2: more cells than the header"),
        ("m.jsonl", "{nope", "row 1, not valid JSON"),
        ("m.jsonl", "[1]", "must be one JSON object a line"),
        ("m.parquet", "not parquet", "cannot read"),
        ("m.csv", "uri;text\na;b\n", "looks separated by semicolons, not commas"),
        ("m.csv", "uri\ttext\na\tb\n", "looks separated by tabs, not commas; give it the ending .tsv"),
        ("m.tsv", "uri,text\na,b\n", "looks separated by commas, not tabs"),
        ("m.csv", "uri,text,text\na,b,c\n", "two columns with the name 'text'"),
        ("m.csv", "uri,text\na.wav\n", "row 1, line 2: fewer cells than the header has columns (1, 2)"),
        ("m.csv", 'uri,text\na.wav,"one\n\nb.wav,two\n', "row 1, line 4: unexpected end of data"),
        ("m.csv", "uri,audio\na,b\n", "a column 'audio', a name that prepare itself uses"),
        ("m.csv", "uri,text\nftp://x/a.wav,b\n", "row 1, column 'uri': 'ftp://x/a.wav' is not a path or a URL"),
        ("m.jsonl", '{"uri": "a", "n": 1}\n{"uri": "b", "n": "x"}', "column 'n' mixes types"),
        ("m.jsonl", '{"uri": "a", "start_s": 1' + "0" * 5000 + "}", "row 1, not valid JSON"),
        ("m.jsonl", '{"uri": "a", "title": "\\ud800"}', "row 1, column 'title': the code U+D800 is not UTF-8"),
        ("m.jsonl", "[" * 100_000, "row 1, not valid JSON"),
        ("m.txt", "x", "must be .parquet, .csv, .tsv, .jsonl, .xlsx or .ods"),
    ],
)
def test_broken_files_are_one_sentence(tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        read_manifest(tmp_path / name)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_playlists(tmp_path):
    good = {"playlist_id": "p", "title": "Calm", "description": "Slow piano", "track_ids": ["a"], "split": "test"}
    assert read_playlists(write_jsonl(tmp_path / "p.jsonl", [good])).to_pylist() == [good]
    with pytest.raises(UserError, match="row 1, column 'title': a value is required"):
        read_playlists(write_jsonl(tmp_path / "q.jsonl", [good | {"title": ""}]))


def test_relative_uris_start_at_the_manifest(tmp_path):
    assert locate("audio/x.wav", root_of(tmp_path / "m.csv")) == str(tmp_path / "audio/x.wav")
    assert locate("/music/x.wav", root_of(tmp_path / "m.csv")) == "/music/x.wav"
    assert locate("s3://bucket/x.wav", root_of(tmp_path / "m.csv")) == "s3://bucket/x.wav"


def test_encodings(tmp_path):
    path = tmp_path / "m.csv"
    lines = [b"uri,text", "a.wav,h\u00e9llo".encode(), b"b.wav,h\xe9llo", b"c.wav,plain"]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    with pytest.raises(
        UserError, match=r"row 2, column 'text': the byte 0xE9 is not UTF-8 text; save the table as UTF-8"
    ):
        read_manifest(path)
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines[:2] + lines[3:]))
    assert [row["texts"][0]["text"] for row in read_manifest(path).to_pylist()] == ["h\u00e9llo", "plain"]
    path.write_text("uri,text\na,b\n", encoding="utf-16")
    with pytest.raises(UserError, match="is encoded in UTF-16; save it as UTF-8"):
        read_manifest(path)


def test_half_of_10_000_rows_bad_and_every_one_told(tmp_path):
    """Five kinds of mistakes, through all chunks; the first few in one sentence, all of them in the check."""
    kinds = [
        lambda i: f"{i}.wav,a,b,c",
        lambda i: f",no uri {i},train",
        lambda i: f"{i}.wav,x,dev",
        lambda i: "0.wav,x,train",  # the uri of row 1, so its id
        lambda i: f"{i}.wav",
    ]
    lines = [f"{i}.wav,piano,train" if i % 2 == 0 else kinds[i // 2 % 5](i) for i in range(10_000)]
    path = tmp_path / "m.csv"
    path.write_text("\n".join(["uri,text,split", *lines]))
    with pytest.raises(UserError) as error:
        read_manifest(path)
    sentence = str(error.value)
    assert f"{path} has 5,000 bad rows of 10,000: row 2, line 3: more cells" in sentence
    assert sentence.endswith("and 4,995 more (`mulan data check` lists all)")
    report = check_manifest(path, PrepareConfig())
    assert [row["row"] for row in report["bad_rows"]] == list(range(2, 10_001, 2))
    assert report["rows"] == 10_000
    assert report["duplicate_ids"] == 1_000
    assert report["reasons"] == {"missing": 5_000}, "the good rows name files that are not there"


def test_rows_stream(tmp_path):
    """Ten times the rows take no more than what is kept of each id."""

    def peak(num_rows):
        path = tmp_path / f"{num_rows}.csv"
        with path.open("w") as file:
            file.write("uri,text\n")
            file.writelines(f"{i}.wav,{'word ' * 40}\n" for i in range(num_rows))
        # Python sweeps rarely in a process that holds much already, as one with many tests behind it does, and what
        # threads of those allocate counts as well.
        gc.collect()
        gc.freeze()
        gc.collect()
        tracemalloc.start()
        try:
            with open_manifest(path) as manifest:
                assert sum(map(len, manifest.batches)) == num_rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.unfreeze()

    small = min(peak(5_000) for _ in range(3))
    assert any((peak(50_000) - small) / 45_000 < 250 for _ in range(3)), (
        "bytes a row; a row's text alone has 200, and its objects a kilobyte"
    )


def test_paths_outside_the_catalogue_need_a_word(tmp_path):
    folder = tmp_path / "music"
    folder.mkdir()
    inside = ["a.wav", "b/../c.wav", str(folder / "d.wav"), f"file://{folder}/e%20f.wav", "https://x.org/g.wav"]
    outside = ["../h.wav", "/etc/passwd", "b/../../music2/i.wav", "file:///etc/passwd"]
    path = write_jsonl(folder / "m.jsonl", [{"uri": uri} for uri in inside + outside])
    with open_manifest(path, problems=(problems := Problems(str(path))), allow_outside=False) as manifest:
        assert [uri for batch in manifest.batches for uri in batch["uri"].to_pylist()] == inside
    assert [number for number, _ in problems.bad_rows] == [6, 7, 8, 9]
    (outside_said,) = problems.bad_rows[0][1]
    assert "lies outside" in outside_said and "--allow-outside" in outside_said
    assert len(read_manifest(path, allow_outside=True)) == 9
    assert locate(inside[3], root_of(path)) == str(folder / "e f.wav")


def test_everything_that_is_wrong_with_a_row_is_told_and_an_id_of_a_bad_row_is_taken(tmp_path):
    wrong = {
        "uri": "",
        "split": "dev",
        "labels": [1],
        "start_s": "long",
        "title": " x",
        "artist": 3,
        "license": "\ud800",
    }
    rows = [ROW | wrong, ROW, ROW | {"track_id": "b", "uri": "../b.wav", "texts": 3}, ROW | {"track_id": "b"}]
    path = write_jsonl(tmp_path / "m.jsonl", rows)
    report = check_manifest(path, PrepareConfig())
    first, second, third, fourth = (row["problems"] for row in report["bad_rows"])
    assert sorted(one.split("'")[1] for one in first) == sorted(wrong)
    assert second == ["id 'a' stands in row 1 and again in row 2"]
    assert ["texts" in third[0], "lies outside" in third[1], len(third)] == [True, True, 2]
    assert fourth == ["id 'b' stands in row 3 and again in row 4"]
    assert (report["duplicate_ids"], report["rows"]) == (2, 4)
    with pytest.raises(UserError, match=r"row 1, .*license.* \(and 6 more\); row 2, id 'a'"):
        read_manifest(path)
    twice = {"playlist_id": "p", "title": "", "track_ids": 3}
    with pytest.raises(UserError, match=r"row 1, .*title.* \(and 1 more\); row 2, .*title.* \(and 2 more\)"):
        read_playlists(write_jsonl(tmp_path / "p.jsonl", [twice, twice]))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"labels": "[jazz]"}, '\'[jazz]\' is not valid JSON from character 2 on; write ["a", "b"] or a|b'),
        ({"labels": "[" * 9000}, "is nested too deeply"),
        ({"texts": "piano"}, '\'piano\' is not valid JSON from character 1 on; write [{"source": "sf"'),
        ({"texts": "[{]"}, "is not valid JSON from character 3 on"),
        ({"start_s": "0,002"}, "got '0,002'; a number has no comma: write 0.002"),
        ({"duration_s": "1,000"}, "got '1,000'; a number has no comma: write 1000 or 1.000"),
    ],
)
def test_a_cell_is_told_in_our_words(tmp_path, cells, words):
    path = write_jsonl(tmp_path / "m.jsonl", [{"uri": "a.wav"} | cells])
    with pytest.raises(UserError) as error:
        read_manifest(path)
    assert words in str(error.value) and "Expecting" not in str(error.value)
    path = tmp_path / "m.csv"
    path.write_text("uri,start_s\na.wav,0,002\n")
    with pytest.raises(UserError, match=r"more cells than .*put a cell that holds one of the commas in quotes"):
        read_manifest(path)


def test_passwords_in_uris_are_told_nowhere(tmp_path):
    places = ["127.0.0.1:9/a.wav", "127.0.0.1:9/b.wav?X-Amz-Signature=SECRET", "10.0.0.1/x@y.wav?sig=SECRET&v=2"]
    uris = [f"http://me:SECRET@{place}" for place in places]
    uris += ["http://me:SEC/SECRET@127.0.0.1:9/c.wav", "http://SECRET@10.0.0.1/d.wav", "ftp://me:SECRET@x.org/e.wav"]
    uris += ["/gone/http://me:SECRET@x/e.wav", f"http://me:{'x' * 80}SECRET@127.0.0.1:9/{'y' * 200}"]
    path = write_jsonl(tmp_path / "m.jsonl", [{"uri": uri, "title": f" {uri}"} for uri in [*uris, *uris]])
    for config in (PrepareConfig(), PrepareConfig(allow_private=True)):
        report = json.dumps(check_manifest(path, config))
        assert "SECRET" not in report and "***@127.0.0.1" in report
        with pytest.raises(UserError) as error:
            read_manifest(path, allow_private=config.allow_private)
        assert "SECRET" not in str(error.value) and "x" * 60 not in str(error.value)
    good = write_jsonl(tmp_path / "good.jsonl", [{"uri": uri} for uri in uris[:2]])
    report = check_manifest(good, PrepareConfig(allow_private=True))
    assert report["reasons"] == {"missing": 2} and "SECRET" not in json.dumps(report)
    row = {"uri": uris[0], "start_s": None, "duration_s": None, "known": None}
    for config in (PrepareConfig(), PrepareConfig(allow_private=True)):
        put_aside = fetch_clip(row, config, tmp_path)
        assert put_aside["reason"] and "SECRET" not in put_aside["detail"]
    with pytest.raises(UserError) as error:
        read_manifest("http://me:SECRET@127.0.0.1:9/m.csv")
    assert "SECRET" not in str(error.value)


def test_what_stands_in_a_files_place_is_said_and_never_waited_for(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    uris = {"folder.wav": "is a folder, and a file", "pipe.wav": "is a pipe", "a.wav/b.wav": "there is no file"}
    path = write_jsonl(tmp_path / "m.jsonl", [{"uri": uri} for uri in uris])
    report = check_manifest(path, PrepareConfig())
    assert report["reasons"] == {"missing": 3}
    for file in report["bad_files"]:
        assert uris[file["uri"]] in file["detail"]
        row = {"uri": str(tmp_path / file["uri"]), "start_s": None, "duration_s": None, "known": None}
        assert uris[file["uri"]] in fetch_clip(row, PrepareConfig(), tmp_path)["detail"]
    (tmp_path / "p.jsonl").mkdir()
    with pytest.raises(UserError, match="is a folder, and a file is needed; give the path of a"):
        read_playlists(tmp_path / "p.jsonl")


def test_check_tells_what_prepare_would_say(tmp_path):
    import numpy as np
    import soundfile

    wave = 0.1 * np.random.default_rng(0).standard_normal(16_000 * 5)
    soundfile.write(tmp_path / "good.wav", wave, 16_000)
    soundfile.write(tmp_path / "short.flac", wave[:9_000], 16_000)
    (tmp_path / "junk.mp3").write_bytes(b"junk" * 100)
    texts = [{"source": "lf", "text": "first!!"}, {"source": "sf", "text": "piano"}]
    rows = [{"uri": uri, "split": "train", "texts": texts} for uri in ("good.wav", "short.flac", "junk.mp3", "no.wav")]
    path = write_jsonl(tmp_path / "m.jsonl", [*rows, {"uri": 5}])
    report = check_manifest(path, PrepareConfig(clip_s=4.0))
    assert report["reasons"] == {"too_short": 1, "undecodable": 1, "missing": 1}
    assert [file["uri"] for file in report["bad_files"]] == ["short.flac", "junk.mp3", "no.wav"]
    assert (report["rows"], report["usable"], report["splits"]) == (5, 1, {"train": 1})
    assert report["hours"] == round(4 / 3600, 3)
    assert (report["without_text"], report["warnings"]) == (0, [])
    table = tmp_path / "empty.csv"
    table.write_text("track_id,uri,text\na,good.wav,\nb,good.wav,piano\nc,good.wav, \n")
    told = check_manifest(table, PrepareConfig(clip_s=4.0))
    assert told["without_text"] == 2 and "2 of 3 usable tracks have no text" in told["warnings"][0]
    assert report["texts"] == {"lf": {"before": 1, "after": 0}, "sf": {"before": 1, "after": 1}}
    assert report["bad_rows"] == [{"row": 5, "problems": ["column 'uri': expected text, got 5"]}]


CELLS = st.one_of(st.text(max_size=20), st.sampled_from(["a.wav", "../x", "[1", "1e999", "nan", '"', "\0", "s3://b/k"]))
ROWS = st.dictionaries(
    st.sampled_from([*SCHEMA.names, "text", "mine"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | CELLS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["source", "text"]), inner),
        max_leaves=5,
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_table_holds_it_is_read_or_refused_in_a_sentence(tmp_path, data):
    kind = data.draw(st.sampled_from(["csv", "tsv", "jsonl", "parquet"]))
    path = tmp_path / f"fuzz.{kind}"
    rows = data.draw(st.lists(ROWS, max_size=6))
    if kind == "jsonl":
        content = "\n".join(map(json.dumps, rows)).encode()
    elif kind == "parquet":
        path.unlink(missing_ok=True)
        table = pa.table({"uri": [str(i) for i in range(50)], "text": ["x"] * 50})
        pq.write_table(table, path)
        content = path.read_bytes()
    else:
        header = data.draw(st.lists(st.sampled_from(["uri", "text", "split", "start_s", "labels", ""]), max_size=5))
        cells = [header, *data.draw(st.lists(st.lists(CELLS, max_size=5), max_size=6))]
        joined = "\n".join(("," if kind == "csv" else "\t").join(row) for row in cells)
        content = joined.encode("utf-8", "surrogatepass")
    content = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        table = read_manifest(path, allow_outside=False)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert len(table) and table.schema.names[: len(SCHEMA)] == SCHEMA.names

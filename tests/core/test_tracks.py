"""Manifests: what is read from each format and how mistakes are told."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mulan_core.data.tracks import SCHEMA, read_manifest, read_playlists
from mulan_core.data.uris import locate, root_of
from mulan_core.errors import UserError

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
    path.write_text('uri,text,labels\nx.mp3,t,"jazz|piano"\ny.mp3,t,"rock; guitar"\n')
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
        ("m.csv", "path,text\na,b\n", "has no column 'uri'; found: path, text"),
        ("m.csv", "uri,text\na,b,c\n", "row 1, line 2: more cells than the header"),
        ("m.jsonl", "{nope", "row 1, not valid JSON"),
        ("m.jsonl", "[1]", "must be one JSON object a line"),
        ("m.parquet", "not parquet", "cannot read"),
        ("m.xlsx", "x", "must be .parquet, .csv, .tsv or .jsonl"),
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

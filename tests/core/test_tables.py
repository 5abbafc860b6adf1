"""Tables as programs leave them: spreadsheets' leavings, repeated names, big cells, and .xlsx and .ods themselves."""

import csv
import datetime
import json
import uuid

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from odf.opendocument import OpenDocumentSpreadsheet
from odf.table import Table, TableCell, TableRow
from odf.text import P

from mulan_core.config import PrepareConfig
from mulan_core.data.check import check_manifest
from mulan_core.data.tables import Problems, open_table
from mulan_core.data.tracks import read_manifest, read_playlists
from mulan_core.errors import UserError

TWO = [{"uri": "a.wav", "text": "calm piano"}, {"uri": "b.wav", "text": "loud; fast"}]


def rows_of(path):
    problems = Problems(str(path))
    with open_table(path, problems, wanted=["uri", "text"]) as table:
        rows = [row for chunk in table.chunks for row in chunk.rows]
    assert not problems.count, problems.bad_rows
    return rows


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "uri,text\na.wav,calm piano\nb.wav,loud; fast\n,\n,\n"),
        ("m.csv", ",,\n,,\nuri,text,\n,,\na.wav,calm piano,\n , ,\nb.wav,loud; fast,\n"),
        ("m.csv", "uri,text,,\na.wav,calm piano\nb.wav,loud; fast,,,,,\n"),
        ("m.csv", "sep=,\nuri,text\na.wav,calm piano\nb.wav,loud; fast\n"),
        ("m.csv", "sep=,,\r\nuri,text\r\na.wav,calm piano\r\nb.wav,loud; fast\r\n"),
        ("m.csv", '"sep=;"\nuri;text\na.wav;calm piano\nb.wav;"loud; fast"\n;\n'),
        ("m.csv", "SEP=|\nuri|text\na.wav|calm piano\nb.wav|loud; fast\n"),
        ("m.csv", "sep=\t\nuri\ttext\na.wav\tcalm piano\nb.wav\tloud; fast\n"),
        ("m.tsv", "\t\nuri\ttext\na.wav\tcalm piano\n\t\t\nb.wav\tloud; fast\n"),
        ("m.csv", ",uri,text\n0,a.wav,calm piano\n1,b.wav,loud; fast\n"),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_spreadsheets_leave_is_skipped(tmp_path, name, content, mark):
    (tmp_path / name).write_text(mark + content, newline="")
    assert rows_of(tmp_path / name) == TWO


def test_rows_are_counted_and_lines_told_as_they_stand(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("sep=,\nuri,text\n,\na.wav,x\n,,\nb.wav,y,z\n")
    with pytest.raises(UserError, match="row 2, line 6: more cells than the header has columns"):
        read_manifest(path)
    (tmp_path / "n.csv").write_text("sep=;\nuri,text\na.wav,x\n")
    with pytest.raises(UserError, match="looks separated by commas, not semicolons"):
        read_manifest(tmp_path / "n.csv")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "xlsx", "ods"])
def test_a_name_that_two_columns_have_is_refused_in_one_sentence(tmp_path, kind):
    path = tmp_path / f"m.{kind}"
    names, cells = ["uri", "mine", "mine"], ["a.wav", "x", "y"]
    if kind == "parquet":
        pq.write_table(pa.table([[cell] for cell in cells], names=names), path)
    elif kind == "jsonl":
        path.write_text('{"uri": "a.wav", "mine": "x", "mine": "y"}')
    elif kind in ("xlsx", "ods"):
        write_sheet(path, [names, cells])
    else:
        mark = "," if kind == "csv" else "\t"
        path.write_text(f"{mark.join(names)}\n{mark.join(cells)}\n")
    with pytest.raises(UserError, match="has two columns with the name 'mine'; rename or remove one"):
        read_manifest(path)


def test_a_cell_may_be_big_whatever_was_imported_before(tmp_path):
    text = "calm piano and rain " * 8_000
    (tmp_path / "m.csv").write_text(f'uri,text\na.wav,"{text}"\n')
    for limit in (1_000, 131_072, 2**27):
        csv.field_size_limit(limit)
        assert read_manifest(tmp_path / "m.csv")["texts"].to_pylist()[0][0]["text"] == text


def write_sheet(path, rows):
    """A spreadsheet as a program of offices writes it: by openpyxl or odfpy."""
    if path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.create_sheet("other").append(["uri", "nothing"])
        book.save(path)
        return
    document, sheet = OpenDocumentSpreadsheet(), Table(name="tracks")
    for row in rows:
        line = TableRow(parent=sheet)
        for value in row:
            kinds = {int: "float", float: "float", datetime.date: "date", bool: "boolean"}
            kind = kinds.get(type(value), "string")
            shown = str(value).lower() if kind == "boolean" else value
            named = {} if kind == "string" else {f"{'' if kind == 'float' else kind}value": shown}
            cell = TableCell(valuetype=kind, parent=line, **named)
            if value is not None:
                P(text=str(value), parent=cell)
    for _ in range(2):  # as LibreOffice ends each sheet
        TableCell(numbercolumnsrepeated="1000", parent=TableRow(numberrowsrepeated="1000", parent=sheet))
    document.spreadsheet.addElement(sheet)
    document.save(path)


@pytest.mark.parametrize("kind", ["xlsx", "ods"])
def test_a_spreadsheet_is_read_as_people_see_it(tmp_path, kind):
    day = datetime.date(2026, 11, 30)
    header = ["track_id", "uri", "text", "start_s", "labels", "day", "live"]
    rows = [
        [],
        header,
        [17, "a.wav", "calm piano,\nrain", 0.1 + 0.2, "jazz|R&amp;B", day, True],
        [None] * 7,
        ["b", "ä/日本.wav", None, 120, None, None, False],
    ]
    path = tmp_path / f"m.{kind}"
    write_sheet(path, rows)
    first, second = read_manifest(path).to_pylist()
    assert (first["track_id"], first["start_s"], first["labels"]) == ("17", 0.3, ["jazz", "R&B"])
    assert (first["texts"][0]["text"], first["day"], first["live"]) == ("calm piano,\nrain", "2026-11-30", "TRUE")
    assert (second["track_id"], second["uri"], second["texts"], second["start_s"]) == ("b", "ä/日本.wav", [], 120.0)
    assert (second["day"], second["live"]) == (None, "FALSE")


def test_the_first_sheet_that_is_shown_is_read(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["hidden"])
    book.active.sheet_state = "hidden"
    for row in (["uri", "text"], ["a.wav", datetime.datetime(2026, 11, 30, 18, 5)]):
        (book["tracks"] if "tracks" in book.sheetnames else book.create_sheet("tracks")).append(row)
    book.save(tmp_path / "m.xlsx")
    assert rows_of(tmp_path / "m.xlsx") == [{"uri": "a.wav", "text": "2026-11-30 18:05:00"}]


@pytest.mark.parametrize("name", ["m.xlsx", "m.ods"])
def test_what_is_no_spreadsheet_is_said(tmp_path, name):
    write_sheet(tmp_path / name, [["uri"], ["a.wav"]])
    whole = (tmp_path / name).read_bytes()
    for content in (b"", b"x", whole[:-200], whole[:300], json.dumps(TWO).encode()):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read the spreadsheet .*; save it anew, or as CSV"):
            read_manifest(tmp_path / name)


UUID = "0b5f2c1e-9d1e-4c57-8f0a-2f6f3c3c9a11"


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("ids", "read"),
    [
        ([0, 7, -3, 2**60], ["0", "7", "-3", str(2**60)]),
        ([7.0, 8.0], ["7", "8"]),
        ([UUID], [UUID]),
        ([UUID.upper()], [UUID.upper()]),
    ],
)
def test_ids_may_be_numbers_and_uuids(tmp_path, kind, ids, read):
    rows = [{"track_id": one, "uri": "a.wav"} for one in ids]
    path = tmp_path / f"m.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    assert read_manifest(path)["track_id"].to_pylist() == read
    playlist = {"playlist_id": ids[0], "title": "Calm", "description": None, "track_ids": ids, "split": "test"}
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(playlist))
    (found,) = read_playlists(path).to_pylist()
    assert (found["playlist_id"], found["track_ids"]) == (read[0], read)


def test_uuids_of_parquet_are_read_and_kept_where_they_are_carried_along(tmp_path):
    ids = pa.array([uuid.UUID(UUID).bytes], pa.uuid())
    pq.write_table(pa.table({"track_id": ids, "uri": ["a.wav"], "release": ids}), tmp_path / "m.parquet")
    (row,) = read_manifest(tmp_path / "m.parquet").to_pylist()
    assert (row["track_id"], row["release"]) == (UUID, uuid.UUID(UUID))


@pytest.mark.parametrize(("value", "shown"), [(True, "True"), (1.5, "1.5"), ([1], r"\[1\]"), ({"a": 1}, "{'a': 1}")])
def test_what_is_no_id_is_refused(tmp_path, value, shown):
    (tmp_path / "m.jsonl").write_text(json.dumps({"track_id": value, "uri": "a.wav"}))
    with pytest.raises(UserError, match=f"row 1, column 'track_id': expected text, got {shown}"):
        read_manifest(tmp_path / "m.jsonl")


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("['rock', 'jazz']", ["rock", "jazz"]),
        ('["rock", "jazz"]', ["rock", "jazz"]),
        ("['rock' 'jazz'\n 'R&amp;B']", ["rock", "jazz", "R&B"]),
        ("""['rock "n" roll', "it's"]""", ['rock "n" roll', "it's"]),
        ("[]", []),
        ("R&amp;B|Hip-Hop", ["R&B", "Hip-Hop"]),
        ("R&amp;B;Hip-Hop", ["R&B", "Hip-Hop"]),
        ("Drum &#38; Bass;R&amp;amp;B", ["Drum & Bass", "R&B"]),
        ("AT&T;R&B;Soul", ["AT&T", "R&B", "Soul"]),
        ('["R&amp;B; Soul"]', ["R&B; Soul"]),
        ('["the &quot;Duke&quot;"]', ['the "Duke"']),
    ],
)
def test_labels_in_a_cell_are_read_as_programs_write_them(tmp_path, cell, labels):
    rows = [["uri", "labels", "text"], ["a.wav", cell, cell]]
    with (tmp_path / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (row,) = read_manifest(tmp_path / "m.csv").to_pylist()
    assert row["labels"] == labels
    if cell.startswith("["):
        assert [text["text"] for text in row["texts"]] == (labels or ["[]"])
    assert not any("&amp;" in text["text"] for text in row["texts"])


def test_labels_of_lists_have_no_entities_either(tmp_path):
    (tmp_path / "m.jsonl").write_text(json.dumps({"uri": "a.wav", "labels": ["R&amp;B", "Jazz"], "text": "R&amp;B"}))
    (row,) = read_manifest(tmp_path / "m.jsonl").to_pylist()
    assert (row["labels"], row["texts"][0]["text"]) == (["R&B", "Jazz"], "R&B")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["path", "caption"], "has no column 'uri'; did you mean 'path'? rename it to 'uri'; found: path, caption"),
        (["caption", "file"], "did you mean 'file'?"),
        (["File Name", "text"], "did you mean 'File Name'?"),
        (["audio_path", "name"], "did you mean 'audio_path'?"),
        (["URI", "path"], "did you mean 'URI'?"),
        (["name", "text"], "did you mean 'name'?"),
        (["tempo", "text"], "has no column 'uri'; found: tempo, text"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_the_column_that_was_likely_meant_is_named(tmp_path, kind, names, sentence):
    path = tmp_path / f"m.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table([["x"], ["y"]], names=names), path)
    else:
        path.write_text(f"{','.join(names)}\nx,y\n" if kind == "csv" else json.dumps(dict.fromkeys(names, "x")))
    with pytest.raises(UserError) as error:
        read_manifest(path)
    assert sentence in str(error.value)


def test_the_check_warns_of_columns_that_are_carried_along_and_likely_meant(tmp_path):
    def warned(*names):
        (tmp_path / "m.csv").write_text(f"{','.join(names)}\n{','.join('x' * len(names))}\n")
        return [text for text in check_manifest(tmp_path / "m.csv", PrepareConfig())["warnings"] if "column" in text]

    assert warned("uri", "text", "title", "mine") == []
    assert warned("uri", "text", "caption") == [], "the column text is there"
    assert warned("uri", "caption", "id", "Genre") == [
        "there is no column 'text'; did you mean 'caption'? rename it to be read",
        "there is no column 'track_id'; did you mean 'id'? rename it to be read",
        "there is no column 'labels'; did you mean 'Genre'? rename it to be read",
    ]


@pytest.mark.parametrize("row", [{"bytes": b"RIFF", "path": "a.wav"}, {"bytes": b"RIFF", "path": None}])
def test_audio_inside_the_table_is_named(tmp_path, row):
    pq.write_table(pa.table({"audio": [row], "text": ["calm"]}), tmp_path / "m.parquet")
    with pytest.raises(UserError, match="has no column 'uri' but a column 'audio', as data sets of Hugging Face keep"):
        read_manifest(tmp_path / "m.parquet")


@pytest.mark.parametrize(("cell", "is_taken"), [("XFD1048576", False), ("XFD1000", False), ("D9000", True)])
def test_a_cell_far_from_the_others_moves_no_memory(tmp_path, cell, is_taken):
    book = openpyxl.Workbook()
    for name, value in {"A1": "uri", "B1": "text", "A2": "a.wav", "B2": "piano", cell: " "}.items():
        book.active[name] = value
    book.save(tmp_path / "a.xlsx")
    (tmp_path / "a.wav").touch()
    if is_taken:
        assert read_manifest(tmp_path / "a.xlsx")["uri"].to_pylist() == ["a.wav"]
    else:
        with pytest.raises(UserError, match="delete the cell far from the others"):
            read_manifest(tmp_path / "a.xlsx")


def test_names_of_columns_are_told_in_one_line(tmp_path):
    (tmp_path / "a.csv").write_text('0,"a\nb","\n"\n1,2,3\n')
    with pytest.raises(UserError, match=r"found: 0, a b$"):
        read_manifest(tmp_path / "a.csv")

"""CUE sheets: an album in one file becomes its songs, whatever the sheet's encoding and however it names the file."""

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mulan_core.config import PrepareConfig
from mulan_core.data.check import check_manifest
from mulan_core.data.cue import Beside, SheetError, read_sheet
from mulan_core.data.encodings import decode_text
from mulan_core.data.overlap import find_overlaps
from mulan_core.data.rows import default_id
from mulan_core.data.tracks import read_manifest

SHEET = """REM GENRE "Jazz"
PERFORMER "Ann"
TITLE "The Album"
FILE "{file}" WAVE
  TRACK 01 AUDIO
    TITLE "{first}"
    INDEX 01 00:00:00
  TRACK 02 AUDIO
    TITLE "Second"
    PERFORMER "Bob"
    INDEX 00 00:03:70
    INDEX 01 00:04:15
  TRACK 03 AUDIO
    TITLE "Third"
    INDEX 01 00:08:00
"""


def write_album(folder, name="album.flac", seconds=12):
    folder.mkdir(exist_ok=True)
    wave = 0.1 * np.random.default_rng(0).standard_normal(16_000 * seconds)
    soundfile.write(folder / name, wave, 16_000)


def test_an_album_in_one_file_is_its_songs(tmp_path):
    write_album(tmp_path)
    write_album(tmp_path, "other.wav", seconds=4)
    (tmp_path / "album.cue").write_text(SHEET.format(file="album.flac", first="First"))
    rows = read_manifest(tmp_path).to_pylist()
    assert [(row["uri"], row["start_s"], row["duration_s"], row["title"], row["artist"]) for row in rows] == [
        ("album.flac", 0.0, 4.2, "First", "Ann"),
        ("album.flac", 4.2, 3.8, "Second", "Bob"),
        ("album.flac", 8.0, None, "Third", "Ann"),
        ("other.wav", None, None, "other", None),
    ]
    assert [text["text"] for text in rows[1]["texts"]] == ["Second", "Jazz"]
    assert len({row["track_id"] for row in rows}) == 4
    report = check_manifest(tmp_path, PrepareConfig())
    assert (report["usable"], report["bad_files"], report["left_out"]["sheets"]) == (4, [], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "cp1251", "cp932"])
def test_encodings(encoding):
    title = {"cp1251": "Звезда по имени", "cp932": "桜の歌"}.get(encoding, "Café für Élise")
    songs = read_sheet(SHEET.format(file=f"{title}.wav", first=title).encode(encoding))
    assert (songs[0].title, songs[0].file) == (title, f"{title}.wav")


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", "It’s naïve — déjà vu, 25 °C"),
        ("cp1251", "Группа крови на рукаве"),
        ("cp932", "椎名林檎 丸の内サディスティック"),
        ("cp949", "방탄소년단 봄날"),
        ("gb18030", "月亮代表我的心 邓丽君"),
        ("big5", "菊花台 周杰倫 千里之外"),
        ("ascii", "plain"),
    ],
)
def test_texts_of_no_named_encoding(encoding, words):
    assert decode_text(words.encode(encoding)) == words


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300))
def test_any_bytes_are_some_text(data):
    assert isinstance(decode_text(data), str)
    try:
        assert read_sheet(data)
    except SheetError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("Album.WAV", "album.wav"),
        ("album.wav", "album.flac"),
        (r"C:\Rips\album.wav", "album.ape"),
        ("caf\u00e9.wav", "cafe\u0301.flac"),
        ("CDImage.wav", "sheet.flac"),
        ("CD1/album.flac", "album.flac"),
    ],
)
def test_files_are_found_under_the_names_that_they_have_now(named, there):
    songs = read_sheet(SHEET.format(file=named, first="First").encode())
    found = Beside([f"box/{there}", "album.mp3", "box/other.wav"]).find(songs, "box/sheet.cue")
    assert {song.file for song in found} == {f"box/{there}"}


def test_a_file_for_each_song(tmp_path):
    """Two files, the gap of the second at the end of the first, as Exact Audio Copy writes it."""
    write_album(tmp_path, "1.wav", seconds=4)
    write_album(tmp_path, "2.wav", seconds=5)
    (tmp_path / "all.cue").write_text(
        'FILE "1.wav" WAVE\n TRACK 01 AUDIO\n  TITLE One\n  INDEX 01 00:00:00\n TRACK 02 AUDIO\n  TITLE Two\n'
        '  INDEX 00 00:03:00\nFILE "2.wav" WAVE\n  INDEX 01 00:00:00\nFILE "data.bin" BINARY\n TRACK 03 MODE1/2352\n'
        "  INDEX 01 00:00:00\n"
    )
    rows = read_manifest(tmp_path).to_pylist()
    assert [(row["uri"], row["start_s"], row["duration_s"], row["title"]) for row in rows] == [
        ("1.wav", None, None, "One"),
        ("2.wav", None, None, "Two"),
    ]
    assert rows[0]["track_id"] == default_id("1.wav", None, None)


@pytest.mark.parametrize(
    ("sheet", "reason"),
    [
        (SHEET.format(file="gone.wav", first="x").encode(), "it names 'gone.wav', which does not lie beside it"),
        (SHEET.format(file="album.flac", first="x").replace("00:08:00", "00:02:00").encode(), "do not follow"),
        (SHEET.format(file="album.flac", first="x").replace("00:08:00", "00:08:75").encode(), "is no place in a file"),
        (b"", "it names no song"),
        (b"\xff\xfe\x00", "it names no song"),
        (b"x" * (2 << 20), "too large"),
    ],
    ids=["gone", "backwards", "frames", "empty", "broken", "large"],
)
def test_a_sheet_that_cannot_be_used_is_told_and_its_file_stays(tmp_path, sheet, reason):
    write_album(tmp_path)
    (tmp_path / "x.cue").write_bytes(sheet)
    report = check_manifest(tmp_path, PrepareConfig())
    assert (report["rows"], report["usable"]) == (1, 1)
    (told,) = report["left_out"]["sheets"]
    assert told.startswith("x.cue (") and reason in told


def test_the_second_sheet_of_a_file_is_told(tmp_path):
    write_album(tmp_path)
    for name in ("a.cue", "b.cue"):
        (tmp_path / name).write_text(SHEET.format(file="album.flac", first="First"))
    report = check_manifest(tmp_path, PrepareConfig())
    assert report["rows"] == 3
    assert report["left_out"]["sheets"] == ["b.cue (another sheet tells of album.flac)"]


def test_segments_have_ids_of_their_own(tmp_path):
    (tmp_path / "t.csv").write_text("uri,text,start_s,duration_s\na.wav,x,,\na.wav,x,10,\na.wav,x,10,5\na.wav,x,0,5\n")
    ids = read_manifest(tmp_path / "t.csv")["track_id"].to_pylist()
    assert len(set(ids)) == 4
    assert ids[0] == "bc30c538c410e224", "a whole file's id has not changed"
    assert default_id("a.wav", 0.0, None) == default_id("a.wav", None, 0.0) == ids[0]
    assert default_id("a.wav", None, 5.0) == ids[3]


@pytest.mark.parametrize(
    ("train", "evaluation", "is_overlap"),
    [
        ((0, 10), (10, 20), False),
        ((0, 10.01), (10, 20), False),
        ((0, 10), (9, 5), True),
        ((5, None), (0, 5), False),
        ((5, None), (60, 5), True),
        ((None, None), (60, 5), True),
        ((None, 30), (30, None), False),
    ],
)
def test_segments_overlap_where_they_share_a_part(train, evaluation, is_overlap):
    def table(track_id, segment):
        start_s, duration_s = segment
        row = {"track_id": track_id, "dataset": "mine", "sha256": "1", "start_s": start_s, "duration_s": duration_s}
        return pa.Table.from_pylist([row])

    assert bool(find_overlaps(table("a", train), table("b", evaluation))) == is_overlap


ONE = 'FILE "album.flac" WAVE\nTRACK 01 AUDIO\nINDEX 01 00:00:00\n'


@pytest.mark.parametrize(
    "sheet",
    [
        "FILE \x0b\nTRACK 01 AUDIO\nINDEX 01 00:00:00\n",
        f"{ONE}TRACK 02 AUDIO\nINDEX 01 {'9' * 5_000}:00:00\n",
        f"{ONE}TRACK 02 AUDIO\nINDEX 01 {'9' * 306}:00:00\n",
        ONE + ONE.replace("album.flac", "album.wav").replace("01 AUDIO", "02 AUDIO"),
        ONE + 'FILE "other.wav" WAVE\nTRACK 02 AUDIO\nINDEX 01 00:00:00\n' + ONE,
    ],
)
def test_a_sheet_that_makes_no_sense_stops_nothing(tmp_path, sheet):
    write_album(tmp_path, seconds=4)
    write_album(tmp_path, "other.wav", seconds=4)
    (tmp_path / "bad.cue").write_text(sheet)
    report = check_manifest(tmp_path, PrepareConfig())
    assert (report["rows"], report["usable"], len(report["left_out"]["sheets"])) == (2, 2, 1)


def test_long_lines_take_no_time():
    blanks = " " * 500_000
    assert len(read_sheet(f"TITLE a{blanks}b\n{blanks}\n{ONE}".encode())) == 1

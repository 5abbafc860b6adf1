"""What of a folder is taken as audio, what is left out, and that it is told."""

import io
import os

import numpy as np
import pytest
import soundfile

from mulan_core.config import PrepareConfig
from mulan_core.data.check import check_manifest
from mulan_core.data.listing import ENDINGS, ending_of, list_folder, notes_of
from mulan_core.data.tracks import read_manifest
from mulan_core.errors import UserError


def write(folder, *names, content=b"x"):
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def audio_bytes(kind="WAV", **options):
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal(64_000), 16_000, format=kind, **options)
    return file.getvalue()


def test_every_file_is_taken_or_counted(tmp_path):
    write(tmp_path, "a.WAV", "sub/b.webm", "sub/c.mka", "d.tta", "e.spx", "f.dsf", "g.m4b")
    write(tmp_path, "cover.jpg", "sub/cover.JPG", "notes.txt", "song.xm", "README", "Mr. Blue Sky", "film.mkv")
    write(tmp_path, "one.zip", "sub/two.RAR", "three.7z", "four.tar.gz", "album.cue")
    write(tmp_path, ".DS_Store", "Thumbs.db", "sub/._a.mp3", ".hidden/x.mp3", "__MACOSX/y.mp3", "@eaDir/z.mp3")
    listing = list_folder(tmp_path)
    assert listing.audio == ["a.WAV", "d.tta", "e.spx", "f.dsf", "g.m4b", "sub/b.webm", "sub/c.mka"]
    assert listing.left_out() == {
        "endings": {"": 2, ".jpg": 2, ".mkv": 1, ".txt": 1, ".xm": 1},
        "archives": ["four.tar.gz", "one.zip", "sub/two.RAR", "three.7z"],
        "links": 0,
        "system": 6,
        "closed": [],
    }
    assert listing.sheets == ["album.cue"]
    notes = notes_of(listing.left_out())
    assert notes[0] == (
        "left out by their endings, not looked into: 2 without an ending, 2 .jpg, 1 .mkv, 1 .txt, 1 .xm"
    )
    assert notes[1].startswith("archives are not looked into: four.tar.gz, one.zip") and "unpack" in notes[1]
    assert notes[2].endswith("operating system's: 6")


@pytest.mark.parametrize(
    "content",
    [audio_bytes("OGG"), audio_bytes("FLAC"), audio_bytes("WAV"), audio_bytes("AIFF"), b"ID3\4\0" + bytes(20)],
    ids=["ogg", "flac", "wav", "aiff", "mp3"],
)
def test_a_file_without_an_ending_is_known_by_how_it_begins(tmp_path, content):
    write(tmp_path, "x_ogg", "No. 5", content=content)
    write(tmp_path, "Makefile", content=b"all:")
    write(tmp_path, "picture", content=b"RIFF\0\0\0\0WEBP")
    assert list_folder(tmp_path).audio == ["No. 5", "x_ogg"]


def test_a_linked_file_is_taken_once(tmp_path):
    music, elsewhere = tmp_path / "music", tmp_path / "elsewhere"
    write(music, "b/song.wav", ".store/deep.wav")
    write(elsewhere, "far.wav", "more/near.wav")
    for link, target in {
        "a.wav": music / "b/song.wav",  # sorts before the file itself
        "c.wav": music / "b/song.wav",
        "from_store.wav": music / ".store/deep.wav",
        "linked": elsewhere,
        "again": elsewhere / "more",
        "far_too.wav": elsewhere / "far.wav",
        "gone.wav": tmp_path / "nowhere.wav",
    }.items():
        (music / link).symlink_to(target)
    listing = list_folder(music)
    assert listing.audio == ["again/near.wav", "b/song.wav", "from_store.wav", "gone.wav", "linked/far.wav"]
    assert (listing.links, listing.system) == (3, 1)
    assert "another name: 3" in " ".join(notes_of(listing.left_out()))


def test_links_that_lead_back_end(tmp_path):
    music = tmp_path / "music"
    write(music, "sub/a.wav")
    write(tmp_path, "not_asked_for.wav")
    (music / "loop").symlink_to(music)
    (music / "sub" / "up").symlink_to("..")
    (music / "out").symlink_to(tmp_path)
    (music / "self.wav").symlink_to("self.wav")
    assert list_folder(music).audio == ["self.wav", "sub/a.wav"]
    (tmp_path / "link").symlink_to(music)
    assert list_folder(tmp_path / "link").audio == ["self.wav", "sub/a.wav"]


def test_no_bad_file_stops_the_others(tmp_path):
    write(tmp_path, "good.wav", "sub/good.wav", content=audio_bytes())
    write(tmp_path, b"caf\xe9.wav", b"caf\xe9.zip", b"odd.\xff", "empty.mp3", "line\nbreak.wav", content=b"")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.wav").mkdir()
    report = check_manifest(tmp_path, PrepareConfig())
    assert (report["usable"], report["bad_rows"]) == (2, [])
    bad = {file["uri"] for file in report["bad_files"]}
    assert bad == {r"caf\xe9.wav", "empty.mp3", "line\nbreak.wav", "loop.wav", "pipe.wav"}
    assert report["left_out"]["archives"] == [r"caf\xe9.zip"]
    assert report["left_out"]["endings"] == {"": 2}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    write(tmp_path, "a.wav", "closed/b.wav")
    (tmp_path / "closed").chmod(0)
    try:
        assert list_folder(tmp_path).closed == ["closed"]
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_a_folder_without_audio_says_what_it_holds(tmp_path):
    write(tmp_path, "a.txt", "music.zip")
    with pytest.raises(UserError, match=r"holds no audio file: left out .* 1 \.txt; .* music\.zip; unpack"):
        read_manifest(tmp_path)
    with pytest.raises(UserError, match=r"music\.zip is an archive; unpack it first"):
        read_manifest(tmp_path / "music.zip")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="it is empty"):
        read_manifest(tmp_path / "none")


def test_endings():
    assert ending_of("a.b/c") == "" and ending_of("01. Prélude") == "" and ending_of("x.mp3 ") == ".mp3"
    assert all(ending_of(f"a{ending.upper()}") == ending for ending in ENDINGS)

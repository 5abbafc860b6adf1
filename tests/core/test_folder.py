"""A folder of audio: which files count, and what of their tags becomes a text."""

import io

import numpy as np
import pytest
import soundfile

from mulan_core.data.tags import Tags, comments, genres, read_tags
from mulan_core.data.tracks import read_manifest
from mulan_core.errors import UserError
from mulan_core.text.filters import filter_texts


def write_tagged(path, **tags):
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for name, value in tags.items():
            setattr(file, name, value)
        file.write(0.1 * np.random.default_rng(0).standard_normal(16_000))


def test_a_folder_is_a_manifest(tmp_path):
    (tmp_path / "sub").mkdir()
    write_tagged(
        tmp_path / "sub" / "a.flac",
        title="A View From Earth (5:06)",
        artist="Ann",
        genre="Corporate, Motivational",
        comment="A slow waltz for piano, played by two hands.",
    )
    write_tagged(tmp_path / "b_side_two.wav")
    (tmp_path / "broken.mp3").write_bytes(b"nothing")
    (tmp_path / "cover.jpg").write_bytes(b"x")
    (tmp_path / ".hidden.wav").write_bytes(b"x")
    rows = {row["uri"]: row for row in read_manifest(tmp_path).to_pylist()}
    assert list(rows) == ["b_side_two.wav", "broken.mp3", "sub/a.flac"]
    tagged = rows["sub/a.flac"]
    assert (tagged["title"], tagged["artist"], tagged["dataset"]) == ("A View From Earth", "Ann", tmp_path.name)
    assert [(text["source"], text["text"]) for text in tagged["texts"]] == [
        ("sf", "A View From Earth"),
        ("sf", "Corporate"),
        ("sf", "Motivational"),
        ("lf", "A slow waltz for piano, played by two hands."),
    ]
    assert (rows["b_side_two.wav"]["title"], rows["b_side_two.wav"]["texts"]) == ("b side two", [])
    assert read_manifest(tmp_path).to_pylist() == list(rows.values())


def test_a_folder_without_audio(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match="holds no audio file: left out by their endings"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("Hip-Hop/Rap; Soul|Funk", ["Hip-Hop", "Rap", "Soul", "Funk"]),
        ("17", ["Rock"]),
        ("(17)", ["Rock"]),
        ("(8)Acid Jazz", ["Acid Jazz"]),
        ("(255)", []),
        ("80s", ["80s"]),
        ("", []),
    ],
)
def test_genres(value, found):
    assert genres(value) == found


@pytest.mark.parametrize(
    "junk",
    [
        "iTunNORM: 00000A2B 00000B3C 00001234",
        " 00000A2B 00000B3C 00001234 00004321",
        "Processed by SoX",
        "Encoded by LAME 3.99",
        "Lavf58.29.100",
        "130.000000",
        "2:53",
        "---",
    ],
)
def test_what_programs_write_is_dropped_with_a_reason(junk):
    judged = filter_texts([{"source": source, "text": text} for source, text in comments(junk)])
    assert {text["drop"] for text in judged} <= {"program", "number", "duration", "not_about_music"}


def test_comments_are_tags_or_sentences():
    assert comments("BOUNCY , DRIVING") == [("sf", "bouncy"), ("sf", "driving")]
    assert comments("Warm pads over a broken beat, with a cello.")[0][0] == "lf"
    assert comments("Live at home")[0] == ("sf", "Live at home")


def test_bytes_that_are_no_audio_have_no_tags():
    for content in (b"", b"ID3" + b"\xff" * 200, b"fLaC" + bytes(100), b"OggS" + b"\1" * 300):
        assert read_tags(io.BytesIO(content)) == Tags()

"""Tags of every container, written by mutagen into files that are encoded here."""

import io

import av
import mutagen
import numpy as np
import pytest
import soundfile
from mutagen.id3 import COMM, ID3, TCON, TIT2, TMOO, TPE1, TXXX

from mulan_core.audio.decode import decode_audio
from mulan_core.data.tags import read_tags

WAVE = (0.1 * np.random.default_rng(0).standard_normal(8_000)).astype(np.float32)


def encoded(path):
    """A second of noise in the container that the ending names."""
    if path.suffix in (".m4a", ".wma"):
        codec, sample = ("aac", "fltp") if path.suffix == ".m4a" else ("wmav2", "fltp")
        with av.open(str(path), "w", format="mp4" if path.suffix == ".m4a" else "asf") as container:
            stream = container.add_stream(codec, rate=44_100, layout="mono")
            stream.bit_rate = 64_000
            frame = av.AudioFrame.from_ndarray(WAVE[None, :], format=sample, layout="mono")
            frame.sample_rate = 44_100
            container.mux([*stream.encode(frame), *stream.encode(None)])
    else:
        opus = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
        soundfile.write(path, WAVE, 16_000, **opus)
    return path


def texts_of(path):
    return [text["text"] for text in read_tags(io.BytesIO(path.read_bytes())).texts]


NAMES = {
    ".m4a": ("\xa9nam", "\xa9ART", "\xa9gen", "----:com.apple.iTunes:MOOD", "\xa9cmt"),
    ".wma": ("Title", "Author", "WM/Genre", "WM/Mood", "Description"),
}


@pytest.mark.parametrize("ending", [".flac", ".ogg", ".opus", ".m4a", ".wma"])
def test_several_values_are_read_from_every_container(tmp_path, ending):
    path = encoded(tmp_path / f"a{ending}")
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    names = NAMES.get(ending, ("TITLE", "ARTIST", "GENRE", "MOOD", "COMMENT"))
    values = (
        ["Low Tide"],
        ["Ann"],
        ["Jazz", "Folk, World, & Country"],
        ["calm"],
        ["A slow waltz for piano, played live."],
    )
    for name, listed in zip(names, values, strict=True):
        file.tags[name] = [v.encode() for v in listed] if name.startswith("----") else listed
    if ending in (".flac", ".ogg", ".opus"):
        file.tags["STYLE"] = ["Bossa Nova"]
    file.save()
    tags = read_tags(io.BytesIO(path.read_bytes()))
    assert (tags.title, tags.artist) == ("Low Tide", "Ann")
    style = ["Bossa Nova"] if ending in (".flac", ".ogg", ".opus") else []
    assert texts_of(path) == ["Low Tide", *values[2], *style, "calm", values[4][0]]


@pytest.mark.parametrize("ending", [".mp3", ".wav", ".aiff"])
@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["(17)(18)"], ["Rock", "Techno"]),
        (["(9)Doom Metal"], ["Metal", "Doom Metal"]),
        (["148"], ["Abstract"]),
        (["142"], ["Merengue"]),
        (["191"], ["Psybient"]),
        (["Drum & Bass"], ["Drum & Bass"]),
    ],
)
def test_genres_of_id3_are_those_of_the_standard(tmp_path, ending, version, written, read):
    path = encoded(tmp_path / f"a{ending}")
    file = mutagen.File(path)
    file.add_tags()
    for frame in (TIT2(3, ["Low Tide"]), TPE1(3, ["Ann"]), TCON(3, written), COMM(3, "eng", "", ["Live at home"])):
        file.tags.add(frame)
    file.tags.add(TMOO(3, ["calm"]) if version == 4 else TXXX(3, "MOOD", ["calm"]))
    file.save(v2_version=version)
    tags = read_tags(io.BytesIO(path.read_bytes()))
    assert (tags.title, tags.artist) == ("Low Tide", "Ann")
    assert texts_of(path) == ["Low Tide", *read, "calm", "Live at home"]


def test_several_genres_of_id3v24(tmp_path):
    path = encoded(tmp_path / "a.mp3")
    tags = ID3()
    tags.add(TCON(3, ["Jazz", "Bossa Nova"]))
    tags.save(path, v2_version=4)
    assert texts_of(path) == ["Jazz", "Bossa Nova"]


@pytest.mark.parametrize("ending", [".flac", ".ogg", ".opus", ".mp3", ".wav", ".m4a", ".wma"])
def test_damaged_tags_stop_nothing(tmp_path, ending):
    path = encoded(tmp_path / f"a{ending}")
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(40):
        content = bytearray(whole)
        for place in rng.integers(0, min(len(content), 600), 8):
            content[place] = rng.integers(0, 256)
        read_tags(io.BytesIO(bytes(content[: rng.integers(1, len(content))])))


@pytest.mark.parametrize(
    ("ending", "codec"), [(".webm", "libopus"), (".mka", "aac"), (".wav", "pcm_s16le"), (".aiff", "pcm_s16be")]
)
def test_containers_that_mutagen_does_not_read(tmp_path, ending, codec):
    """Matroska's tags, RIFF's INFO chunk and AIFF's text chunks; an AIFF has no place for a genre."""
    path = tmp_path / f"a{ending}"
    said = {"title": "Slow Rain", "artist": "Ann", "comment": "A slow waltz for piano, played live."}
    said |= {} if ending == ".aiff" else {"genre": "Jazz"}
    with av.open(str(path), "w") as container:
        container.metadata.update(said | {"author": "Ann"} if ending == ".aiff" else said)
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        wave = (WAVE * 2**15).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(wave[None, :], format="s16", layout="mono")
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    tags = read_tags(io.BytesIO(path.read_bytes()))
    assert (tags.title, tags.artist) == ("Slow Rain", "Ann" if ending != ".aiff" else tags.artist)
    texts = [(text["source"], text["text"]) for text in tags.texts]
    assert ("lf", said["comment"]) in texts and (("sf", "Jazz") in texts) == ("genre" in said)


def test_long_titles_take_no_time_and_tags_have_an_end(tmp_path):
    path = encoded(tmp_path / "a.flac")
    file = mutagen.File(path)
    file["title"] = "a" + " " * 15_000 + "b (3:45)"
    file["genre"] = [f"Style {i}" for i in range(5_000)]
    file.save()
    tags = read_tags(io.BytesIO(path.read_bytes()))
    assert tags.title == "a b" and len(tags.texts) <= 101


@pytest.mark.parametrize("kind", ["nam", "covr"])
def test_an_mp4_is_judged_by_its_tables_and_not_by_what_its_tags_say(tmp_path, kind):
    """Of covers of a megabyte one in a thousand has four such letters by chance."""
    path = encoded(tmp_path / "a.m4a")
    file = mutagen.File(path)
    said = "The stts Song about a trun band, and stsz again"
    file["\xa9nam" if kind == "nam" else "covr"] = [said] if kind == "nam" else [said.encode() * 10]
    file.save()
    _, seconds = decode_audio(path.read_bytes())
    assert seconds == pytest.approx(8_000 / 44_100, abs=0.06)

"""Tags inside audio files: a title, an artist, and what of genre and comment is worth being called a text.

Read with mutagen; FFmpeg reads those of Matroska and WebM, and the chunks of WAV and AIFF. Tags hold as much of
programs as of people: genre numbers of ID3v1, volume blocks of iTunes, names of encoders, durations in titles. Numbers
and durations are read here; whether a text describes music, or is a program's, is for ``mulan_core.text``, which counts
what it drops.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import mutagen
from mutagen._constants import GENRES
from mutagen.apev2 import APETextValue
from mutagen.asf import ASFUnicodeAttribute

from mulan_core.audio.containers import begun, recognise
from mulan_core.audio.ffmpeg import FfmpegReader
from mulan_core.data.names import clean_name, unescaped

SEPARATORS = re.compile(r"[,/;|\0\n]")
OF_ONE_NAME = re.compile(r",\s*&")
DURATION = re.compile(r"\s*[(\[]\s*\d{1,2}:\d\d(?::\d\d)?\s*[)\]]\s*$|\s+-?\s*\d{1,2}:\d\d$")
NUMBERED = re.compile(r"^(?:\((\d{1,3})\)\s*(.*)|(\d{1,3}))$")
MAX_LETTERS, MAX_VALUES = 20_000, 100
"""Of one value, and values of one tag: what lies behind is no tag that anybody reads."""
MAX_TAG_WORDS = 3
"""A comment whose parts are all this short is a list of tags."""
MIN_SENTENCE_WORDS = 5
"""A comment of so many words that is no list of tags is a sentence, which is a long-form text."""

FIELDS = {
    "title": ("tit2", "title", "nam"),
    "artist": ("tpe1", "artist", "art", "author"),
    "genre": ("tcon", "genre", "gen", "wmgenre", "style", "wmstyle"),
    "mood": ("tmoo", "mood", "wmmood"),
    "comment": ("comm", "comment", "cmt", "description"),
}
"""What is read -> what ID3, Vorbis comments, MP4, ASF and APE call it, in small letters and nothing else."""
BY_FFMPEG = ("Matroska/WebM", "WAV", "AIFF")
"""Containers of which mutagen reads no tags, or ID3 alone."""


@dataclass(frozen=True)
class Tags:
    """What a file says of itself."""

    title: str | None = None
    artist: str | None = None
    texts: list[dict[str, str]] = field(default_factory=list)
    """``{source, text}``, without repetitions: title, genres and listed tags as sf, sentences as lf."""


def read_tags(file: BinaryIO) -> Tags:
    """Read the tags of an open audio file; a file without readable tags has none.

    Args:
        file: open for reading, able to seek; its content tells the container.
    """
    try:
        opened = mutagen.File(file)
        found = _values(opened.tags) if opened is not None and opened.tags else _by_ffmpeg(file)
    except Exception:  # whatever broken bytes do to the parser; whether they are audio is judged elsewhere
        return Tags()
    values = {
        field: [_plain(value) for key in keys for value in found.get(key, ())[:MAX_VALUES]]
        for field, keys in FIELDS.items()
    }
    # Nobody typed these into a table, so they are cleaned rather than refused.
    title = next((name for value in values["title"] if (name := clean_name("title", _title(value)))), None)
    artist = next((name for value in values["artist"] if (name := clean_name("artist", value))), None)
    texts = [("sf", title)] if title else []
    texts += [("sf", genre) for value in values["genre"] + values["mood"] for genre in genres(value)]
    texts += [text for value in values["comment"] for text in comments(value)]
    unique = dict.fromkeys((source, text) for source, text in texts if text)
    return Tags(title, artist, [{"source": source, "text": text} for source, text in unique])


def _values(tags: Any) -> dict[str, list[Any]]:
    """All values by the bare names of their tags, such as ``mood`` of ``----:com.apple.iTunes:MOOD``."""
    found: dict[str, list[Any]] = {}
    key: str
    value: Any
    for key, value in tags.items():
        if hasattr(value, "FrameID"):  # ID3
            name = value.desc if value.FrameID == "TXXX" else value.FrameID
            listed = value.genres if value.FrameID == "TCON" else getattr(value, "text", [])
        else:
            name = key.rpartition(":")[2] if key.startswith("----:") else key
            listed = value if isinstance(value, list) else list(value) if isinstance(value, APETextValue) else [value]
        found.setdefault("".join(filter(str.isalnum, name.lower())), []).extend(listed)
    return found


def _by_ffmpeg(file: BinaryIO) -> dict[str, list[Any]]:
    container = recognise(file)
    if container.name not in BY_FFMPEG:
        return {}
    with closing(FfmpegReader(begun(file, container), container)) as reader:
        return {"".join(filter(str.isalnum, key)): [value] for key, value in reader.tags.items()}


def genres(value: str) -> list[str]:
    """The genres in one tag; a comma before "&" is part of a name, as Discogs has them.

    >>> genres("Corporate, Motivational"), genres("(17)"), genres("(8)Jazz;17")
    (['Corporate', 'Motivational'], ['Rock'], ['Jazz', 'Rock'])
    >>> genres("Folk, World, & Country"), genres("R&amp;B;Soul")
    (['Folk, World, & Country'], ['R&B', 'Soul'])
    """
    names = []
    value = unescaped(value)
    for part in [value] if OF_ONE_NAME.search(value) else SEPARATORS.split(value):
        genre = part.strip()
        numbered = NUMBERED.match(genre)
        if numbered:
            number = int(numbered[1] or numbered[3])
            genre = numbered[2] or (GENRES[number] if number < len(GENRES) else "")
        if genre:
            names.append(genre)
    return names


def comments(value: str) -> list[tuple[str, str]]:
    """The texts in one comment, each with its source.

    >>> comments("BOUNCY , DRIVING")
    [('sf', 'bouncy'), ('sf', 'driving')]
    >>> comments("A slow waltz for piano, played live.")
    [('lf', 'A slow waltz for piano, played live.')]
    """
    value = value.strip()
    if not value:
        return []
    parts = [part.strip() for part in SEPARATORS.split(value) if part.strip()]
    if all(len(part.split()) <= MAX_TAG_WORDS for part in parts):
        return [("sf", part.lower() if part.isupper() else part) for part in parts]
    return [("lf" if len(value.split()) >= MIN_SENTENCE_WORDS else "sf", " ".join(value.split()))]


def _title(value: str) -> str:
    """A title without the duration that some programs write behind it.

    >>> _title("A View From Earth (5:06)")
    'A View From Earth'
    """
    return DURATION.sub("", " ".join(value.split())[:MAX_LETTERS]).strip()


def _plain(value: Any) -> str:
    """Text that UTF-8 can hold, of whatever the parser made of the bytes."""
    if isinstance(value, bytes):  # of MP4's free tags
        value = value[: 4 * MAX_LETTERS].decode("utf-8", "ignore")
    if isinstance(value, ASFUnicodeAttribute):
        value = value.value
    if not isinstance(value, str):
        return ""
    return value[:MAX_LETTERS].encode("utf-8", "ignore").decode().strip("\0 \t\r\n")

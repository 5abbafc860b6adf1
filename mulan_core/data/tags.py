"""Tags inside audio files: a title, an artist, and what of genre and comment is worth being called a text.

Read with tinytag. Tags hold as much of programs as of people: genre numbers of ID3v1, volume blocks of iTunes, names of
encoders, durations in titles. Numbers and durations are read here; whether a text describes music, or is a program's,
is for ``mulan_core.text``, which counts what it drops.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import BinaryIO

from tinytag import TinyTag

from mulan_core.data.names import clean_name

SEPARATORS = re.compile(r"[,/;|\0\n]")
DURATION = re.compile(r"\s*[(\[]\s*\d{1,2}:\d\d(?::\d\d)?\s*[)\]]\s*$|\s+-?\s*\d{1,2}:\d\d$")
NUMBERED = re.compile(r"^(?:\((\d{1,3})\)\s*(.*)|(\d{1,3}))$")
MAX_TAG_WORDS = 3
"""A comment whose parts are all this short is a list of tags."""
MIN_SENTENCE_WORDS = 5
"""A comment of so many words that is no list of tags is a sentence, which is a long-form text."""

# fmt: off
ID3V1 = (
    "Blues", "Classic Rock", "Country", "Dance", "Disco", "Funk", "Grunge", "Hip-Hop", "Jazz", "Metal", "New Age",
    "Oldies", "Other", "Pop", "R&B", "Rap", "Reggae", "Rock", "Techno", "Industrial", "Alternative", "Ska",
    "Death Metal", "Pranks", "Soundtrack", "Euro-Techno", "Ambient", "Trip-Hop", "Vocal", "Jazz+Funk", "Fusion",
    "Trance", "Classical", "Instrumental", "Acid", "House", "Game", "Sound Clip", "Gospel", "Noise",
    "Alternative Rock", "Bass", "Soul", "Punk", "Space", "Meditative", "Instrumental Pop", "Instrumental Rock",
    "Ethnic", "Gothic", "Darkwave", "Techno-Industrial", "Electronic", "Pop-Folk", "Eurodance", "Dream",
    "Southern Rock", "Comedy", "Cult", "Gangsta", "Top 40", "Christian Rap", "Pop/Funk", "Jungle", "Native US",
    "Cabaret", "New Wave", "Psychedelic", "Rave", "Showtunes", "Trailer", "Lo-Fi", "Tribal", "Acid Punk",
    "Acid Jazz", "Polka", "Retro", "Musical", "Rock & Roll", "Hard Rock",
)
# fmt: on
"""The genres that ID3v1 numbers from 0."""


@dataclass(frozen=True)
class Tags:
    """What a file says of itself."""

    title: str | None = None
    artist: str | None = None
    texts: list[dict[str, str]] = field(default_factory=list)
    """``{source, text}``, without repetitions: title, genres and listed tags as sf, sentences as lf."""


def read_tags(file: BinaryIO, name: str) -> Tags:
    """Read the tags of an open audio file; a file without readable tags has none.

    Args:
        file: open for reading, able to seek.
        name: its name, whose ending tells the container.
    """
    try:
        tags = TinyTag.get(filename=name, file_obj=file, duration=False).as_dict()
    except Exception:  # whatever broken bytes do to the parser; whether they are audio is judged elsewhere
        return Tags()
    values = {key: [_plain(v) for v in _listed(tags.get(key))] for key in ("title", "artist", "genre", "comment")}
    # Nobody typed these into a table, so they are cleaned rather than refused.
    title = next((name for value in values["title"] if (name := clean_name("title", _title(value)))), None)
    artist = next((name for value in values["artist"] if (name := clean_name("artist", value))), None)
    texts = [("sf", title)] if title else []
    texts += [("sf", genre) for value in values["genre"] for genre in genres(value)]
    texts += [text for value in values["comment"] for text in comments(value)]
    unique = dict.fromkeys((source, text) for source, text in texts if text)
    return Tags(title, artist, [{"source": source, "text": text} for source, text in unique])


def genres(value: str) -> list[str]:
    """The genres in one tag.

    >>> genres("Corporate, Motivational"), genres("(17)"), genres("(8)Jazz;17")
    (['Corporate', 'Motivational'], ['Rock'], ['Jazz', 'Rock'])
    """
    names = []
    for part in SEPARATORS.split(value):
        genre = part.strip()
        numbered = NUMBERED.match(genre)
        if numbered:
            number = int(numbered[1] or numbered[3])
            genre = numbered[2] or (ID3V1[number] if number < len(ID3V1) else "")
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
    return DURATION.sub("", value).strip()


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _plain(value: object) -> str:
    """Text that UTF-8 can hold, of whatever the parser made of the bytes."""
    return value.encode("utf-8", "ignore").decode().strip("\0 \t\r\n") if isinstance(value, str) else ""

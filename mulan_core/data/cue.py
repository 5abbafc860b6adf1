"""CUE sheets: which songs an album in one file holds, and where each begins."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mulan_core.data.encodings import decode_text
from mulan_core.data.names import clean_name, same_but_typed_otherwise

FRAMES_PER_S = 75
MAX_BYTES = 1 << 20
"""A sheet of 99 songs has some 10 kB."""

_MAX_LINE = 1_000
_LINE = re.compile(r"(FILE|TRACK|INDEX|TITLE|PERFORMER|REM\s+GENRE)\s+(.+)", re.IGNORECASE)
_QUOTED = re.compile(r'"(.*)"(?:\s+\S+)?$')
_TIME = re.compile(r"\d{1,2}\s+(\d{1,5}):(\d{1,2}):(\d{1,2})$")


@dataclass(frozen=True)
class Song:
    """A song of a sheet."""

    file: str
    """As the sheet names it; after ``Beside.find`` the path of a file that is there."""
    start_s: float
    duration_s: float | None
    """Null for the last of its file, which lasts to the end."""
    title: str | None
    artist: str | None
    genre: str | None


class SheetError(ValueError):
    """Why a sheet cannot be used, in a few words."""


def read_sheet(data: bytes) -> list[Song]:
    """The songs of a sheet, each from its INDEX 01 to the next one's, in seconds.

    The gap before a song (INDEX 00) so belongs to the song before it, as a CD player plays it.

    Raises:
        SheetError: if it holds no song, or its songs do not follow each other.
    """
    if len(data) > MAX_BYTES:
        raise SheetError("it is too large for a sheet")
    found = _parse(decode_text(data))
    if not found:
        raise SheetError("it names no song")
    songs = []
    for song, following in zip(found, [*found[1:], None], strict=True):
        if following is None or following.file != song.file:
            songs.append(song)
            continue
        # Frames are whole numbers of 1/75 s; seconds of them are not.
        duration_s = round((following.start_s - song.start_s) * FRAMES_PER_S) / FRAMES_PER_S
        if duration_s <= 0:
            raise SheetError("its songs do not follow each other")
        songs.append(replace(song, duration_s=duration_s))
    return songs


class Beside:
    """The audio of a folder, as sheets find it.

    A sheet names files as they were when it was written. So case and Unicode form do not count, nor the ending (.wav
    is named, .flac lies there), nor folders of another machine; and where the sheet was renamed with its only file,
    that one is taken.
    """

    def __init__(self, audio: Iterable[str]) -> None:
        self._by_path = dict[str, str]()
        self._by_stem = dict[str, list[str]]()
        for path in audio:
            self._by_path.setdefault(_alike(path), path)
            self._by_stem.setdefault(_alike(posixpath.splitext(path)[0]), []).append(path)

    def find(self, songs: list[Song], sheet: str) -> list[Song]:
        """The songs of the sheet at this path, with the files that they are in.

        Raises:
            SheetError: naming the file that is not there; or if songs would share what they hold.
        """
        names = dict.fromkeys(song.file for song in songs)
        found = {name: self._path(name, sheet, is_only=len(names) == 1) for name in names}
        places = {(found[song.file], song.start_s) for song in songs}
        if len(set(found.values())) < len(found) or len(places) < len(songs):
            raise SheetError("it has one file, or one place of it, twice")
        return [replace(song, file=found[song.file]) for song in songs]

    def _path(self, name: str, sheet: str, *, is_only: bool) -> str:
        given = name.replace("\\", "/")
        folder = posixpath.dirname(sheet)
        places = [posixpath.normpath(posixpath.join(folder, part)) for part in (given, posixpath.basename(given))]
        for place in places:
            if path := self._by_path.get(_alike(place)):
                return path
        for place in [*places, sheet] if is_only else places:
            paths = self._by_stem.get(_alike(posixpath.splitext(place)[0]), [])
            if len(paths) == 1:
                return paths[0]
        raise SheetError(f"it names {name!r}, which does not lie beside it")


def _alike(path: str) -> str:
    return same_but_typed_otherwise(path).casefold()


def _parse(text: str) -> list[Song]:
    songs: list[Song] = []
    file, genre = "", None
    album: dict[str, str] = {}
    track: dict[str, str] | None = None
    is_audio = False
    for line in re.split(r"\r\n?|\n", text):
        if not (match := _LINE.match(line.strip()[:_MAX_LINE])):
            continue
        word, rest = match[1].upper(), match[2]
        if word == "FILE":
            quoted = _QUOTED.match(rest)
            file = quoted[1] if quoted else rest.rsplit(maxsplit=1)[0]
        elif word == "TRACK":
            track, is_audio = {}, rest.upper().endswith("AUDIO")
        elif word in ("TITLE", "PERFORMER"):
            quoted = _QUOTED.match(rest)
            value = clean_name("title" if word == "TITLE" else "artist", quoted[1] if quoted else rest.strip('"'))
            (album if track is None else track).setdefault(word, value)
        elif word.endswith("GENRE"):
            genre = rest.strip('"') or None
        elif word == "INDEX" and track is not None and is_audio and file and rest.startswith(("01", "1 ")):
            time = _TIME.match(rest)
            if not time or int(time[3]) >= FRAMES_PER_S:
                raise SheetError(f"{rest!r} is no place in a file")
            start_s = int(time[1]) * 60 + int(time[2]) + int(time[3]) / FRAMES_PER_S
            artist = track.get("PERFORMER") or album.get("PERFORMER") or None
            songs.append(Song(file, start_s, None, track.get("TITLE") or None, artist, genre))
    return songs

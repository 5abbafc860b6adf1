"""Playlists as players write them: M3U, PLS, XSPF, JSPF, the libraries of iTunes and Rekordbox, and folders of them."""

from __future__ import annotations

import json
import plistlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from mulan_core.data.encodings import decode_text
from mulan_core.data.listing import printable
from mulan_core.data.names import clean_name, title_of_file
from mulan_core.errors import UserError
from mulan_core.files import why_no_file

MAX_BYTES = 256 << 20
"""A library of 100,000 songs has some 150 MB."""


@dataclass(frozen=True)
class Entry:
    """A song of a playlist, as far as it says."""

    location: str | None
    """A path or a URL, as it stands there."""
    artist: str | None = None
    title: str | None = None
    """Where ``artist`` is null it may be ``Artist - Title``."""


@dataclass(frozen=True)
class FoundPlaylist:
    """A playlist of a file."""

    playlist_id: str
    title: str
    description: str | None
    folder: str
    """Where relative paths start."""
    entries: tuple[Entry, ...]


Named = tuple[str | None, str | None, list[Entry]]
"""Title, description and songs; the title is null where the file has none but its name."""


class _PlaylistError(ValueError):
    """Why a file is no playlist, in a few words."""


def is_playlist_file(path: str | Path) -> bool:
    """True for a folder, and for a file that ends as those of players do; a table of playlists is neither."""
    return Path(path).is_dir() or Path(path).suffix.lower() in READERS


def read_playlist_files(path: str | Path) -> tuple[list[FoundPlaylist], list[str]]:
    """The playlists of a file, or of all files in a folder.

    Returns:
        The playlists, and the files of a folder that cannot be read, each with its reason.

    Raises:
        UserError: if a single file cannot be read, or there is no playlist.
    """
    top = Path(path)
    files = sorted(file for file in top.rglob("*") if file.suffix.lower() in READERS) if top.is_dir() else [top]
    found: dict[str, FoundPlaylist] = {}
    times = Counter[str]()
    unread = []
    for file in files:
        name = printable(file.relative_to(top).as_posix() if top.is_dir() else file.name)
        try:
            playlists = _read(file)
        except (OSError, _PlaylistError) as error:
            if not top.is_dir():
                raise UserError(f"cannot read the playlist {path}: {error}") from error
            unread.append(f"{name} ({error})")
            continue
        for title, description, entries in playlists:
            shown = clean_name("title", title or "") or title_of_file(name) or name
            playlist_id = named = f"{name}#{shown}" if len(playlists) > 1 else name
            while playlist_id in found:
                times[named] += 1
                playlist_id = f"{named} ({times[named] + 1})"
            if entries:
                folder = str(file.resolve().parent)
                found[playlist_id] = FoundPlaylist(playlist_id, shown, _sound(description), folder, tuple(entries))
    if not found:
        raise UserError(f"{path} holds no playlist with a song ({', '.join(sorted(READERS))}){_because(unread)}")
    return list(found.values()), unread


def _because(unread: list[str]) -> str:
    return f"; {unread[0]}" if unread else ""


def _sound(text: str | None) -> str | None:
    """Text that UTF-8 can hold; JSON may escape half a letter."""
    return text and text.encode("utf-8", "replace").decode()


def _read(path: Path) -> list[Named]:
    if reason := why_no_file(path):
        raise _PlaylistError(reason)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _PlaylistError(f"it has more than {MAX_BYTES >> 20} MiB")
    return READERS[path.suffix.lower()](data)


def _m3u(data: bytes) -> list[Named]:
    text = decode_text(data)
    if "#EXT-X-" in text:
        raise _PlaylistError("it lists the pieces of a stream (HLS), not songs")
    name = None
    entries: list[Entry] = []
    artist = title = None
    for line in map(str.strip, re.split(r"\r\n?|\n", text)):
        word, _, value = line.partition(":")
        if word == "#EXTINF":
            title = value.partition(",")[2].strip() or None
        elif word == "#EXTART":
            artist = value.strip() or None
        elif word == "#PLAYLIST":
            name = value.strip() or None
        elif line and not line.startswith("#"):
            entries.append(Entry(line, artist, title))
            artist = title = None
    return [(name, None, entries)]


def _pls(data: bytes) -> list[Named]:
    values: dict[str, str] = {}
    for line in re.split(r"\r\n?|\n", decode_text(data)):
        name, is_pair, value = line.partition("=")
        if is_pair:
            values.setdefault(name.strip().lower(), value.strip())
    numbers = sorted(int(match[1]) for name in values if (match := re.fullmatch(r"file(\d{1,9})", name)))
    entries = [Entry(values[f"file{n}"], None, values.get(f"title{n}")) for n in numbers if f"file{n}" in values]
    return [(values.get("x-gnome-title"), None, entries)]


def _jspf(data: bytes) -> list[Named]:
    try:
        playlist = json.loads(decode_text(data))["playlist"]
        entries = []
        for track in playlist["track"]:
            places = track.get("location") or [None]
            place = places[0] if isinstance(places, list) else places
            entries.append(Entry(_text(place), _text(track.get("creator")), _text(track.get("title"))))
        return [(_text(playlist.get("title")), _text(playlist.get("annotation")), entries)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _PlaylistError("it is no JSPF: a JSON object with playlist, and track in it") from error


def _xml(data: bytes) -> list[Named]:
    """XSPF, or a library of iTunes or Rekordbox, told by its first element."""
    root = _root_name(data)
    readers: dict[str, Callable[[bytes], list[Named]]] = {
        "playlist": _xspf,
        "plist": _itunes,
        "DJ_PLAYLISTS": _rekordbox,
    }
    if root not in readers:
        raise _PlaylistError(f"its first element is {root!r}; XSPF, iTunes and Rekordbox are read")
    try:
        return readers[root](data)
    except (ElementTree.ParseError, expat.ExpatError, plistlib.InvalidFileException, ValueError, LookupError) as error:
        raise _PlaylistError(f"it is broken: {error}") from error
    except (TypeError, AttributeError, RecursionError) as error:
        raise _PlaylistError("it is not as its program writes it") from error


def _root_name(data: bytes) -> str:
    """The name of the first element; a document with declarations of its own, which could swell, is refused there."""
    parser = expat.ParserCreate(namespace_separator=" ")
    names: list[str] = []

    def start(name: str, attributes: Mapping[str, str]) -> None:
        names.append(name.rpartition(" ")[2])
        parser.StartElementHandler = None

    def doctype(name: str, system: str | None, public: str | None, has_subset: int) -> None:
        if has_subset:
            raise _PlaylistError("it declares entities of its own, which no player writes")

    parser.StartElementHandler, parser.StartDoctypeDeclHandler = start, doctype
    try:
        parser.Parse(data, True)
    except _PlaylistError:
        raise
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise _PlaylistError(f"it is no XML: {error}") from error
    return names[0]


def _xspf(data: bytes) -> list[Named]:
    root = ElementTree.fromstring(data)  # noqa: S314, _root_name has refused declarations

    def text(element: ElementTree.Element, name: str) -> str | None:
        return _text(element.findtext(f"{{*}}{name}"))

    tracks = root.findall("{*}trackList/{*}track")
    entries = [Entry(text(track, "location"), text(track, "creator"), text(track, "title")) for track in tracks]
    return [(text(root, "title"), text(root, "annotation"), entries)]


def _itunes(data: bytes) -> list[Named]:
    library = plistlib.loads(data)
    tracks = {
        int(key): Entry(_text(track.get("Location")), _text(track.get("Artist")), _text(track.get("Name")))
        for key, track in library["Tracks"].items()
    }
    playlists: list[Named] = []
    for playlist in library["Playlists"]:
        if playlist.get("Master") or playlist.get("Folder") or "Distinguished Kind" in playlist:
            continue  # the library itself, and what a folder's playlists hold together
        items = (item["Track ID"] for item in playlist.get("Playlist Items", ()))
        entries = [tracks[item] for item in items if item in tracks]
        playlists.append((_text(playlist.get("Name")), _text(playlist.get("Description")), entries))
    return playlists


def _rekordbox(data: bytes) -> list[Named]:
    root = ElementTree.fromstring(data)  # noqa: S314, _root_name has refused declarations
    by_id, by_place = dict[str, Entry](), dict[str, Entry]()
    for track in root.iterfind("COLLECTION/TRACK"):
        entry = Entry(_text(track.get("Location")), _text(track.get("Artist")), _text(track.get("Name")))
        by_id[track.get("TrackID", "")] = entry
        by_place[track.get("Location", "")] = entry
    playlists: list[Named] = []
    for node in root.iterfind("PLAYLISTS//NODE[@Type='1']"):
        known = by_place if node.get("KeyType") == "1" else by_id
        keys = (track.get("Key", "") for track in node.iterfind("TRACK"))
        playlists.append((_text(node.get("Name")), None, [known[key] for key in keys if key in known]))
    return playlists


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


READERS: dict[str, Callable[[bytes], list[Named]]] = {
    ".m3u": _m3u,
    ".m3u8": _m3u,
    ".pls": _pls,
    ".xspf": _xml,
    ".xml": _xml,
    ".jspf": _jspf,
}
"""Ending -> what reads such a file."""

"""Playlists of players and a catalogue: which track each song is, by its path, else by its artist and title."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mulan_core.counts import counted
from mulan_core.data.names import title_of_file
from mulan_core.data.playlist_files import Entry, FoundPlaylist, read_playlist_files
from mulan_core.data.rows import hash_of
from mulan_core.errors import UserError, without_secrets

_SURE_PARTS = 2
"""Where a path shares no more, a title that differs speaks against it: CD1/01.mp3."""
_MAX_DIVISIONS = 4
MAX_ALIKE = 100
"""Tracks that are kept for one song; it takes one."""
_PLAIN = re.compile(r"\b(?:track|audio|titel|title|piste|disc|disk|cd|untitled|unknown)\b|[\W\d_]+", re.IGNORECASE)
"""What in a file's name does not tell one from another."""


@dataclass
class Matched:
    """Playlists whose songs are tracks of the catalogue."""

    rows: list[dict[str, Any]]
    """As those of a table of playlists."""
    report: dict[str, Any]
    """``playlists`` and ``songs``, their numbers; ``by_path`` and ``by_tags``, the songs found so; ``unmatched``, the
    others with playlist, song and reason; ``unread``, files that are no playlist, each with its reason."""

    @property
    def titles(self) -> dict[str, list[str]]:
        """Track -> the titles that become its texts: of all playlists but those that the evaluation asks for."""
        titles: dict[str, list[str]] = {}
        for row in self.rows:
            for track_id in row["track_ids"] if row["split"] != "test" else ():
                titles.setdefault(track_id, []).append(row["title"])
        return titles


@dataclass
class _Song:
    """An entry of a playlist, and the tracks that it may be."""

    entry: Entry
    places: list[tuple[str, ...]]
    score: tuple[int, int] = (0, 0)
    by_path: list[Mapping[str, Any]] = field(default_factory=list)
    by_tags: list[Mapping[str, Any]] = field(default_factory=list)


def match_playlists(path: str | Path, tracks: Iterable[Mapping[str, Any]], *, split: str | None = None) -> Matched:
    """Read the playlists of a file or folder, and find their songs among tracks.

    What grows is what the playlists hold, not the catalogue.

    Args:
        path: a file of a player, or a folder of them.
        tracks: rows with ``track_id``, ``uri`` (located), ``title`` and, where known, ``artist``.
        split: of all playlists; None makes half of them queries (``test``) and texts of the others.

    Raises:
        UserError: if there is no playlist, or none of its songs is in the catalogue.
    """
    playlists, unread = read_playlist_files(path)
    songs = [
        [_Song(entry, list(_places(entry, playlist.folder))) for entry in playlist.entries] for playlist in playlists
    ]
    _find([song for of_playlist in songs for song in of_playlist], tracks)
    rows, unmatched, ways = [], [], Counter[str]()
    for playlist, of_playlist in zip(playlists, songs, strict=True):
        track_ids = []
        for song in of_playlist:
            track_id, way = _choose(song)
            ways[way] += 1
            if track_id is None:
                shown = song.entry.location or " - ".join(filter(None, (song.entry.artist, song.entry.title)))
                shown = without_secrets(shown.encode("utf-8", "backslashreplace").decode())
                unmatched.append({"playlist": playlist.playlist_id, "song": shown, "reason": way})
            else:
                track_ids.append(track_id)
        if track_ids:
            rows.append(_row(playlist, list(dict.fromkeys(track_ids)), split))
    # One playlist may lie there in several formats.
    rows = list({(row["title"], *row["track_ids"]): row for row in reversed(rows)}.values())[::-1]
    report = {"playlists": len(rows), "songs": ways.total(), "by_path": ways["path"], "by_tags": ways["tags"]}
    if not rows:
        raise UserError(
            f"no song in the playlists of {path} is in the catalogue, by path or by artist and title "
            f"({ways.total():,} looked for); the first is {unmatched[0]['song']!r}"
        )
    return Matched(rows, report | {"unmatched": unmatched, "unread": unread})


def notes_of_playlists(report: Mapping[str, Any], most: int) -> Iterator[str]:
    """A report of ``match_playlists`` in sentences, with so many of the songs that did not match at most."""
    missing = len(report["unmatched"])
    found = f"{report['by_path']:,} were found by path, {report['by_tags']:,} by artist and title, {missing:,} not"
    yield f"{counted(report['playlists'], 'playlist')}; of {counted(report['songs'], 'song')} there {found}"
    for song in report["unmatched"][:most]:
        yield f"{song['playlist']}: {song['song']}: {song['reason']}"
    for file in report["unread"][:most]:
        yield f"not read: {file}"


def add_titles(row: dict[str, Any], titles: Mapping[str, list[str]]) -> dict[str, Any]:
    """A row of the manifest with the titles of its playlists as ``pl`` texts; a test track's are not for training."""
    own = titles.get(row["track_id"], []) if row["split"] != "test" else []
    added = [{"source": "pl", "text": title} for title in dict.fromkeys(own)]
    return row | {"texts": row["texts"] + [text for text in added if text not in row["texts"]]}


def _row(playlist: FoundPlaylist, track_ids: list[str], split: str | None) -> dict[str, Any]:
    # By the title, so that no title is a text that is trained on and a query too.
    split = split or ("train" if hash_of(playlist.title.casefold()) % 2 else "test")
    named = {"playlist_id": playlist.playlist_id, "title": playlist.title, "description": playlist.description}
    return named | {"track_ids": track_ids, "split": split}


def _find(songs: list[_Song], tracks: Iterable[Mapping[str, Any]]) -> None:
    by_name: dict[str, list[_Song]] = {}
    by_tags: dict[tuple[str, str], list[_Song]] = {}
    for song in songs:
        for name in dict.fromkeys(place[-1].casefold() for place in song.places):
            by_name.setdefault(name, []).append(song)
        for artist, title in dict.fromkeys(_named(song.entry)):
            if artist and title:
                by_tags.setdefault((artist, title), []).append(song)
    for track in tracks:
        parts = _parts(track["uri"])
        for song in by_name.get(parts[-1].casefold(), ()) if parts else ():
            score = max(_common(place, parts) for place in song.places)
            if score > song.score:
                song.score, song.by_path = score, []
            if score == song.score and len(song.by_path) < MAX_ALIKE:
                song.by_path.append(track)
        tags = _plain(track.get("artist")), _plain(track["title"] or title_of_file(track["uri"]))
        for song in by_tags.get(tags, ()):
            if len(song.by_tags) < MAX_ALIKE:
                song.by_tags.append(track)


def _choose(song: _Song) -> tuple[str | None, str]:
    """The track that a song is, and by what it was found; or None, and why."""
    tags = {track["track_id"] for track in song.by_tags}
    found = [track for track in song.by_path if _is_likely(song, track)]
    if len(found) > 1:  # songs of one file, or copies
        found = [track for track in found if track["track_id"] in tags]
    if len(found) == 1:
        return found[0]["track_id"], "path"
    if len(tags) == 1:
        return tags.pop(), "tags"
    several = len(song.by_path) > 1 or len(tags) > 1
    return None, "several tracks match" if several else "no track of the catalogue matches"


def _is_likely(song: _Song, track: Mapping[str, Any]) -> bool:
    """Whether more than a name that many files have speaks for it, and neither artist nor title against it."""
    parts = _parts(track["uri"])
    if any(song.score[0] >= min(len(place), len(parts)) for place in song.places):  # the whole path
        return True
    its = _plain(track.get("artist")), _plain(track["title"])
    named = list(_named(song.entry))
    artists = [_are_alike(artist, its[0]) for artist, _ in named if artist and its[0]]
    titles = [_are_alike(title, its[1]) for _, title in named if title and its[1]]
    if artists and not any(artists):
        return False
    if titles and not any(titles) and song.score[0] <= _SURE_PARTS:
        return False
    if song.score[0] > 1 or titles:
        return True
    return len(_PLAIN.sub("", posixpath.splitext(song.places[0][-1])[0])) > 2


def _named(entry: Entry) -> Iterator[tuple[str, str]]:
    """Artist and title of an entry; where one line holds both, of each way to divide it."""
    title = entry.title or ""
    if entry.artist:
        yield _plain(entry.artist), _plain(title)
        return
    yield "", _plain(title)
    parts = title.split(" - ")
    for i in range(1, min(len(parts), _MAX_DIVISIONS)):
        yield _plain(" - ".join(parts[:i])), _plain(" - ".join(parts[i:]))


def _are_alike(mine: str, its: str) -> bool:
    return mine in its or its in mine


def _places(entry: Entry, folder: str) -> Iterator[tuple[str, ...]]:
    """Where a song may lie: as it stands there and, where that differs, with its percent signs decoded."""
    given = entry.location
    if not given:
        return
    for place in dict.fromkeys((given, given if "://" in given else unquote(given))):
        is_whole = "://" in place or re.match(r"[a-zA-Z]:|[/\\]|file:", place)
        if parts := _parts(place if is_whole else f"{folder}/{place}"):
            yield parts


def _parts(location: str) -> tuple[str, ...]:
    """The parts of a path or URL, of any system, in one Unicode form."""
    if "://" in location or location.startswith("file:"):
        try:
            location = unquote(urlsplit(location).path)
        except ValueError:
            return ()
    path = posixpath.normpath(location.replace("\\", "/"))
    return tuple(part for part in unicodedata.normalize("NFC", path).split("/") if part not in ("", "."))


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[int, int]:
    """How many parts two paths share at their ends, whatever their case; and how many of these letter for letter."""
    pairs = list(
        takewhile(
            lambda pair: pair[0].casefold() == pair[1].casefold(), zip(reversed(one), reversed(other), strict=False)
        )
    )
    return len(pairs), sum(mine == its for mine, its in pairs)


def _plain(text: str | None) -> str:
    """A name without what people type in more than one way: case, accents, signs, blanks."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text or "").casefold() if letter.isalnum())

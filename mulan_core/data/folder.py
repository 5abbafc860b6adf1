r"""A folder of audio as a table of tracks: one row a file, its texts from the tags inside the file.

A CUE sheet beside a file makes a row of each of its songs, in place of the file's.

Nobody typed these names, so none of them stops the others: what a table cannot hold is escaped, ``caf\xe9.wav``, and
as no file is called so, that one goes to quarantine under its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mulan_core.data.cue import MAX_BYTES, Beside, SheetError, Song, read_sheet
from mulan_core.data.listing import ENDINGS, Listing, list_folder, notes_of, printable
from mulan_core.data.names import title_of_file
from mulan_core.data.places import remedy_of_elsewhere
from mulan_core.data.tables import CHUNK_ROWS, Chunk, Table
from mulan_core.data.tags import Tags, genres, read_tags
from mulan_core.data.uris import locate, open_uri, root_of
from mulan_core.errors import UserError

COLUMNS = ["uri", "start_s", "duration_s", "title", "artist", "texts"]
_ESCAPE = r"\x"


def read_folder(path: str | Path, *, allow_private: bool = True) -> Table:
    """List a folder, its folders included, and read the tags of its audio files as the rows are asked for.

    Args:
        path: the folder, or the URL of one.
        allow_private: ask its files from addresses that are not public, too.

    Raises:
        UserError: if the folder cannot be listed or holds no audio.
    """
    root = root_of(path)
    listing = list_folder(root)
    files, left_out = listing.audio, listing.left_out()
    if not files:
        notes = notes_of(left_out) or [f"it is empty; audio ends in {', '.join(sorted(ENDINGS))}"]
        raise UserError(f"the folder {path} holds no audio file: {'; '.join(notes)}")
    songs, left_out["sheets"] = _read_sheets(listing, root, allow_private)

    def chunks() -> Iterator[Chunk]:
        last = 0
        for first in range(0, len(files), CHUNK_ROWS):
            names = files[first : first + CHUNK_ROWS]
            rows = [row for name in names for row in _rows(name, songs.get(name, []), root, allow_private)]
            yield Chunk(list(range(last + 1, last + 1 + len(rows))), rows)
            last += len(rows)

    return Table(COLUMNS, None, chunks(), left_out)


def _read_sheets(listing: Listing, root: str, allow_private: bool) -> tuple[dict[str, list[Song]], list[str]]:
    """Audio file -> the songs that a CUE sheet finds in it; and why other sheets are not used."""
    songs, unused = dict[str, list[Song]](), list[str]()
    beside = Beside(listing.audio)
    for sheet in listing.sheets:
        try:
            with open_uri(locate(sheet, root), allow_private=allow_private) as file:
                found = beside.find(read_sheet(file.read(MAX_BYTES + 1)), sheet)
            if taken := next((song.file for song in found if song.file in songs), None):
                raise SheetError(f"another sheet tells of {printable(taken)}")
        except (OSError, ValueError) as error:  # SheetError, and whatever broken bytes do to a decoder
            unused.append(f"{printable(sheet)} ({' '.join(printable(str(error)).split())})")
            continue
        for song in found:
            songs.setdefault(song.file, []).append(song)
    return songs, unused


def remedy_of_missing(uri: str) -> str:
    """What to add of a file that is not there: its name was escaped here, or is of another machine; else nothing."""
    remedy = "; a name like this stands for one that is not UTF-8 text or holds '::', so rename the file"
    return remedy if _ESCAPE in uri else remedy_of_elsewhere(uri)


def _as_uri(name: str) -> str:
    return printable(name).replace("::", rf":{_ESCAPE}3a")  # fsspec takes it for one place inside another


def _rows(name: str, songs: list[Song], root: str, allow_private: bool) -> list[dict[str, Any]]:
    """The rows of a file: one, or one for each song that a sheet finds in it."""
    tags = Tags()
    # A file that cannot be opened is a row all the same: prepare says why it is unusable.
    with suppress(OSError), open_uri(locate(name, root), allow_private=allow_private) as file:
        tags = read_tags(file)
    uri = _as_uri(name)
    title = tags.title or title_of_file(uri)
    row = {"uri": uri, "title": title, "artist": tags.artist, "texts": tags.texts}
    return [row | _of_song(song, tags) for song in songs] or [row]


def _of_song(song: Song, tags: Tags) -> dict[str, Any]:
    """What a sheet says of a song; the title in the file's tags is the album's."""
    found = [("sf", song.title)] + [("sf", genre) for genre in genres(song.genre or "")]
    found += [(text["source"], text["text"]) for text in tags.texts if text["text"] != tags.title]
    texts = [{"source": source, "text": text} for source, text in dict.fromkeys(found) if text]
    row: dict[str, Any] = {"title": song.title, "artist": song.artist, "texts": texts}
    is_whole = song.start_s == 0 and song.duration_s is None
    segment = {} if is_whole else {"start_s": song.start_s, "duration_s": song.duration_s}
    return {column: value for column, value in row.items() if value} | segment

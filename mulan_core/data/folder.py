r"""A folder of audio as a table of tracks: one row a file, its texts from the tags inside the file.

Nobody typed these names, so none of them stops the others: what a table cannot hold is escaped, ``caf\xe9.wav``, and
as no file is called so, that one goes to quarantine under its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mulan_core.data.listing import ENDINGS, list_folder, notes_of, printable
from mulan_core.data.names import title_of_file
from mulan_core.data.places import remedy_of_elsewhere
from mulan_core.data.tables import CHUNK_ROWS, Chunk, Table
from mulan_core.data.tags import Tags, read_tags
from mulan_core.data.uris import locate, open_uri, root_of
from mulan_core.errors import UserError

COLUMNS = ["uri", "title", "artist", "texts"]
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

    def chunks() -> Iterator[Chunk]:
        for first in range(0, len(files), CHUNK_ROWS):
            names = files[first : first + CHUNK_ROWS]
            yield Chunk(
                list(range(first + 1, first + 1 + len(names))), [_row(name, root, allow_private) for name in names]
            )

    return Table(COLUMNS, None, chunks(), left_out)


def remedy_of_missing(uri: str) -> str:
    """What to add of a file that is not there: its name was escaped here, or is of another machine; else nothing."""
    remedy = "; a name like this stands for one that is not UTF-8 text or holds '::', so rename the file"
    return remedy if _ESCAPE in uri else remedy_of_elsewhere(uri)


def _as_uri(name: str) -> str:
    return printable(name).replace("::", rf":{_ESCAPE}3a")  # fsspec takes it for one place inside another


def _row(name: str, root: str, allow_private: bool) -> dict[str, Any]:
    tags = Tags()
    # A file that cannot be opened is a row all the same: prepare says why it is unusable.
    with suppress(OSError), open_uri(locate(name, root), allow_private=allow_private) as file:
        tags = read_tags(file, name)
    uri = _as_uri(name)
    title = tags.title or title_of_file(uri)
    return {"uri": uri, "title": title, "artist": tags.artist, "texts": tags.texts}

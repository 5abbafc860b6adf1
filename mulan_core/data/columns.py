"""The names of a manifest's columns: which must be there, and which was likely meant where one is called otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from mulan_core.data.shards import CLIP_FACTS
from mulan_core.data.tables import unencodable
from mulan_core.errors import UserError

RESERVED = ("audio", "media_path", "clip_key", *CLIP_FACTS.names)
"""Columns that prepare adds to its shards; a manifest cannot carry others of these names along."""

# fmt: off
LIKELY = {
    "uri": (
        "url", "path", "file", "filepath", "filename", "location", "audiopath", "audiofile", "audiofilepath",
        "audiourl", "trackpath", "songpath", "wav", "mp3", "href", "source", "fullpath", "name", "track", "song",
    ),
    "text": (
        "caption", "description", "prompt", "comment", "tags", "keywords", "captions", "descriptions", "aspects",
        "aspectlist", "sentence", "lyrics", "tag",
    ),
    "track_id": ("id", "trackid", "uuid", "songid", "ytid", "clipid"),
    "title": ("trackname", "songname", "tracktitle", "songtitle", "name", "song"),
    "artist": ("artistname", "performer", "creator", "author", "artists"),
    "labels": ("label", "genre", "genres", "class", "classes", "category"),
    "split": ("subset", "fold", "partition", "set"),
    "start_s": ("start", "startsec", "starttime", "offset"),
    "duration_s": ("duration", "durationsec", "length", "seconds"),
    "license": ("licence",),
}
# fmt: on
"""Our column -> what others call it, the likeliest first, in small letters and nothing else."""


def likely(names: Sequence[str], column: str) -> str | None:
    """The name among these that was likely meant for a column of ours; None if it is there or none is like it.

    >>> likely(["File Name", "caption"], "uri"), likely(["URI", "path"], "uri"), likely(["uri", "path"], "uri")
    ('File Name', 'URI', None)
    """
    if column in names:
        return None
    bare = {"".join(filter(str.isalnum, name.lower())): name for name in reversed(names) if name not in LIKELY}
    wanted = ("".join(filter(str.isalnum, column)), *LIKELY[column])
    return next((bare[word] for word in wanted if word in bare), None)


def check_columns(path: object, names: Sequence[str]) -> None:
    """Refuse a manifest without a column ``uri``, or with one that cannot be.

    Raises:
        UserError: naming the column that was likely meant.
    """
    if "uri" not in names and "audio" in names:
        raise UserError(
            f"the manifest {path} has no column 'uri' but a column 'audio', as data sets of Hugging Face keep the "
            "audio itself; write each to a file and name it in a column 'uri' (docs/data.md shows how)"
        )
    if "uri" not in names:
        meant = likely(names, "uri")
        advice = f"did you mean {meant!r}? rename it to 'uri'; " if meant else ""
        found = ", ".join(" ".join(name.split()) for name in names if name.strip())[:200]
        raise UserError(f"the manifest {path} has no column 'uri'; {advice}found: {found}")
    for name in RESERVED:
        if name in names:
            raise UserError(f"the manifest {path} has a column {name!r}, a name that prepare itself uses; rename it")
    bad = next((name for name in names if unencodable(name)), None)
    if bad is not None:
        raise UserError(f"the manifest {path} has a column {bad!r} that is not UTF-8 text")


def notes_of_columns(names: Sequence[str]) -> list[str]:
    """Sentences about columns that are carried along, though one of ours was likely meant."""
    said, notes = set(), []
    for column in LIKELY:
        meant = None if column == "text" and "texts" in names else likely([n for n in names if n not in said], column)
        if meant and column != "uri":
            said.add(meant)
            notes.append(f"there is no column {column!r}; did you mean {meant!r}? rename it to be read")
    return notes

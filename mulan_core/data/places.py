"""Paths as other machines write them, and where their files lie here.

A table may come from Windows, from a machine with other folders, or from a disk that spells é with two characters. Its
tracks keep the ids that follow from what it says; what changes is the place that is read.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from mulan_core.data.uris import is_remote, locate, root_of
from mulan_core.errors import UserError

WINDOWS = re.compile(r"[A-Za-z]:(?:\\(?!x3a)|/)(?!/)|\\\\[^\\]")
"""A drive, or a share of another machine: C:\\Music, C:/Music, \\\\nas\\music; no scheme of one letter, and no name
with ``::`` of a folder here (``data/folder.py`` writes the second one so)."""

MAX_LISTINGS = 64
"""Folders whose names are kept at once."""


class Places:
    """Callable: a uri as a table has it in, where it is to be read out."""

    def __init__(self, root: str, moved: Mapping[str, str]) -> None:
        """Take the folder at which relative uris start, and folders of elsewhere with their places here."""
        self._root = root
        self._moved = sorted(((_plain(old), new) for old, new in moved.items()), key=lambda pair: -len(pair[0]))
        self._names: dict[str, dict[str, str]] = {}

    def __call__(self, uri: str) -> str:
        """The uri of the same file here; unchanged where nothing is known of it."""
        plain = _plain(uri)
        for old, new in self._moved:
            rest = _behind(plain, old)
            if rest is not None:
                return self._as_spelled(f"{new.rstrip('/')}/{rest}" if rest else new)
        if why_windows(uri):
            return uri
        return self._as_spelled(f"file://{uri.removeprefix('file:')}" if _is_short(uri) else uri)

    def allows(self, uri: str) -> bool:
        """Whether a uri lies in a folder here that was given for one of elsewhere."""
        place = os.path.normpath(locate(uri, self._root))
        return not is_remote(uri) and any(_behind(place, os.path.normpath(new)) is not None for _, new in self._moved)

    def _as_spelled(self, uri: str) -> str:
        """The uri with the letters that the disk has, and slashes: é may be one character or two."""
        if is_remote(uri) or is_remote(self._root) or "\0" in uri or (uri.isascii() and "\\" not in uri):
            return uri
        path = locate(uri, self._root)
        if Path(path).exists():
            return uri
        for form in (path, path.replace("\\", "/")):
            found = self._find(form)
            if found:
                inside = _behind(found, self._root)
                return found if inside is None or Path(uri).is_absolute() or "://" in uri else inside
        return uri

    def _find(self, path: str) -> str | None:
        place = Path(PurePosixPath(path).anchor or ".")
        for part in PurePosixPath(path).relative_to(place).parts:
            if not (place / part).exists():
                name = self._listed(str(place)).get(unicodedata.normalize("NFC", part))
                if name is None:
                    return None
                place /= name
            else:
                place /= part
        return str(place)

    def _listed(self, folder: str) -> dict[str, str]:
        if folder not in self._names:
            if len(self._names) >= MAX_LISTINGS:
                self._names.clear()
            try:
                names = [path.name for path in Path(folder).iterdir()]
            except OSError:
                names = []
            self._names[folder] = {unicodedata.normalize("NFC", name): name for name in names if not name.isascii()}
        return self._names[folder]


def why_windows(uri: str) -> str | None:
    """Why nothing can lie at a path of Windows, with what to do; None for other places."""
    if not WINDOWS.match(_without_scheme(uri)):
        return None
    folder = _plain(uri).rpartition("/")[0].replace("/", "\\")
    return f"{uri!r} looks like a Windows path; say where its folder lies here: --map '{folder}=/FOLDER'"


def remedy_of_elsewhere(uri: str) -> str:
    """What to add of a file that is not there, where this machine has not even its first folders; else nothing."""
    parts = PurePosixPath(_plain(uri)).parts
    if is_remote(uri) or parts[:1] != ("/",):
        return ""
    tops = (Path(*parts[:length]) for length in (2, 3) if length < len(parts))
    top = next((top for top in tops if not top.exists()), None)
    if top is None:
        return ""
    return (
        f"; there is no folder {top} here: if the table is of another machine, say where it lies: --map '{top}=/FOLDER'"
    )


def parse_moves(values: list[str] | None) -> dict[str, str]:
    r"""The folders that were given as ``FROM=TO``, where TO is a folder here, made absolute, or a URL.

    Raises:
        UserError: naming the one that is neither.

    >>> parse_moves([r"C:\Music=s3://bucket/music"])
    {'C:\\Music': 's3://bucket/music'}
    """
    moves = {}
    for value in values or ():
        old, mark, new = value.rpartition("=")
        if not mark or not old or not new:
            raise UserError(f"--map {value!r} is not FROM=TO, such as 'C:\\Music=/music'")
        if not is_remote(new) and not Path(new).is_dir():
            raise UserError(f"--map {value!r}: there is no folder {new} here")
        moves[old] = new if is_remote(new) else root_of(new)
    return moves


def _is_short(uri: str) -> bool:
    """Whether a uri is file:/x, as Java writes it."""
    return uri[:6].lower() == "file:/" and uri[5:7] != "//"


def _plain(uri: str) -> str:
    """A path with slashes and without a scheme; a URL as it stands."""
    path = _without_scheme(uri)
    return path.replace("\\", "/") if WINDOWS.match(path) else path


def _without_scheme(uri: str) -> str:
    if uri[:6].lower() != "file:/":
        return uri
    path = unquote(urlsplit(uri).path)
    return path[1:] if WINDOWS.match(path[1:]) else path


def _behind(place: str, folder: str) -> str | None:
    """What of a place follows a folder, or None; Windows does not tell capitals from small letters."""
    is_windows = bool(WINDOWS.match(f"{folder}/"))

    def compared(parts: list[str]) -> list[str]:
        return [unicodedata.normalize("NFC", part.lower() if is_windows else part) for part in parts]

    ahead, parts = folder.rstrip("/").split("/"), place.split("/")
    is_same = compared(parts[: len(ahead)]) == compared(ahead)
    return "/".join(parts[len(ahead) :]).lstrip("/") if is_same else None

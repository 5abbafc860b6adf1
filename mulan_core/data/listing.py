"""What lies in a folder of music: its audio, each file once, and what is left out, counted so that nothing is lost
without a word.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mulan_core.data.uris import is_remote, list_remote, local_path
from mulan_core.errors import UserError

# fmt: off
ENDINGS = frozenset((
    ".wav", ".wave", ".bwf", ".flac", ".ogg", ".oga", ".opus", ".spx", ".mp3", ".mp2", ".mp1", ".mpga", ".aif", ".aiff",
    ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".voc", ".m4a", ".m4b", ".m4r", ".mp4", ".3gp", ".aac", ".adts",
    ".ac3", ".eac3", ".dts", ".amr", ".wma", ".asf", ".wv", ".ape", ".tta", ".tak", ".shn", ".ofr", ".mpc", ".dsf",
    ".dff", ".mka", ".webm", ".weba", ".ra",
))
# fmt: on
"""Files that count as audio. Some cannot be decoded here: they go to quarantine, which is better than silence."""

ARCHIVES = re.compile(r"\.(?:zip|rar|7z|tar|tar\.(?:gz|bz2|xz|zst)|tgz|tbz2?|txz|gz|bz2|xz|zst|iso)$", re.IGNORECASE)
"""Names of files that may hold music and are not looked into."""

SYSTEM = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "folder.htt"))
"""Files of file managers. Hidden files, such as .DS_Store and the resource fork ._a.mp3, count as such too."""
SYSTEM_FOLDERS = frozenset(
    ("__macosx", "@eadir", "$recycle.bin", "#recycle", "system volume information", "lost+found")
)

MAX_NAMES = 5
"""Names in a sentence."""

_MAGIC = re.compile(
    rb"OggS|fLaC|ID3[\2-\4]|RIFF....WAVE|RF64....WAVE|FORM....AIF[FC]|wvpk|TTA[12]|MAC |caff\x00\x01|\.snd|DSD |FRM8"
    rb"|MPCK|MP\+|....ftypM4A ",
    re.DOTALL,
)
"""How audio begins in a file without an ending; containers of films are not among them."""


@dataclass(frozen=True)
class Listing:
    """The files of a folder by their relative paths, sorted."""

    audio: list[str]
    sheets: list[str]
    """CUE sheets."""
    others: Counter[str]
    """Ending -> files that are no audio by it, archives and CUE sheets not among them; empty for none."""
    archives: list[str]
    links: int
    """Links to audio that is taken under another name."""
    system: int
    """Hidden files, and those of operating systems."""
    closed: list[str]
    """Folders that cannot be read."""

    def left_out(self) -> dict[str, Any]:
        """What is not taken: ``endings`` with their counts, ``archives``, ``links``, ``system``, ``closed``."""
        return {
            "endings": dict(sorted(self.others.items(), key=lambda item: (-item[1], item[0]))),
            "archives": [printable(name) for name in self.archives],
            "links": self.links,
            "system": self.system,
            "closed": [printable(name) for name in self.closed],
        }


def list_folder(folder: str | os.PathLike[str]) -> Listing:
    """List a folder that the user has named, its folders included.

    Links to folders are followed once, those that lead to a folder around this one never, so loops end. A file that
    several links lead to is taken once, under its own name where that lies in the folder.

    Raises:
        UserError: if it cannot be listed.
    """
    base, closed = local_path(str(folder)), list[str]()
    try:
        remote = is_remote(str(folder))
        files = [_File(path) for path in list_remote(str(folder))] if remote else list(_walk(base, closed))
    except Exception as error:  # each protocol's library has exceptions of its own
        raise UserError(f"cannot list {folder}: {' '.join(str(error).split())}") from error
    if base in closed:
        raise UserError(f"cannot list {folder}; it may not be read by you, or is no folder")
    files.sort(key=lambda file: file.path)
    audio, archives, sheets, others, system = [], [], [], Counter[str](), 0
    for file in files:
        ending = ending_of(file.path)
        if _is_system(file.path):
            system += 1
        elif ending in ENDINGS or (not ending and _begins_as_audio(file.real)):
            audio.append(file)
        elif ARCHIVES.search(file.path):
            archives.append(file.path)
        elif ending == ".cue":
            sheets.append(file.path)
        else:
            others[ending] += 1
    once = _without_repetitions(audio)
    closed = sorted(os.path.relpath(path, base) for path in closed)
    return Listing(once, sheets, others, archives, len(audio) - len(once), system, closed)


@dataclass(frozen=True)
class _File:
    path: str
    """Relative to the folder that is listed."""
    real: str = ""
    """Where it lies, links resolved; empty on a server."""
    is_link: bool = False


def ending_of(name: str) -> str:
    """The ending of a file's name in small letters; empty for none, also where a dot belongs to the name.

    >>> ending_of("Intro.FLAC"), ending_of("x_ogg"), ending_of("Mr. Blue Sky")
    ('.flac', '', '')
    """
    ending = PurePosixPath(name).suffix.lower().rstrip()
    return ending if re.fullmatch(r"\.[a-z0-9_~-]{1,10}", ending) else ""


def notes_of(left_out: Mapping[str, Any] | None) -> list[str]:
    """What ``Listing.left_out`` holds, and ``sheets`` that are not used, in sentences for people; none for a table."""
    if left_out is None:
        return []
    notes = []
    if endings := left_out["endings"]:
        counts = ", ".join(f"{number:,} {ending or 'without an ending'}" for ending, number in endings.items())
        notes.append(f"left out by their endings, not looked into: {counts}")
    if archives := left_out["archives"]:
        notes.append(f"archives are not looked into: {few_of(archives)}; unpack them first")
    if sheets := left_out.get("sheets"):
        notes.append(f"CUE sheets that are not used: {few_of(sheets)}")
    if links := left_out["links"]:
        notes.append(f"links to files that are taken under another name: {links:,}")
    if closed := left_out["closed"]:
        notes.append(f"folders that you may not read are left out: {few_of(closed)}")
    if system := left_out["system"]:
        notes.append(f"left out as hidden, or as the operating system's: {system:,}")
    return notes


def printable(name: str) -> str:
    r"""A file's name as text that UTF-8 can hold: other bytes are escaped, ``caf\\xe9.wav``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def few_of(names: Sequence[str]) -> str:
    """Some names of many, for a sentence."""
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _walk(base: str, closed: list[str]) -> Iterator[_File]:
    """The files of a folder on this machine; folders that cannot be read are added to ``closed``."""
    around, seen = Path(base).resolve(), set[str]()
    waiting = [base]  # what is linked comes behind what lies here, so a file's own name is met
    while waiting:
        for top, folders, names in os.walk(waiting.pop(0), onerror=lambda error: closed.append(error.filename)):
            here = os.path.realpath(top)
            if here in seen or (top != base and around.is_relative_to(here)):
                folders.clear()
                continue
            seen.add(here)
            waiting += [str(path) for name in sorted(folders) if (path := Path(top, name)).is_symlink()]
            for name in names:
                path = Path(top, name)
                real = os.path.realpath(path) if (is_link := path.is_symlink()) else f"{here}/{name}"
                yield _File(os.path.relpath(path, base), real, is_link)


def _without_repetitions(audio: list[_File]) -> list[str]:
    taken = {file.real for file in audio if not file.is_link}
    paths = []
    for file in audio:
        if not file.is_link or file.real not in taken:
            taken.add(file.real)
            paths.append(file.path)
    return paths


def _is_system(path: str) -> bool:
    *folders, name = path.lower().split("/")
    return (
        name in SYSTEM
        or any(part in SYSTEM_FOLDERS for part in folders)
        or any(part.startswith(".") for part in (*folders, name))
    )


def _begins_as_audio(path: str) -> bool:
    """False for a file on a server too, which would have to be asked for."""
    try:
        if not path or not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            return _MAGIC.match(file.read(16)) is not None
    except OSError:
        return False

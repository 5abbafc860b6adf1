"""Where tables and audio are: paths and URLs, opened through fsspec, with the rule of what a manifest may name."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import fsspec

from mulan_core.errors import UserError

PROTOCOLS = ("file", "s3", "gs", "http", "https", "az")
"""What a URL may start with. fsspec knows more, such as archives within archives; a manifest needs none of them."""

REMOTE_THREADS = 32
"""Requests for marks at once: each waits for its server nearly all the time."""


def is_remote(uri: str | Path) -> bool:
    """True for a URL that is not on this machine's disks."""
    return "://" in str(uri) and not str(uri).startswith("file://")


def is_folder(path: str | Path) -> bool:
    """True for a folder; of a URL its lack of an ending must tell."""
    if is_remote(path):
        return not posixpath.splitext(urlsplit(str(path)).path.rstrip("/"))[1]
    return Path(local_path(path)).is_dir()


def root_of(manifest: str | Path) -> str:
    """The folder where a manifest's relative uris start; a manifest that is a folder is its own root."""
    if is_remote(manifest):
        return str(manifest).rstrip("/") if is_folder(manifest) else str(manifest).rpartition("/")[0]
    path = Path(local_path(manifest)).resolve()
    return str(path if path.is_dir() else path.parent)


def locate(uri: str, root: str) -> str:
    """Where a track's audio is: a relative uri starts at the catalogue's root, others stand as they are."""
    if "://" in uri:
        return local_path(uri) if uri.startswith("file://") else uri
    if Path(uri).is_absolute():
        return uri
    return f"{root}/{uri}" if is_remote(root) else str(Path(root) / uri)


def why_refused(uri: str, root: str, *, allow_outside: bool) -> str | None:
    """Why a manifest may not name this uri, or None.

    A table that somebody else has written must not make the endpoint play any file of this machine, so local paths
    stay under the catalogue's root unless the user says otherwise. URLs are as reachable to others as to us.
    """
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    if (scheme and scheme not in PROTOCOLS) or "::" in uri:
        return f"{uri!r} is not a path or a URL that starts with {', '.join(PROTOCOLS)}"
    if "\0" in uri:
        return f"{uri!r} holds a zero byte"
    if allow_outside or is_remote(uri):
        return None
    path = local_path(uri)
    if is_remote(root):
        outside = Path(path).is_absolute() or posixpath.normpath(path).startswith("..")
    else:
        place = os.path.normpath(Path(root) / path)
        outside = place != root and not place.startswith(root.rstrip("/") + "/")
    return f"{uri!r} lies outside {root}; move the table, or allow it: --allow-outside" if outside else None


def local_path(uri: str | Path) -> str:
    """A path, also where it came as a file:// URL."""
    uri = str(uri)
    return unquote(urlsplit(uri).path) if uri.startswith("file://") else uri


@contextmanager
def open_uri(uri: str | Path) -> Iterator[BinaryIO]:
    """Open a path or URL for reading.

    Raises:
        FileNotFoundError: if there is nothing.
        OSError: if it cannot be reached, whatever the protocol's library calls that.
    """
    if not is_remote(uri):
        with Path(local_path(uri)).open("rb") as file:
            yield file
        return
    try:
        opened = fsspec.open(str(uri), "rb").open()
    except ImportError as error:
        raise OSError(f"{error} (mulan[s3] and mulan[gcs] do)") from error
    except OSError:
        raise
    except Exception as error:  # each protocol's library has exceptions of its own
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error
    with opened:
        yield opened


def marks_of(uris: Sequence[str]) -> list[str | None]:
    """What tells a changed file from the same one without reading it: size and time, or the server's ETag.

    Null where the file is missing or out of reach, empty where its server tells nothing of it.
    """
    if not any(map(is_remote, uris)):
        return [_mark(uri) for uri in uris]
    with ThreadPoolExecutor(REMOTE_THREADS) as pool:
        return list(pool.map(_mark, uris))


def list_files(folder: str | Path) -> list[str]:
    """Relative paths of all files under a folder, sorted; hidden ones are left out.

    Raises:
        UserError: if it cannot be listed.
    """
    try:
        if is_remote(folder):
            fs, base = fsspec.core.url_to_fs(str(folder))
            found = [path[len(base.rstrip("/")) + 1 :] for path in fs.find(base)]
        else:
            base = local_path(folder)
            walked = os.walk(base)  # follows no links to folders, so it ends
            found = [os.path.relpath(Path(top) / name, base) for top, _, names in walked for name in names]
    except Exception as error:
        raise UserError(f"cannot list {folder}: {' '.join(str(error).split())}") from error
    return sorted(path for path in found if not any(part.startswith(".") for part in path.split("/")))


def _mark(uri: str) -> str | None:
    try:
        if not is_remote(uri):
            stat = Path(uri).stat()
            return f"{stat.st_size}:{stat.st_mtime_ns}"
        fs, path = fsspec.core.url_to_fs(uri)
        facts: dict[str, Any] = fs.info(path)
    except Exception:  # whatever it is, prepare meets it again when it reads the file, and says so
        return None
    times = ("ETag", "etag", "md5Hash", "content_md5", "Last-Modified", "LastModified", "last_modified", "mtime")
    known = next((str(facts[name]) for name in times if facts.get(name)), None)
    return f"{facts.get('size')}:{known}" if known else ""

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

from mulan_core.data.addresses import ALLOW, PrivateAddressError, refusal_behind, why_private
from mulan_core.files import why_no_file

PROTOCOLS = ("file", "s3", "gs", "http", "https", "az")
"""What a URL may start with. fsspec knows more, such as archives within archives; a manifest needs none of them."""

HTTP = ("http", "https")
"""Those whose hosts a URL chooses; a bucket's host is in the user's configuration."""

REMOTE_THREADS = 32
"""Requests for marks at once: each waits for its server nearly all the time."""


def scheme_of(uri: str | Path) -> str:
    """What a URL starts with, in small letters; empty for a path."""
    return str(uri).partition("://")[0].lower() if "://" in str(uri) else ""


def is_remote(uri: str | Path) -> bool:
    """True for a URL that is not on this machine's disks."""
    return scheme_of(uri) not in ("", "file")


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
        return uri if is_remote(uri) else local_path(uri)
    if Path(uri).is_absolute():
        return uri
    return f"{root}/{uri}" if is_remote(root) else str(Path(root) / uri)


def why_refused(uri: str, root: str, *, allow_outside: bool, allow_private: bool) -> str | None:
    """Why a manifest may not name this uri, or None.

    A table that somebody else has written must not make the endpoint play any file of this machine, so local paths
    stay under the catalogue's root; nor may it make prepare ask services that only this machine or its network
    reaches, so http(s) addresses are public ones; unless the user says otherwise. Buckets (``s3://``, ``gs://``,
    ``az://``) are read with the credentials of whoever runs prepare, from the endpoint that they have configured: a
    table may name whatever those credentials open.

    Args:
        uri: as the table has it.
        root: of the manifest; see ``root_of``.
        allow_outside: take local paths outside the root.
        allow_private: take addresses that are not public.
    """
    scheme, location = scheme_of(uri), locate(uri, root)
    if scheme and scheme not in PROTOCOLS:
        return f"{uri!r} is not a path or a URL that starts with {', '.join(PROTOCOLS)}"
    if "\0" in uri:
        return f"{uri!r} holds a zero byte"
    if scheme_of(location) in HTTP:
        if not _names_host(location):
            return f"{uri!r} is not a URL: it names no host"
        if not allow_private and (reason := why_private(location)):
            return f"{uri!r} {reason}; {ALLOW}"
    elif is_remote(location) and "::" in uri:
        return f"{uri!r} holds '::', which would lead from one file system into another"
    elif scheme == "az" and {"@", "."} & set(urlsplit(uri).netloc):  # its library would sign in there as us
        return f"{uri!r} names an account; a table names containers of the account that you have configured"
    if allow_outside or is_remote(uri):
        return None
    path = local_path(uri)
    if is_remote(root):
        outside = Path(path).is_absolute() or posixpath.normpath(path).startswith("..")
    else:
        location = os.path.normpath(Path(root) / path)
        outside = location != root and not location.startswith(root.rstrip("/") + "/")
    return f"{uri!r} lies outside {root}; move the table, or allow it: --allow-outside" if outside else None


def local_path(uri: str | Path) -> str:
    """A path, also where it came as a file:// URL."""
    uri = str(uri)
    return unquote(urlsplit(uri).path) if scheme_of(uri) == "file" else uri


def _names_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False


@contextmanager
def open_uri(uri: str | Path, *, allow_private: bool) -> Iterator[BinaryIO]:
    """Open a path or URL for reading.

    Args:
        uri: what to open.
        allow_private: ask addresses that are not public, too. What the user has typed may be anywhere; what a table
            names is ``prepare.allow_private``'s to decide.

    Raises:
        FileNotFoundError: if there is nothing, or on this machine what is no file; that one says so.
        PrivateAddressError: if it leads to an address that is not public, at once, after DNS, or behind a redirect.
        OSError: if it cannot be reached, whatever the protocol's library calls that.
    """
    if not is_remote(uri):
        local = Path(local_path(uri))
        if reason := why_no_file(local):
            raise FileNotFoundError(reason)
        with local.open("rb") as file:
            yield file
        return
    if scheme_of(uri) in HTTP and not allow_private and (reason := why_private(str(uri))):
        raise PrivateAddressError(f"it {reason}; {ALLOW}")
    try:
        filesystem, path = _filesystem(uri, allow_private=allow_private)
        opened = filesystem.open(path, "rb")
    except ImportError as error:
        raise OSError(f"{error} (mulan[s3] and mulan[gcs] do)") from error
    except Exception as error:  # each protocol's library has exceptions of its own
        if refusal := refusal_behind(error):
            raise refusal from error
        if isinstance(error, OSError):
            raise
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error
    with opened:
        try:
            yield opened
        except Exception as error:  # reading asks the address anew for every piece
            if (refusal := refusal_behind(error)) and refusal is not error:
                raise refusal from error
            raise


def fingerprints(
    uris: Sequence[str], *, allow_private: bool, refusals: dict[str, str] | None = None
) -> list[str | None]:
    """What tells a changed file from the same one without reading it: size and time, or the server's ETag.

    Null where the file is missing or out of reach, empty where its server tells nothing of it.

    Args:
        uris: where the files are.
        allow_private: as for ``open_uri``.
        refusals: takes, by uri, the sentences of those that led to an address that is not public.
    """
    if not any(map(is_remote, uris)):
        return [_mark(uri, allow_private, refusals) for uri in uris]
    with ThreadPoolExecutor(REMOTE_THREADS) as pool:
        return list(pool.map(lambda uri: _mark(uri, allow_private, refusals), uris))


def list_remote(folder: str) -> list[str]:
    """Relative paths of all files under the URL of a folder that the user has named; raises what its library does."""
    fs, base = _filesystem(folder, allow_private=True)
    return [path[len(base.rstrip("/")) + 1 :] for path in fs.find(base)]


def _filesystem(uri: str | Path, *, allow_private: bool) -> tuple[Any, str]:
    """The only way to a server: fsspec's file system for a URL, and the path in it."""
    scheme, _, rest = str(uri).partition("://")
    url = f"{scheme.lower()}://{rest}"
    if scheme.lower() in HTTP:
        from mulan_core.data.web import http_filesystem  # aiohttp takes a while to import

        return http_filesystem(allow_private=allow_private), url
    return fsspec.core.url_to_fs(url)


def _mark(uri: str, allow_private: bool, refusals: dict[str, str] | None) -> str | None:
    try:
        if not is_remote(uri):
            stat = Path(uri).stat()
            return f"{stat.st_size}:{stat.st_mtime_ns}"
        fs, path = _filesystem(uri, allow_private=allow_private)
        facts: dict[str, Any] = fs.info(path)
    except Exception as error:  # whatever it is, prepare meets it again when it reads the file, and says so
        refusal = refusal_behind(error)
        if refusal and refusals is not None:
            refusals[uri] = str(refusal)
        return None
    times = ("ETag", "etag", "md5Hash", "content_md5", "Last-Modified", "LastModified", "last_modified", "mtime")
    version = next((str(facts[name]) for name in times if facts.get(name)), None)
    return f"{facts.get('size')}:{version}" if version else ""

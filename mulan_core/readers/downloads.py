"""Fetch: official files that are openly given out, by pooch, each checked where its checksum is known.

Nothing is fetched unless a person asks for a data set by name, and never its audio.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mulan_core.errors import UserError
from mulan_core.readers.dataset import Dataset, Download


@dataclass(frozen=True)
class Fetched:
    """A file that is in its place."""

    file: str
    url: str
    bytes: int
    sha256: str
    """Of what was received, so that a person can compare or note it."""
    is_verified: bool
    """The publisher's checksum is known and fits."""
    is_new: bool
    """It was fetched now; False: it was there."""


def fetch_file(download: Download, folder: Path, *, progress: Callable[[int, int], None] | None = None) -> Fetched:
    """Fetch one file into a data set's folder; a file that is there stays as it is.

    Args:
        download: what to fetch.
        folder: the data set's folder.
        progress: called with (bytes received, bytes in all; 0 if the server does not say).

    Raises:
        UserError: if the server does not give it, or if what came, or what is there, has another checksum.
    """
    import pooch
    import requests

    path = folder / download.file
    is_new = not path.exists()
    if not is_new:
        _check_present(download, path)
    pooch.get_logger().setLevel(logging.ERROR)  # our own words go to the terminal
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_new:
            pooch.retrieve(
                download.url,
                known_hash=download.checksum,
                fname=path.name,
                path=path.parent,
                downloader=pooch.HTTPDownloader(progressbar=_Progress(progress) if progress else False),
            )
        if download.members:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder, members=download.members)
    except requests.RequestException as error:
        reason = getattr(error.response, "status_code", None) or type(error).__name__
        raise UserError(f"{download.url} could not be fetched ({reason}); try again, or get it by hand") from error
    except ValueError as error:  # pooch keeps nothing of what has another hash
        raise UserError(
            f"what {download.url} gave has not the checksum {download.checksum}, so it was not kept; "
            "its publisher may have changed it: get it by hand and compare"
        ) from error
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{path} is not the archive that was expected: {error}") from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return Fetched(
        file=download.file,
        url=download.url,
        bytes=path.stat().st_size,
        sha256=hash_file(path, "sha256"),
        is_verified=download.checksum is not None,
        is_new=is_new,
    )


def check_fetchable(dataset: Dataset) -> None:
    """Refuse a data set none of whose files may be fetched without asking.

    Raises:
        UserError: saying what to get, and where.
    """
    if not dataset.downloads:
        needed = ", ".join(dataset.files)
        raise UserError(f"{dataset.title} is not openly fetchable; get by hand at {dataset.home}: {needed}")


def hash_file(path: Path, algorithm: str) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _check_present(download: Download, path: Path) -> None:
    if download.checksum:
        algorithm, _, digest = download.checksum.partition(":")
        actual = hash_file(path, algorithm)
        if actual != digest:
            raise UserError(
                f"{path} is there but has {algorithm} {actual}, not {digest}; move it away to fetch the published file"
            )


class _Progress:
    """What pooch calls while it downloads."""

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self.total, self._done, self._tell = 0, 0, tell

    def update(self, count: int) -> None:
        self._done += count
        self._tell(min(self._done, self.total or self._done), self.total)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass

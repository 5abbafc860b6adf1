"""Which file plays a track: the store's own path, and only from under the media root; and the answer that sends it."""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Receive, Scope, Send

from serving.errors import ApiError
from serving.tracks import Track

# What soundfile decodes and Python's table may not know.
_TYPES = {".flac": "audio/flac", ".ogg": "audio/ogg", ".opus": "audio/ogg", ".mp3": "audio/mpeg", ".wav": "audio/wav"}
MAX_RANGES = 32
"""Of one request; the answer to more is the whole file."""
_RANGE = re.compile(r"(?P<first>[0-9]{1,99})-(?P<last>[0-9]{0,99})|-(?P<suffix>[0-9]{1,99})")


def is_playable(track: Track, media_root: Path | None, here: Callable[[str], str] = str) -> bool:
    """Whether the track's file is said to lie under the media root; does not touch the disk."""
    if media_root is None or not track.media_path or "://" in track.media_path:
        return False
    path = media_root / here(track.media_path)
    return ".." not in path.parts and path.is_relative_to(media_root)


def locate_media(track: Track, media_root: Path | None, here: Callable[[str], str] = str) -> tuple[Path, str]:
    """The file and its media type.

    Args:
        track: whose.
        media_root: the folder under which tracks may be played.
        here: says where a file is now whose folder was moved; see ``Places``.

    Raises:
        ApiError: 404 if there is none, it is not audio, or it is outside the media root, through a link too.
    """
    if media_root is not None and is_playable(track, media_root, here):
        path = (media_root / here(track.media_path)).resolve()
        kind = _TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or ""
        if path.is_relative_to(media_root.resolve()) and kind.startswith("audio/") and path.is_file():
            return path, kind
    raise ApiError(404, f"there is no audio of track {track.track_id} on this machine")


class SentFile(FileResponse):
    """A file, or the parts of it that ``Range`` asks for (RFC 9110, sections 13 and 14).

    Starlette's own answer refuses what the RFC would have ignored (other units, ranges that cannot be read) and the
    whole of a set of which one part does not exist; it also reads Range with HEAD, and no precondition.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            ApiError: 412 where If-Match or If-Unmodified-Since does not hold, 416 where nothing of a range exists.
        """
        headers = Headers(scope=scope)
        if self.stat_result is None:
            self.stat_result = await to_thread.run_sync(os.stat, self.path)
            self.set_stat_headers(self.stat_result)
        if is_changed(self.headers, headers):
            raise ApiError(412, "the file is not the one that If-Match or If-Unmodified-Since names")
        if scope["method"] in ("GET", "HEAD") and is_known(self.headers, headers):
            await NotModifiedResponse(self.headers)(scope, receive, send)
            return
        if scope["method"] != "GET" or len(headers.getlist("range")) > 1:
            scope = {**scope, "headers": [item for item in scope["headers"] if item[0] != b"range"]}
        await super().__call__(scope, receive, send)

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        ranges = satisfiable_ranges(http_range, file_size)
        if ranges is None:
            raise ApiError(416, "the file has no such part", headers={"Content-Range": f"bytes */{file_size}"})
        return ranges


class PageFiles(StaticFiles):
    """The files of a folder, sent as all others are."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> SentFile:
        """One of them."""
        return SentFile(full_path, status_code=status_code, stat_result=stat_result)


def satisfiable_ranges(text: str, size: int) -> list[tuple[int, int]] | None:
    """The parts of a file of ``size`` bytes that a header Range asks for and that exist.

    Returns:
        Starts and ends (exclusive) in ascending order, those that touch made one; empty where the header is to be
        ignored and the whole file is the answer; None where it can be read and nothing of it exists.

    >>> [satisfiable_ranges(text, 10) for text in ("bytes=-4, 0-0,99-", "lines=1-2", "bytes=10-")]
    [[(0, 1), (6, 10)], [], None]
    """
    unit, _, set_of_ranges = text.partition("=")
    asked = [part.strip(" \t") for part in set_of_ranges.split(",")]
    matches = [_RANGE.fullmatch(part) for part in asked if part]  # a list may have empty members
    if unit.lower() != "bytes" or not 0 < len(matches) <= MAX_RANGES:
        return []
    parts: list[tuple[int, int]] = []
    for match in matches:
        if match is None:
            return []
        if match["suffix"]:
            start, end = max(size - int(match["suffix"]), 0), size
            if size == 0 and int(match["suffix"]):
                return []  # the last bytes of an empty file are there, but no Content-Range can name them
        else:
            start, end = int(match["first"]), size
            if match["last"]:
                if int(match["last"]) < start:
                    return []
                end = min(int(match["last"]) + 1, size)
        if start < end:
            parts.append((start, end))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(parts):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged or None


def is_known(file: Headers, request: Headers) -> bool:
    """Whether the caller has the file already, as If-None-Match or else If-Modified-Since says."""
    if "if-none-match" in request:
        return _names(request.getlist("if-none-match"), file["etag"], weakly=True)
    since, modified = _date(request.get("if-modified-since")), _date(file["last-modified"])
    return since is not None and modified is not None and modified <= since


def is_changed(file: Headers, request: Headers) -> bool:
    """Whether the file is another than If-Match or else If-Unmodified-Since asks for."""
    if "if-match" in request:
        return not _names(request.getlist("if-match"), file["etag"], weakly=False)
    since, modified = _date(request.get("if-unmodified-since")), _date(file["last-modified"])
    return since is not None and modified is not None and modified > since


def _names(lists: list[str], etag: str, *, weakly: bool) -> bool:
    text = ",".join(lists)
    named = {quoted if weakly else weak + quoted for weak, quoted in re.findall(r'(W/)?("[^"]*")', text)}
    return text.strip() == "*" or etag in named


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC) if text else None
    except (TypeError, ValueError, OverflowError):
        return None

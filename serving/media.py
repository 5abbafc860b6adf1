"""Which file plays a track: the store's own path, and only from under the media root; and the answer that sends it."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from serving.errors import ApiError
from serving.tracks import Track

# What soundfile decodes and Python's table may not know.
_TYPES = {".flac": "audio/flac", ".ogg": "audio/ogg", ".opus": "audio/ogg", ".mp3": "audio/mpeg", ".wav": "audio/wav"}


def is_playable(track: Track, media_root: Path | None) -> bool:
    """Whether the track's file is said to lie under the media root; does not touch the disk."""
    if media_root is None or not track.media_path or "://" in track.media_path:
        return False
    path = media_root / track.media_path
    return ".." not in path.parts and path.is_relative_to(media_root)


def locate_media(track: Track, media_root: Path | None) -> tuple[Path, str]:
    """The file and its media type.

    Raises:
        ApiError: 404 if there is none, it is not audio, or it is outside the media root, through a link too.
    """
    if media_root is not None and is_playable(track, media_root):
        path = (media_root / track.media_path).resolve()
        kind = _TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or ""
        if path.is_relative_to(media_root.resolve()) and kind.startswith("audio/") and path.is_file():
            return path, kind
    raise ApiError(404, f"there is no audio of track {track.track_id} on this machine")


class AudioFile(FileResponse):
    """A file, or the part of it that ``Range`` asks for; what is wrong with a range is told as all errors are."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            ApiError: 400 for a range that cannot be read, 416 for one that the file does not have.
        """

        async def sent(message: Message) -> None:
            if message.get("status") == 416:
                whole = {"Content-Range": dict(message["headers"])[b"content-range"].decode()}
                raise ApiError(416, "the file has no such part", headers=whole)
            if message.get("status") == 400:
                raise ApiError(400, "the header Range must be like bytes=0-1023")
            await send(message)

        await super().__call__(scope, receive, sent)

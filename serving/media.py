"""Which file plays a track: the store's own path, and only from under the media root."""

from __future__ import annotations

import mimetypes
from pathlib import Path

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

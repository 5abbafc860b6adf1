"""One clip on its way into a shard: fetched, cut, encoded, kept; or put aside with a reason.

A row goes through ``fetch_clip``, ``cut_clip`` and ``encode_clip`` and comes out as an outcome: audio, or why there is
none. Each step takes and gives plain rows, so any engine that maps over rows can run them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from mulan_core.audio import decode
from mulan_core.audio.decode import AudioError, check_wave
from mulan_core.config import PrepareConfig
from mulan_core.data import shards
from mulan_core.data.addresses import PrivateAddressError
from mulan_core.data.folder import remedy_of_missing
from mulan_core.data.uris import is_remote, local_path, open_uri

CUTTING = 2
"""Raised whenever the same file and numbers would give other audio than before."""

LARGE_BYTES = 32 << 20
"""Larger files are not held in memory: the decoder opens them where they are, and URLs are copied to disk first."""
MAX_BYTES = 8 << 30
"""Reading stops here; a radio station on the web has no end."""
_PIECE_BYTES = 1 << 20
_TRIES = 3

WORK = pa.schema(
    [
        pa.field("shard", pa.string()),
        pa.field("track_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("start_s", pa.float64()),
        pa.field("duration_s", pa.float64()),
        pa.field("mark", pa.string()),
        pa.field("known", pa.string()),
    ]
)
"""A clip to be made. ``known`` is the key of the track's clip in an older shard, which may turn out to be this one."""

OUTCOME = pa.schema(
    [
        *(WORK.field(name) for name in ("shard", "track_id", "uri", "mark")),
        pa.field("sha256", pa.string()),
        pa.field("clip_key", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        *shards.CLIP_FACTS,
        pa.field("audio", pa.binary()),
    ]
)
"""What became of it. No reason and no audio: the clip of the older shard is this one."""

FETCHED = pa.schema(
    [
        *WORK,
        *(OUTCOME.field(name) for name in ("sha256", "clip_key", "reason", "detail")),
        pa.field("data", pa.binary()),
        pa.field("path", pa.string()),
    ]
)
CUT = pa.schema([*OUTCOME.remove(OUTCOME.get_field_index("audio")), pa.field("wave", pa.binary())])


def clip_key(sha256: str, start_s: float | None, duration_s: float | None, config: PrepareConfig) -> str:
    """Identity of a clip's audio: that of its file, the segment, and the numbers that decide what is cut or refused.

    Two clips with one key are equal byte for byte, whenever and wherever they were made.
    """
    numbers = [config.sample_rate_hz, config.clip_s, config.min_s, config.max_s, config.silence_rms]
    return hashlib.sha256(json.dumps([CUTTING, sha256, start_s, duration_s, numbers]).encode()).hexdigest()[:32]


def fetch_clip(row: dict[str, Any], config: PrepareConfig, downloads: Path) -> dict[str, Any]:
    """Read a clip's file; a row of ``WORK`` in, one of ``FETCHED`` out.

    Args:
        row: which file and segment.
        config: decides the key, and whether addresses that are not public may be asked.
        downloads: a folder that the decoder sees too; large remote files are copied there.
    """
    nothing = dict.fromkeys(("sha256", "clip_key", "reason", "detail", "data", "path"))
    try:
        sha256, data, path = _fetch(row["uri"], downloads, allow_private=config.allow_private)
    except AudioError as error:
        return {**row, **nothing, "reason": error.reason, "detail": str(error)}
    key = clip_key(sha256, row["start_s"], row["duration_s"], config)
    if key == row["known"]:
        _discard(path, downloads)
        data = path = None
    return {**row, **nothing, "sha256": sha256, "clip_key": key, "data": data, "path": path}


def cut_clip(row: dict[str, Any], config: PrepareConfig, downloads: Path) -> dict[str, Any]:
    """Decode and check the clip; a row of ``FETCHED`` in, one of ``CUT`` out."""
    wave, clip = None, None
    source = row["path"] or row["data"]
    if row["reason"] is None and source is not None:
        try:
            clip = decode.cut_clip(
                source,
                clip_s=config.clip_s,
                start_s=row["start_s"],
                duration_s=row["duration_s"],
                max_s=config.max_s,
                silence_rms=config.silence_rms,
                sample_rate_hz=config.sample_rate_hz,
            )
            wave = clip.wave
            check_wave(wave, min_s=config.min_s, silence_rms=config.silence_rms, sample_rate_hz=config.sample_rate_hz)
        except AudioError as error:
            setting = ", prepare.silence_rms" if error.reason == "silent" else ""
            wave, row = None, {**row, "reason": error.reason, "detail": f"{error}{setting}"}
        finally:
            _discard(row["path"], downloads)
    facts: dict[str, Any] = dict.fromkeys([*shards.CLIP_FACTS.names, "wave"])
    if clip is not None and wave is not None:
        facts |= {"num_samples": len(wave), "wave": wave.tobytes(), "clip_start_s": clip.start_s}
        facts |= {"decoder": clip.decoder, "channels_cancel": clip.cancels, "num_clipped": clip.num_clipped}
    return {name: (row | facts)[name] for name in CUT.names}


def encode_clip(row: dict[str, Any], config: PrepareConfig) -> dict[str, Any]:
    """Encode the clip; a row of ``CUT`` in, one of ``OUTCOME`` out."""
    wave = row["wave"]
    audio = None if wave is None else shards.encode_flac(np.frombuffer(wave, np.float32), config.sample_rate_hz)
    return {name: (row | {"audio": audio})[name] for name in OUTCOME.names}


def _fetch(uri: str, downloads: Path, *, allow_private: bool) -> tuple[str, bytes | None, str | None]:
    """Its sha256, and its bytes or the path of a file that holds them."""
    remote = is_remote(uri)
    for attempt in range(1, _TRIES + 1):
        try:
            with open_uri(uri, allow_private=allow_private) as file:
                return _read(file, uri, downloads)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            message = f"there is no file {uri}" if remote else str(error)
            raise AudioError("missing", f"{message}{remedy_of_missing(uri)}") from error
        except AudioError:
            raise
        except PrivateAddressError as error:
            raise AudioError("refused", f"{uri} is not asked for: {error}") from error
        except Exception as error:  # each protocol's library has exceptions of its own
            if attempt == _TRIES or not remote or isinstance(error, PermissionError):
                message = " ".join(str(error).split()) or type(error).__name__
                raise AudioError("missing", f"cannot read {uri}: {message}") from error
            time.sleep(attempt)
    raise AssertionError("unreachable")


def _read(file: BinaryIO, uri: str, downloads: Path) -> tuple[str, bytes | None, str | None]:
    # Python clears as much memory as it is asked to read, so ask for what there is.
    size = getattr(file, "size", None) if is_remote(uri) else os.fstat(file.fileno()).st_size
    data = file.read(min(LARGE_BYTES, LARGE_BYTES if size is None else size) + 1)
    digest = hashlib.sha256(data)
    if len(data) <= LARGE_BYTES:
        if not data:
            raise AudioError("empty", f"the file {uri} is empty")
        return digest.hexdigest(), data, None
    if not is_remote(uri):
        for piece in _pieces(file, len(data)):
            digest.update(piece)
        return digest.hexdigest(), None, local_path(uri)
    downloads.mkdir(parents=True, exist_ok=True)
    path = downloads / uuid.uuid4().hex
    try:
        with path.open("wb") as copy:
            copy.write(data)
            for piece in _pieces(file, len(data)):
                digest.update(piece)
                copy.write(piece)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return digest.hexdigest(), None, str(path)


def _pieces(file: BinaryIO, num_bytes: int) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        num_bytes += len(piece)
        if num_bytes > MAX_BYTES:
            raise AudioError("too_long", f"the file has more than {MAX_BYTES >> 30} GiB")
        yield piece


def _discard(path: str | None, downloads: Path) -> None:
    if path is not None and Path(path).parent == downloads:
        Path(path).unlink(missing_ok=True)

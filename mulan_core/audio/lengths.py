"""Whether a file is as long as its header says, told without decoding: pages, frames and chunks are looked at.

Doubt is cheap, since FFmpeg then decodes the file from its start to its end; belief in a wrong length is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO, Literal

Trust = Literal["length", "audio", "nothing"]
"""What libsndfile is believed: the length too, the audio alone, or nothing."""

_PIECE_BYTES = 1 << 16
_PCM_TAGS = (1, 3, 6, 7)  # PCM, float, A-law, mu-law: what libsndfile reads as FFmpeg does
_MPEG_FRAMES_IN_ROW = 4  # so many headers at their places are no chance
_MAX_SIZES_APART = 1.5  # mean sizes of frames, by the header and as seen, of one file
_KBITS = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Of MPEG-1 or 2 and a layer, by index; layers II and III of MPEG-2 have one table."""


def read_at(file: BinaryIO, place: int, num_bytes: int) -> bytes:
    """Bytes from a place of the file."""
    file.seek(place)
    return file.read(num_bytes)


def is_whole_wav(file: BinaryIO, start: int, file_bytes: int) -> bool:
    """Whether the chunk of samples ends where the file does, or another chunk begins."""
    place, tag = start + 12, 0
    while place + 8 <= file_bytes:
        name, size = _chunk(file, place)
        if name == b"fmt ":
            kind = read_at(file, place + 8, 40)
            tag = int.from_bytes(kind[24:26] if kind[:2] == b"\xfe\xff" else kind[:2], "little")
        end = place + 8 + size
        if name == b"data":
            behind = read_at(file, end, 8) if end < file_bytes else b""
            is_last = size > 0 and end >= file_bytes - 1
            return tag in _PCM_TAGS and size < 0xFFFFFF00 and (is_last or _is_chunk(file, end, file_bytes, behind))
        place = end + size % 2
    return False


def _chunk(file: BinaryIO, place: int) -> tuple[bytes, int]:
    head = read_at(file, place, 8)
    return head[:4], int.from_bytes(head[4:], "little")


def _is_chunk(file: BinaryIO, place: int, file_bytes: int, head: bytes) -> bool:
    """Whether a chunk or a tag begins here, or a byte behind; samples look otherwise."""
    for offset in (0, 1):
        name, size = _chunk(file, place + offset)
        if re.fullmatch(rb"[A-Za-z0-9_ ]{4}", name) and place + offset + 8 + size <= file_bytes + 1:
            return True
    return head[:3] == b"TAG" or head == b"APETAGEX"


def trust_flac(file: BinaryIO, start: int, file_bytes: int) -> Trust:
    """Compare the number of samples that the header states with the last frame's number."""
    info = read_at(file, start + 8, 34)
    if len(info) < 34:
        return "nothing"
    num_samples = int.from_bytes(info[10:18], "big") & (1 << 36) - 1
    block = int.from_bytes(info[2:4], "big")
    place = max(start, file_bytes - 2 * int.from_bytes(info[7:10], "big") - _PIECE_BYTES)
    tail = read_at(file, place, file_bytes - place)
    matches = re.finditer(b"\xff[\xf8\xf9]", tail)
    found = [
        number
        for match in matches
        if (number := _flac_sample(tail[match.start() : match.start() + 20], block)) is not None
    ]
    if num_samples == 0 or not found or num_samples > found[-1] + 65_535:
        return "audio"
    return "length" if found[-1] < num_samples else "nothing"


def _flac_sample(frame: bytes, block: int) -> int | None:
    """The first sample of a FLAC frame, or None where this is no frame's header."""
    if len(frame) < 16 or frame[2] >> 4 == 0 or frame[2] & 15 == 15 or frame[3] >> 4 > 10 or frame[3] & 1:
        return None
    extra = max(0, 7 - (frame[4] ^ 0xFF).bit_length()) if frame[4] & 0x80 else 0
    if frame[4] & 0xC0 == 0x80 or any(byte & 0xC0 != 0x80 for byte in frame[5 : 5 + extra]):
        return None
    number = frame[4] & (0xFF >> (extra + 2 if extra else 1))
    for byte in frame[5 : 5 + extra]:
        number = number << 6 | byte & 0x3F
    size = 5 + extra + {6: 1, 7: 2}.get(frame[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(frame[2] & 15, 0)
    if _crc8(frame[:size]) != frame[size]:
        return None
    return number if frame[1] & 1 else number * block


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
    return value


@dataclass(frozen=True)
class _Page:
    flags: int
    granule: int
    serial: bytes
    sequence: int
    num_packets: int
    head: bytes


def is_whole_ogg(file: BinaryIO, start: int, file_bytes: int) -> bool:
    """Whether it is one stream of music from its first sample on, without a page missing."""
    pages = _ogg_pages(file, start, file_bytes)
    first = next(pages, None)
    if first is None or not first.flags & 2 or not re.match(rb"\x01vorbis|OpusHead", first.head):
        return False
    longest = 1 << (first.head[28] >> 4) if len(first.head) > 28 and first.head[:1] == b"\x01" else 5_760
    before, sound = first, None
    for page in pages:
        if page is None or page.serial != first.serial or page.sequence != before.sequence + 1 or page.flags & 2:
            return False
        if sound is None and page.granule > 0:
            sound = page
            if page.granule > page.num_packets * longest:
                return False  # cut out of a longer stream
        before = page
    return sound is not None


def _ogg_pages(file: BinaryIO, start: int, file_bytes: int) -> Iterator[_Page | None]:
    """Its pages one after the other; None where something else stands."""
    place = start
    while place + 27 <= file_bytes:
        head = read_at(file, place, 27 + 255 + 32)
        if head[:4] != b"OggS" or len(head) < 27:
            yield None
            return
        segments = head[27 : 27 + head[26]]
        granule, sequence = (int.from_bytes(head[a:b], "little", signed=a == 6) for a, b in ((6, 14), (18, 22)))
        packets = sum(size < 255 for size in segments)
        body = head[27 + head[26] :][:32]
        yield _Page(head[5], granule, head[14:18], sequence, packets, body)
        place += 27 + head[26] + sum(segments)


@dataclass(frozen=True)
class MpegFrame:
    """A frame of MPEG audio at ``place`` of some bytes; ``layer`` 1, 2 or 3, ``version`` 1 or 2, its size in bytes."""

    place: int
    layer: int
    version: int
    num_bytes: int
    is_mono: bool


def find_mpeg(data: bytes, *, in_row: int = _MPEG_FRAMES_IN_ROW) -> MpegFrame | None:
    """The first frame of MPEG audio that others follow, or None."""
    for match in re.finditer(b"\xff[\xe2-\xff]", data):
        frames = _mpeg_frames(data, match.start(), in_row)
        ends_here = frames and len(data) < _PIECE_BYTES and frames[-1].place + frames[-1].num_bytes >= len(data)
        if len(frames) == in_row or (ends_here and len(frames) > 1):
            return frames[0]
    return None


def _mpeg_frames(data: bytes, place: int, most: int) -> list[MpegFrame]:
    frames: list[MpegFrame] = []
    while len(frames) < most and (frame := _mpeg_frame(data, place)):
        if frames and (frame.layer, frame.version) != (frames[0].layer, frames[0].version):
            break
        frames.append(frame)
        place += frame.num_bytes
    return frames


def _mpeg_frame(data: bytes, place: int) -> MpegFrame | None:
    word = int.from_bytes(data[place : place + 4], "big")
    generation, layer = word >> 19 & 3, 4 - (word >> 17 & 3)
    kbits, rate, padding = word >> 12 & 15, word >> 10 & 3, word >> 9 & 1
    if word >> 21 != 0x7FF or generation == 1 or layer == 4 or kbits in (0, 15) or rate == 3:
        return None
    version = 1 if generation == 3 else 2
    bits = 1_000 * _KBITS[version, layer if version == 1 else min(layer, 2)][kbits]
    rate_hz = (44_100, 48_000, 32_000)[rate] // {3: 1, 2: 2, 0: 4}[generation]
    if layer == 1:
        size = (12 * bits // rate_hz + padding) * 4
    else:
        size = (72 if layer == 3 and version == 2 else 144) * bits // rate_hz + padding
    return MpegFrame(place, layer, version, size, word >> 6 & 3 == 3)


def is_whole_mpeg(file: BinaryIO, start: int, file_bytes: int) -> bool:
    """Whether a header of Xing or VBRI states frames and bytes, and both fit the file."""
    head = read_at(file, start, _PIECE_BYTES)
    frame = find_mpeg(head)
    if frame is None or frame.layer != 3 or frame.place > 0:
        return False
    stated = _stated_frames(head, frame)
    if stated is None:
        return False
    num_frames, num_bytes = stated
    end = start + num_bytes
    if not num_frames or not num_bytes or end > file_bytes + frame.num_bytes:
        return False
    if find_mpeg(read_at(file, end, _PIECE_BYTES) + b"\0" * _PIECE_BYTES):
        return False  # another file was put behind this one
    tail = read_at(file, max(start, end - _PIECE_BYTES), _PIECE_BYTES)
    last = find_mpeg(tail)
    seen = _mpeg_frames(head, frame.num_bytes, 1 << 16) + (_mpeg_frames(tail, last.place, 1 << 16) if last else [])
    mean = sum(frame.num_bytes for frame in seen) / max(1, len(seen))
    apart = (num_bytes / num_frames) / mean if mean else 0
    return 1 / _MAX_SIZES_APART < apart < _MAX_SIZES_APART


def _stated_frames(head: bytes, frame: MpegFrame) -> tuple[int, int] | None:
    """Frames and bytes of a file by the header in its first frame; 0 for one that is not stated."""
    side = (17 if frame.is_mono else 32) if frame.version == 1 else (9 if frame.is_mono else 17)
    xing, vbri = head[4 + side :][:16], head[36:][:18]
    if xing[:4] in (b"Xing", b"Info"):
        flags = int.from_bytes(xing[4:8], "big")
        frames, size = (int.from_bytes(xing[a : a + 4], "big") for a in (8, 12))
        return (frames, size) if flags & 3 == 3 else (0, 0)
    if vbri[:4] == b"VBRI":
        return int.from_bytes(vbri[14:18], "big"), int.from_bytes(vbri[10:14], "big")
    return None


def is_adts(head: bytes) -> bool:
    """Whether it begins with frames of AAC in ADTS."""
    place, places = 0, list[int]()
    while len(places) < 3 and re.match(rb"\xff[\xf0\xf1\xf8\xf9]", head[place : place + 2]):
        places.append(place)
        place += max(7, int.from_bytes(head[place + 3 : place + 6], "big") >> 5 & 0x1FFF)
    return len(places) > 1 and all(b > a for a, b in pairwise(places))

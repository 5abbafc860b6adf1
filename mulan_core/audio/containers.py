"""What a file is by its content, whatever its name: its container, where it begins, and who can tell its length.

libsndfile is asked where the container states all of its length: then it seeks to the very sample. It takes a stated
length for the truth, guesses one where none is stated (MP3), and ends with the first part of a file of several (Ogg);
so those files go to FFmpeg, which reads on while there is something to read.
"""

from __future__ import annotations

import io
import os
import shlex
from dataclasses import dataclass
from typing import BinaryIO, cast

from mulan_core.audio.lengths import (
    Trust,
    find_mpeg,
    is_adts,
    is_whole_mpeg,
    is_whole_ogg,
    is_whole_wav,
    read_at,
    trust_flac,
)

_HEAD_BYTES = 1 << 16
_MAX_PADDING_BYTES = 1 << 28


class UnreadableError(ValueError):
    """A decoder does not take the file; the message says why, for people."""


@dataclass(frozen=True)
class Container:
    """What the content says.

    Attributes:
        name: for people; "unknown" where nothing was recognised.
        start: where it begins, behind zeros and ID3 tags.
        ffmpeg_format: FFmpeg's name of it; null where it is left to FFmpeg's own look, empty where it is no audio.
        trust: what libsndfile is believed of it.
    """

    name: str
    start: int = 0
    ffmpeg_format: str | None = None
    trust: Trust = "nothing"

    def sentence(self, file: str, why: str) -> str:
        """That ``file`` cannot be decoded, ``why``, and what to do."""
        if self.ffmpeg_format == "":
            remedy = _REMEDIES.get(self.name.split(" (")[0].split(",")[0])
            return f"{file} is {self.name}, not audio that can be decoded" + (f"; {remedy}" if remedy else "")
        if self.name == "unknown":
            return f"{file} is not audio that can be decoded"
        name = "FILE" if file == "the audio" else shlex.quote(file)
        return f"{file} ({self.name}) cannot be decoded: {why}; try `ffmpeg -i {name} {name}.flac`"


# Offset, magic bytes, name, FFmpeg's format. What is no audio has an empty format.
_MAGIC: list[tuple[int, bytes, str, str | None]] = [
    (4, b"ftyp", "MP4", "mov"),
    (4, b"moov", "MP4", "mov"),
    (4, b"mdat", "MP4", "mov"),
    (4, b"wide", "MP4", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska/WebM", "matroska"),
    (0, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "ASF/WMA", "asf"),
    (0, b"wvpk", "WavPack", "wv"),
    (0, b"TTA1", "TTA", "tta"),
    (0, b"MAC ", "Monkey's Audio", "ape"),
    (0, b"MPCK", "Musepack", "mpc8"),
    (0, b"MP+", "Musepack", "mpc"),
    (0, b"tBaK", "TAK", "tak"),
    (0, b"DSD ", "DSF", "dsf"),
    (0, b"FRM8", "DSDIFF", "iff"),
    (0, b"#!AMR", "AMR", "amr"),
    (0, b"\x0b\x77", "AC-3", None),
    (0, b"\x7f\xfe\x80\x01", "DTS", "dts"),
    (0, b".RMF", "RealMedia", "rm"),
    (0, b"FLV\x01", "Flash video", "flv"),
    (0, b"PK\x03\x04", "a zip archive", ""),
    (0, b"Rar!", "a RAR archive", ""),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", ""),
    (0, b"\x1f\x8b", "a gzip archive", ""),
    (257, b"ustar", "a tar archive", ""),
    (0, b"MThd", "MIDI, notes without sound", ""),
    (0, b"Extended Module:", "a tracker module (XM)", ""),
    (0, b"IMPM", "a tracker module (IT)", ""),
    (44, b"SCRM", "a tracker module (S3M)", ""),
    (1080, b"M.K.", "a tracker module (MOD)", ""),
    (0, b"#EXTM3U", "a playlist", ""),
    (0, b"[playlist]", "a playlist", ""),
    (0, b"ffconcat", "a playlist", ""),
    (0, b"%PDF", "a PDF", ""),
    (0, b"\x89PNG", "a picture", ""),
    (0, b"\xff\xd8\xff", "a picture", ""),
    (0, b"<", "a web page or XML", ""),
]
_REMEDIES = dict.fromkeys(("a zip archive", "a RAR archive", "a 7-Zip archive", "a tar archive"), "unpack it")
_REMEDIES |= {"a gzip archive": "unpack it", "a playlist": "name the files that it lists"}
_REMEDIES |= dict.fromkeys(("MIDI", "a tracker module"), "render it to a FLAC file first")
_LIBSNDFILE = {b"FORM": "AIFF", b"caff": "CAF", b".snd": "AU", b"riff": "Wave64", b"RIFX": "WAV", b"RF64": "WAV"}
_FORMATS = {"AIFF": "aiff", "CAF": "caf", "AU": "au", "Wave64": "w64", "WAV": "wav"}


def recognise(file: BinaryIO) -> Container:
    """Look at a file's content; where it stands afterwards is not said."""
    file_bytes = file.seek(0, os.SEEK_END)
    start = _find_start(file, file_bytes)
    head = read_at(file, start, _HEAD_BYTES)
    magic = head[:4]
    if magic == b"RIFF" and head[8:12] == b"WAVE":
        return Container("WAV", start, "wav", _all_or_nothing(is_whole_wav(file, start, file_bytes)))
    if magic == b"fLaC":
        return Container("FLAC", start, "flac", trust_flac(file, start, file_bytes))
    if magic == b"OggS":
        return Container("Ogg", start, "ogg", _all_or_nothing(is_whole_ogg(file, start, file_bytes)))
    if magic == b"RIFF":
        kind = {b"AVI ": "avi", b"XWMA": "xwma"}.get(head[8:12], "")
        return Container(f"RIFF {head[8:12].decode('ascii', 'replace').strip()}", start, kind)
    if magic in _LIBSNDFILE:
        name = _LIBSNDFILE[magic]
        return Container(name, start, _FORMATS[name], "length")
    for offset, magic, name, known_format in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return Container(name, start, known_format)
    if frame := find_mpeg(head):
        name = f"MP{frame.layer}"
        return Container(name, start, "mp3", _all_or_nothing(is_whole_mpeg(file, start, file_bytes)))
    if is_adts(head):
        return Container("AAC (ADTS)", start, "aac")
    if head[:1] == b"\x47" and head[188:189] == b"\x47" and head[376:377] == b"\x47":
        return Container("MPEG transport stream", start, "mpegts")
    return Container("unknown", start, None, "length")


def _all_or_nothing(is_whole: bool) -> Trust:
    return "length" if is_whole else "nothing"


def begun(file: BinaryIO, container: Container) -> BinaryIO:
    """The file from where its container begins."""
    return cast(BinaryIO, _View(file, container.start)) if container.start else file


class _View(io.RawIOBase):
    """A file from ``start`` on, as a file of its own; closing it leaves the file open."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        super().__init__()
        self._file, self._start = file, start
        self.seek(0)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move within what is seen, as a file does."""
        offset = offset + self._start if whence == os.SEEK_SET else offset
        return max(0, self._file.seek(offset, whence) - self._start)

    def tell(self) -> int:
        """Where it stands."""
        return self._file.tell() - self._start

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as there is something."""
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _find_start(file: BinaryIO, file_bytes: int) -> int:
    """Behind zeros and ID3v2 tags; the file's own start where nothing else is in it."""
    place = 0
    while place < min(file_bytes, _MAX_PADDING_BYTES):
        head = read_at(file, place, _HEAD_BYTES)
        if head[:3] == b"ID3" and len(head) > 10:
            size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            place += 10 + size + (10 if head[5] & 0x10 else 0)
            continue
        zeros = len(head) - len(head.lstrip(b"\0"))
        if head[zeros + 1 : zeros + 5] in (b"ftyp", b"moov", b"mdat", b"wide"):
            return place + max(0, zeros - 3)  # an MP4 begins with the length of its first box, of 32 bits
        if zeros < 4:
            return place
        place += zeros
    return place if place < file_bytes else 0

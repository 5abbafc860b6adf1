"""FFmpeg's decoders, by PyAV, kept to what music comes in and to the bytes that are given.

No protocol is open, so nothing that a file names is read: no playlist, no segment, no file beside it. Formats and
codecs are those of a list, one thread decodes, and what a small file may claim is bounded before it is opened: an MP4's
tables can name four thousand million samples in sixteen bytes, and FFmpeg sets memory aside for each.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import BinaryIO

import av
import numpy as np
from av.audio.stream import AudioStream

from mulan_core.audio.containers import Container, UnreadableError
from mulan_core.audio.lengths import read_at

# fmt: off
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf", "wv", "tta", "ape", "mpc", "mpc8", "tak", "dsf", "iff", "ogg",
    "mp3", "aac", "flac", "wav", "w64", "aiff", "caf", "au", "amr", "ac3", "eac3", "dts", "rm", "flv", "avi", "mpegts",
    "xwma", "voc",
)
"""Containers of music. Not among them: playlists, `concat`, HLS, DASH, pictures, subtitles, devices, raw samples."""
CODECS = frozenset((
    "aac", "aac_latm", "alac", "mp1float", "mp2float", "mp3float", "mp3", "mp2", "mp1", "vorbis", "opus", "libopus",
    "flac", "wavpack", "tta", "ape", "mpc7", "mpc8", "tak", "wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice",
    "ac3", "eac3", "dca", "mlp", "truehd", "speex", "als", "cook", "amrnb", "amrwb", "libopencore_amrnb",
    "libopencore_amrwb", "dsd_lsbf", "dsd_msbf", "dsd_lsbf_planar", "dsd_msbf_planar", "adpcm_ms", "adpcm_ima_wav",
    "adpcm_ima_qt", "adpcm_yamaha", "adpcm_swf", "gsm", "gsm_ms", "mace3", "mace6", "qdm2", "qdmc", "nellymoser",
))
# fmt: on
"""Codecs of music, and all of PCM."""

_OPTIONS = {
    "format_whitelist": ",".join(FORMATS),
    "protocol_whitelist": "none",
    "probesize": str(1 << 20),
    "analyzeduration": str(5_000_000),  # microseconds
    "max_streams": "64",
}
_KEPT_OPTIONS = {"wav": {"ignore_length": "1"}}
_SEEKABLE = frozenset(("alac", "flac"))  # in an MP4, whose times are exact; AAC draws noise as it goes
_PREROLL_S = 1.0  # decoders need some frames to settle
_FULL_SCALE = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "s64": 1 << 63}
_DEFAULT_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_WEIGHTS = {"FC": 2**0.5, "LFE": 0.0, "LFE2": 0.0} | dict.fromkeys(("BL", "BR", "SL", "SR", "BC"), 0.5**0.5)
_CHUNK_SAMPLES = 1 << 18  # over all channels, handed on together
_PATIENCE_S = 20.0  # and as many seconds as were decoded; music decodes a hundred times as fast
_MAX_TABLE_BYTES = 1 << 26
_MAX_RUN_TABLES = 128
_NESTED = frozenset(b"moov trak mdia minf stbl moof traf mvex edts udta meta dinf gmhd".split())
_EXACT_TIMES = ("mp3", "aac", "ogg")  # their packets tell how long they last; elsewhere their times are taken


class FfmpegReader:
    """A file that FFmpeg decodes.

    Args:
        file: from where the container begins; stays open.
        kind: what the content says it is.

    Attributes:
        rate_hz: samples per second, as the file says at its start.
        decoder: FFmpeg with the container's and the codec's names.
        codec: FFmpeg's name.
        channels: how many, as the file says at its start.
        tags: what container and stream say in words, by FFmpeg's names in small letters.

    Raises:
        UnreadableError: if it holds no audio that is taken.
    """

    def __init__(self, file: BinaryIO, kind: Container) -> None:
        format_name = kind.ffmpeg_format
        if format_name in (None, "mov") and _claims_too_much(file):
            raise UnreadableError("its tables name more samples than it has bytes")
        file.seek(0)
        options = _OPTIONS | _KEPT_OPTIONS.get(format_name or "", {})
        try:
            container = av.open(file, "r", format=format_name, container_options=options, metadata_errors="replace")
        except (av.FFmpegError, ValueError, OSError, MemoryError) as error:
            raise UnreadableError("it cannot be opened") from error
        self._container = container
        try:
            stream = container.streams.best("audio")
            if not isinstance(stream, AudioStream):
                raise UnreadableError("it holds no sound")
            context = stream.codec_context
            if context is None or not (context.name in CODECS or context.name.startswith("pcm_")):
                raise UnreadableError(f"its codec, {context.name if context else 'unknown'}, is not taken")
            context.thread_count = 1
        except BaseException:
            container.close()
            raise
        self._stream = stream
        self.codec, self.rate_hz, self.channels = context.name, int(context.sample_rate or 0), context.channels
        self.decoder = f"FFmpeg, {kind.name}, {self.codec}"
        said = [*container.metadata.items(), *stream.metadata.items()]
        self.tags = {key.lower(): value for key, value in reversed(said)}
        self._skip_until: int | None = None

    def close(self) -> None:
        """Let go of the decoder."""
        self._container.close()

    def seek(self, frame: int) -> None:
        """Have ``blocks`` begin with this frame; where its times are not exact, what lies before is decoded too."""
        self._skip_until = frame
        target = frame - int(_PREROLL_S * self.rate_hz)
        if target > 0 and self._has_times and self.codec in _SEEKABLE:
            self._container.seek(target, stream=self._stream)

    def blocks(self, most_frames: int | None = None) -> Iterator[tuple[np.ndarray, int, np.ndarray]]:
        """Audio from where it stands, float32 (frames, channels), with its rate and its channels' weights.

        Raises:
            UnreadableError: if it is damaged throughout, or takes longer than music does.
        """
        parts: list[np.ndarray] = []
        held = 0
        kind: tuple[int, str] | None = None
        for samples_CT, rate_hz, layout in self._frames(most_frames):
            if kind is not None and kind != (rate_hz, layout) and parts:
                yield np.concatenate(parts, 1).T, kind[0], weights_of(kind[1], len(parts[0]))
                parts, held = [], 0
            kind = (rate_hz, layout)
            parts.append(samples_CT)
            held += samples_CT.size
            if held >= _CHUNK_SAMPLES:
                yield np.concatenate(parts, 1).T, rate_hz, weights_of(layout, len(samples_CT))
                parts, held = [], 0
        if parts and kind is not None:
            yield np.concatenate(parts, 1).T, kind[0], weights_of(kind[1], len(parts[0]))

    def _frames(self, most_frames: int | None) -> Iterator[tuple[np.ndarray, int, str]]:
        """Decoded frames, float32 (channels, samples), those before the place of ``seek`` left out."""
        place = 0  # of the next frame; after a seek in the container its time says it
        num_frames = 0
        is_first = True
        for frame in self._decoded():
            samples_CT = _as_float(frame)
            if is_first and self._skip_until is not None and frame.pts is not None and self._has_times:
                place = frame.pts - (self._stream.start_time or 0)
            is_first = False
            first = max(0, (self._skip_until or 0) - place)
            place += samples_CT.shape[1]
            samples_CT = samples_CT[:, first:]
            if most_frames is not None:
                samples_CT = samples_CT[:, : most_frames - num_frames]
            num_frames += samples_CT.shape[1]
            if samples_CT.shape[1]:
                yield samples_CT, int(frame.sample_rate), frame.layout.name
            if num_frames == most_frames:
                return

    @property
    def _has_times(self) -> bool:
        return self._stream.time_base == Fraction(1, self.rate_hz) and "mov" in self._container.format.name

    def _decoded(self) -> Iterator[av.AudioFrame]:
        began, seconds, good, bad = time.monotonic(), 0.0, 0, 0
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.FFmpegError:  # FFmpeg itself goes on behind a damaged packet
                bad += 1
                continue
            for frame in frames:
                good += 1
                seconds += frame.samples / max(1, frame.sample_rate)
                yield frame
            if time.monotonic() - began > _PATIENCE_S + seconds:
                raise UnreadableError("decoding it takes longer than it lasts")
        if bad > good:
            raise UnreadableError("it is damaged")

    def _packets(self) -> Iterator[av.Packet[AudioStream]]:
        try:
            yield from self._container.demux(self._stream)
        except (av.FFmpegError, OSError):
            return  # it breaks off here

    def measure(self) -> float:
        """Seconds of audio, from the packets; nothing is decoded. Infinite where they do not tell."""
        began, total, end = time.monotonic(), 0, None
        base = self._stream.time_base
        for packet in self._packets():
            if packet.duration is None or packet.size == 0:
                continue
            total += packet.duration
            if packet.pts is not None:
                end = max(end or 0, packet.pts + packet.duration)
            if time.monotonic() - began > _PATIENCE_S:
                return float("inf")
        if base is None or total == 0:
            return float("inf")
        if end is None or self._container.format.name in _EXACT_TIMES:
            return float(total * base)
        return float((end - max(0, self._stream.start_time or 0)) * base)


@lru_cache(maxsize=64)
def weights_of(layout: str, channels: int) -> np.ndarray:
    """What each channel counts in the mono sum, float32 (channels,), adding up to 1.

    Front channels 1, the centre 1.414, surround .707, low frequency effects 0: ITU-R BS.775's way to stereo and then
    to mono, scaled to fit as FFmpeg does for integers. A layout that the file does not name is FFmpeg's default for
    its number of channels; where there is none, all count alike.
    """
    try:
        names = [channel.name for channel in av.AudioLayout(layout).channels]
    except (ValueError, TypeError):
        names = []
    if (len(names) != channels or "NONE" in names) and channels in _DEFAULT_LAYOUTS:
        names = [channel.name for channel in av.AudioLayout(_DEFAULT_LAYOUTS[channels]).channels]
    weights = np.array([_WEIGHTS.get(name, 1.0) for name in names], np.float32)
    if len(weights) != channels or not weights.any():
        weights = np.ones(channels, np.float32)
    weights /= weights.sum()
    weights.flags.writeable = False
    return weights


def _as_float(frame: av.AudioFrame) -> np.ndarray:
    """Samples of a frame, float32 (channels, samples), full scale being 1."""
    samples, kind = frame.to_ndarray(), frame.format.name.rstrip("p")
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if kind in ("flt", "dbl"):
        return samples.astype(np.float32, copy=False)
    scale = np.float32(1 / _FULL_SCALE[kind])
    return (samples.astype(np.float32) - (128 if kind == "u8" else 0)) * scale


def _claims_too_much(file: BinaryIO) -> bool:
    """Whether the tables of an MP4 name more samples than the file has bytes."""
    file_bytes = file.seek(0, os.SEEK_END)
    place, named, looked_at = 0, 0, 0
    while place + 8 <= file_bytes:
        head = read_at(file, place, 16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        size = min(size if size >= 8 else file_bytes - place, file_bytes - place)
        if head[4:8] != b"mdat":
            looked_at += size
            if looked_at > _MAX_TABLE_BYTES:
                return True
            named += _named_samples(read_at(file, place, size))
        place += size
    return named > file_bytes


def _named_samples(box: bytes) -> int:
    """How many samples the tables inside a box name, at most."""
    named = runs = 0
    for kind, first in _atoms(box):
        if kind in (b"stsz", b"stz2"):
            named += int.from_bytes(box[first + 8 : first + 12], "big")
        elif kind == b"trun":
            named += int.from_bytes(box[first + 4 : first + 8], "big")
        elif kind in (b"stts", b"ctts"):
            runs += 1
            if runs > _MAX_RUN_TABLES:
                return 1 << 62
            num_runs = int.from_bytes(box[first + 4 : first + 8], "big")
            table = np.frombuffer(box[first + 8 : first + 8 + 8 * min(num_runs, len(box))], np.uint8)
            counts = table[: len(table) // 8 * 8].view(">u4")[::2]
            named = max(named, int(counts.sum(dtype=np.int64)))
    return named


def _atoms(box: bytes) -> Iterator[tuple[bytes, int]]:
    """The atoms in a box that hold no others: kind, and where the content begins. Tags and pictures are such."""
    place = 0
    while place + 8 <= len(box):
        size, kind, head = int.from_bytes(box[place : place + 4], "big"), box[place + 4 : place + 8], 8
        if size == 1:
            size, head = int.from_bytes(box[place + 8 : place + 16], "big"), 16
        if kind == b"meta":
            head += 4 if box[place + head + 8 : place + head + 12] == b"hdlr" else 0
        if kind in _NESTED:  # what it holds comes next
            place += head
        else:
            yield kind, place + head
            place += size if size >= head else len(box)

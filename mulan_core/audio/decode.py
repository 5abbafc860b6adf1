"""Any audio file or bytes to mono float32 at the model's rate, within bounds that a hostile file cannot move.

The header is judged before anything is decoded, and then not trusted: the file is read in blocks, each
downmixed and resampled at once, and reading stops when the limit is passed. So memory holds the mono output
and one block, whatever rate, number of channels or length a file claims.

``decode_clip`` seeks to a segment and decodes no more than that.

A file that cannot be used raises ``AudioError`` with a reason code, which ``mulan prepare`` writes into the
quarantine table and the endpoint into its answer.
"""

from __future__ import annotations

import io
import math
from math import ceil, gcd
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile
import soxr

from mulan_core.audio import RATES_HZ
from mulan_core.errors import UserError, without_secrets
from mulan_core.files import why_no_file

SAMPLE_RATE_HZ = 16_000

Reason = Literal["missing", "empty", "undecodable", "too_short", "too_long", "silent", "not_finite", "refused"]

_BLOCK_SAMPLES = 1 << 20  # over all channels: 4 MiB of float32
_MARGIN_S = 0.25  # decoded on both sides of a clip; soxr's filter needs a fifth of it at 11 kHz, less above
_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's answer for a FLAC written to a pipe, whose header has no length


class _ForwardOnly(soundfile.SoundFile):
    """Never seeks: soundfile seeks after each read, which fails at the end of a file of unknown length."""

    def seekable(self) -> bool:
        return False


class AudioError(UserError):
    """Audio that cannot be used.

    Attributes:
        reason: the code, one of ``Reason``.
        detail: the sentence for people.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)  # both in args, so that the error survives pickling between processes
        self.reason = reason
        self.detail = without_secrets(detail)

    def __str__(self) -> str:
        return self.detail


def decode_audio(
    source: bytes | str | Path | BinaryIO, *, max_s: float | None = None, sample_rate_hz: int = SAMPLE_RATE_HZ
) -> tuple[np.ndarray, float]:
    """Decode WAV, FLAC, OGG, MP3 and what else libsndfile reads.

    Args:
        source: encoded bytes, a path, or an open binary file.
        max_s: refuse longer audio, seconds.
        sample_rate_hz: of the result.

    Returns:
        The wave, mono float32 (samples,), and the length of the audio in seconds.

    Raises:
        AudioError: ``missing``, ``empty``, ``undecodable``, ``too_long`` or ``not_finite``.
    """
    with _open(source) as file:
        rate_hz = file.samplerate
        max_frames = _check_length(file, max_s)
        wave, num_frames = _read_mono(file, None if max_frames is None else max_frames + 1, sample_rate_hz)
    if num_frames == 0:
        raise AudioError("empty", "the audio holds no samples")
    if max_frames is not None and num_frames > max_frames:
        raise AudioError("too_long", f"the audio lasts longer than {max_s:g} s, the most that is taken")
    if not np.isfinite(wave).all():
        raise AudioError("not_finite", "the audio holds values that are not finite")
    return wave, num_frames / rate_hz


def rate_of(source: bytes | str | Path | BinaryIO) -> int:
    """Samples per second of audio, as its header states.

    Raises:
        AudioError: ``missing``, ``empty`` or ``undecodable``.
    """
    with _open(source) as file:
        return int(file.samplerate)


def decode_clip(
    source: bytes | str | Path,
    *,
    clip_s: float,
    start_s: float | None = None,
    duration_s: float | None = None,
    max_s: float | None = None,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
) -> np.ndarray:
    """Decode one clip: the middle of the track, or the middle of the segment that is named.

    Of a long file only the clip and a margin are decoded: libsndfile seeks to the very sample in every format
    that it reads, and the margin holds the resampler's filter, so the clip equals that of the whole file but for the
    rounding of float32. Where the header states no length, or the file breaks it, the file is decoded as a whole.

    Args:
        source: encoded bytes, or a path.
        clip_s: length of the clip, seconds; a shorter segment is taken as it is.
        start_s, duration_s: the segment of the track, seconds; null takes the track from its start, to its end.
        max_s: refuse longer tracks, seconds.
        sample_rate_hz: of the result.

    Returns:
        Mono float32 (samples,); nothing where the segment lies behind the track's end.

    Raises:
        AudioError: ``missing``, ``empty``, ``undecodable``, ``too_long`` or ``not_finite``.
    """

    def find_clip(num_samples: int) -> tuple[int, int]:
        return _place_clip(num_samples, clip_s, start_s, duration_s, sample_rate_hz)

    with _open(source) as file:
        _check_length(file, max_s)
        if file.frames < _UNKNOWN_FRAMES:
            num_samples = (2 * file.frames * sample_rate_hz + file.samplerate) // (
                2 * file.samplerate
            )  # as soxr rounds
            clip = _read_clip(file, *find_clip(num_samples), sample_rate_hz)
            if clip is not None:
                return clip
    wave, _ = decode_audio(source, max_s=max_s, sample_rate_hz=sample_rate_hz)
    first, last = find_clip(len(wave))
    return wave[first:last]


def find_clip_start_s(
    source: bytes | str | Path, *, clip_s: float, start_s: float | None = None, duration_s: float | None = None
) -> float | None:
    """Where in the track the clip of ``decode_clip`` begins, seconds; None where the header states no length.

    Raises:
        AudioError: ``missing``, ``empty`` or ``undecodable``.
    """
    length_s = read_length(source)
    if not math.isfinite(length_s):
        return None
    num_samples = round(length_s * SAMPLE_RATE_HZ)
    return _place_clip(num_samples, clip_s, start_s, duration_s, SAMPLE_RATE_HZ)[0] / SAMPLE_RATE_HZ


def _place_clip(
    num_samples: int, clip_s: float, start_s: float | None, duration_s: float | None, rate_hz: int
) -> tuple[int, int]:
    """First sample of the clip, and the one after its last."""
    first = min(round((start_s or 0.0) * rate_hz), num_samples)
    last = min(first + round(duration_s * rate_hz), num_samples) if duration_s else num_samples
    length = round(clip_s * rate_hz)
    first += max(0, (last - first - length) // 2)
    return first, min(last, first + length)


def read_length(source: bytes | str | Path, *, max_s: float | None = None) -> float:
    """Length of audio in seconds as its header states it; infinite where it states none. Decodes nothing.

    Raises:
        AudioError: ``missing``, ``empty``, ``undecodable`` or ``too_long``.
    """
    with _open(source) as file:
        _check_length(file, max_s)
        return file.frames / file.samplerate if file.frames < _UNKNOWN_FRAMES else float("inf")


def check_wave(wave: np.ndarray, *, min_s: float, silence_rms: float, sample_rate_hz: int = SAMPLE_RATE_HZ) -> None:
    """Refuse a mono wave that nothing can be learned from.

    Args:
        wave: mono float32.
        min_s: refuse shorter audio, seconds.
        silence_rms: refuse audio whose root mean square is under this, full scale being 1.
        sample_rate_hz: of the wave.

    Raises:
        AudioError: ``too_short``, ``not_finite`` or ``silent``.
    """
    seconds = len(wave) / sample_rate_hz
    if len(wave) == 0 or seconds < min_s:
        raise AudioError("too_short", f"the audio lasts {seconds:.2f} s; at least {min_s:g} s are needed")
    rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    if not np.isfinite(rms):
        raise AudioError("not_finite", "the audio holds values that are not finite")
    if rms < silence_rms:
        raise AudioError("silent", f"the audio is silent: its RMS {rms:.1e} is under {silence_rms:g}")


def _open(source: bytes | str | Path | BinaryIO) -> soundfile.SoundFile:
    """Open for reading, or say why not."""
    if isinstance(source, str | Path):
        path = Path(source)
        if reason := why_no_file(path):
            raise AudioError("missing", reason)
        if path.stat().st_size == 0:
            raise AudioError("empty", f"the file {path} is empty")
        target: str | BinaryIO = str(path)
        name = str(path)
    else:
        target = io.BytesIO(source) if isinstance(source, bytes) else source
        name = "the audio"
        if not target.read(1):
            raise AudioError("empty", "the audio is empty: it has no bytes")
        target.seek(-1, io.SEEK_CUR)
    try:
        return _ForwardOnly(target)
    except (RuntimeError, TypeError, ValueError) as error:
        raise AudioError("undecodable", f"{name} is not audio that can be decoded") from error


def _check_length(file: soundfile.SoundFile, max_s: float | None) -> int | None:
    """Judge the header; returns ``max_s`` in frames."""
    rate_hz = file.samplerate
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise AudioError("undecodable", f"the audio claims a sample rate of {rate_hz} Hz")
    max_frames = None if max_s is None else int(max_s * rate_hz)
    if max_frames is not None and max_frames < file.frames < _UNKNOWN_FRAMES:
        raise AudioError("too_long", f"the audio lasts {file.frames / rate_hz:.1f} s; at most {max_s:g} s are taken")
    return max_frames


def _read_clip(file: soundfile.SoundFile, first: int, last: int, sample_rate_hz: int) -> np.ndarray | None:
    """Samples ``first`` to ``last`` of the resampled audio, or None where the file cannot seek or breaks its header."""
    # Input and output samples coincide `common` times a second; the resampler must start at such a point.
    common = gcd(file.samplerate, sample_rate_hz)
    frames_per, samples_per = file.samplerate // common, sample_rate_hz // common
    start = max(0, first // samples_per - ceil(_MARGIN_S * common))
    end_frame = min(ceil(last * file.samplerate / sample_rate_hz) + ceil(_MARGIN_S * file.samplerate), file.frames)
    wanted = end_frame - start * frames_per
    if first >= last:
        return np.zeros(0, dtype=np.float32)
    try:
        if start:
            file.seek(start * frames_per)
        wave, num_frames = _read_mono(file, wanted, sample_rate_hz)
    except (RuntimeError, AudioError):
        return None
    offset = start * samples_per
    return wave[first - offset : last - offset] if num_frames == wanted else None


def _downmix(block: np.ndarray) -> np.ndarray:
    """Mean of the channels, added one after the other.

    numpy's mean over so short an axis costs as much as the decoding, and a matrix product wakes threads that then spin.
    """
    mono = block[:, 0].copy()
    for channel in range(1, block.shape[1]):
        mono += block[:, channel]
    mono *= np.float32(1 / block.shape[1])
    return mono


def _read_mono(file: soundfile.SoundFile, most_frames: int | None, sample_rate_hz: int) -> tuple[np.ndarray, int]:
    """Downmixed and resampled audio from where the file stands, and how many frames of it were read.

    Stops at the end of the file, or after ``most_frames``.
    """
    block_frames = max(1, _BLOCK_SAMPLES // file.channels)
    resampler = None
    if file.samplerate != sample_rate_hz:
        resampler = soxr.ResampleStream(file.samplerate, sample_rate_hz, 1, dtype="float32", quality="HQ")
    pieces: list[np.ndarray] = []
    num_frames = 0
    try:
        while True:
            wanted = block_frames if most_frames is None else min(block_frames, most_frames - num_frames)
            block = file.read(wanted, dtype="float32", always_2d=True)
            num_frames += len(block)
            last = len(block) < block_frames or num_frames == most_frames
            mono = _downmix(block)
            pieces.append(mono if resampler is None else resampler.resample_chunk(mono, last=last))
            if last:
                break
    except RuntimeError as error:
        raise AudioError("undecodable", "the audio breaks off or is damaged: it cannot be decoded") from error
    return np.concatenate(pieces), num_frames

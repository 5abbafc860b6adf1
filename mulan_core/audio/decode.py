"""Any audio file or bytes to mono float32 at the model's rate, within bounds that a hostile file cannot move.

The header is judged before anything is decoded, and then not trusted: the file is read in blocks, each
downmixed and resampled at once, and reading stops when the limit is passed. So memory holds the mono output
and one block, whatever rate, number of channels or length a file claims.

A file that cannot be used raises ``AudioError`` with a reason code, which ``mulan prepare`` writes into the
quarantine table and the endpoint into its answer.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile
import soxr

from mulan_core.audio import RATES_HZ
from mulan_core.errors import UserError

SAMPLE_RATE_HZ = 16_000

Reason = Literal["missing", "empty", "undecodable", "too_short", "too_long", "silent", "not_finite"]

_BLOCK_SAMPLES = 1 << 20  # over all channels: 4 MiB of float32
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
        self.detail = detail

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
        if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
            raise AudioError("undecodable", f"the audio claims a sample rate of {rate_hz} Hz")
        max_frames = None if max_s is None else int(max_s * rate_hz)
        if max_frames is not None and max_frames < file.frames < _UNKNOWN_FRAMES:
            raise AudioError(
                "too_long", f"the audio lasts {file.frames / rate_hz:.1f} s; at most {max_s:g} s are taken"
            )
        wave, num_frames = _read_mono(file, max_frames, sample_rate_hz)
    if num_frames == 0:
        raise AudioError("empty", "the audio holds no samples")
    if max_frames is not None and num_frames > max_frames:
        raise AudioError("too_long", f"the audio lasts longer than its header says and than {max_s:g} s")
    if not np.isfinite(wave).all():
        raise AudioError("not_finite", "the audio holds values that are not finite")
    return wave, num_frames / rate_hz


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
        if not path.is_file():
            raise AudioError("missing", f"there is no file {path}")
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


def _read_mono(file: soundfile.SoundFile, max_frames: int | None, sample_rate_hz: int) -> tuple[np.ndarray, int]:
    """Downmixed and resampled audio, and how many frames of the file were read.

    Stops at the end of the file, or after the block in which ``max_frames`` is passed.
    """
    block_frames = max(1, _BLOCK_SAMPLES // file.channels)
    # One float32 GEMV instead of a mean over the short axis, which costs as much as the decoding.
    downmix = np.full(file.channels, 1 / file.channels, dtype=np.float32)
    resampler = None
    if file.samplerate != sample_rate_hz:
        resampler = soxr.ResampleStream(file.samplerate, sample_rate_hz, 1, dtype="float32", quality="HQ")
    pieces: list[np.ndarray] = []
    num_frames = 0
    try:
        while max_frames is None or num_frames <= max_frames:
            block = file.read(block_frames, dtype="float32", always_2d=True)
            num_frames += len(block)
            last = len(block) < block_frames
            mono = block @ downmix
            pieces.append(mono if resampler is None else resampler.resample_chunk(mono, last=last))
            if last:
                break
    except RuntimeError as error:
        raise AudioError("undecodable", "the audio breaks off or is damaged: it cannot be decoded") from error
    return np.concatenate(pieces), num_frames

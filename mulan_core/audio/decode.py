"""Any audio file or bytes to mono float32 at the model's rate, within bounds that a hostile file cannot move.

What a file is, its content decides (``containers``), and with it which decoder takes it: libsndfile where the length
that the header states is sure, FFmpeg for all other music. Either is read in blocks, each downmixed and resampled at
once, and reading stops when the limit is passed. So memory holds the mono output and one block, whatever rate, number
of channels or length a file claims.

Channels are added with the weights of ``ffmpeg.weights_of``; where they cancel each other the louder one is taken.
Samples beyond full scale, which lossy files have, are limited to it, here and for everybody.

``cut_clip`` seeks to a segment and decodes no more than that.

A file that cannot be used raises ``AudioError`` with a reason code, which ``mulan prepare`` writes into the
quarantine table and the endpoint into its answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, gcd

import numpy as np

from mulan_core.audio.containers import UnreadableError
from mulan_core.audio.ffmpeg import FfmpegReader
from mulan_core.audio.mixing import Mono, mix
from mulan_core.audio.opening import AudioError, Reader, Source, open_audio
from mulan_core.audio.sndfile import SndfileReader

SAMPLE_RATE_HZ = 16_000

_MARGIN_S = 0.25  # decoded on both sides of a clip; soxr's filter needs a fifth of it at 11 kHz, less above
_LOUDEST_STEP_S = 1.0


@dataclass(frozen=True)
class Clip:
    """A clip, and how it was come by.

    Attributes:
        wave: mono float32 (samples,), within full scale.
        start_s: where in the track it begins.
        decoder: "libsndfile", or "FFmpeg" with container and codec.
        cancels: the channels cancelled each other, and the louder one was taken.
        num_clipped: samples that were beyond full scale.
    """

    wave: np.ndarray
    start_s: float
    decoder: str
    cancels: bool
    num_clipped: int


def decode_audio(
    source: Source, *, max_s: float | None = None, sample_rate_hz: int = SAMPLE_RATE_HZ
) -> tuple[np.ndarray, float]:
    """Decode a whole file; docs/data.md lists what is read.

    Args:
        source: encoded bytes, a path, or an open binary file that seeks.
        max_s: refuse longer audio, seconds.
        sample_rate_hz: of the result.

    Returns:
        The wave, mono float32 (samples,) within full scale, and the length of the audio in seconds.

    Raises:
        AudioError: ``missing``, ``empty``, ``undecodable``, ``too_long`` or ``not_finite``.
    """
    with open_audio(source) as reader:
        if isinstance(reader, SndfileReader) and reader.frames is not None:
            _check_length(reader.frames / reader.rate_hz, max_s)
        mono = _read_whole(reader, max_s, sample_rate_hz)
    if mono.cancelling is not None:
        with open_audio(source) as reader:
            mono = _read_whole(reader, max_s, sample_rate_hz, only=mono.cancelling)
    wave, _ = _limit(mono.wave)
    return wave, mono.seconds


def rate_of(source: Source) -> int:
    """Samples per second of audio, as its header states.

    Raises:
        AudioError: ``missing``, ``empty`` or ``undecodable``.
    """
    with open_audio(source) as reader:
        return reader.rate_hz


def cut_clip(
    source: Source,
    *,
    clip_s: float,
    start_s: float | None = None,
    duration_s: float | None = None,
    max_s: float | None = None,
    silence_rms: float = 0.0,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
) -> Clip:
    """Decode one clip: the middle of the track, or the middle of the segment that is named.

    Of a long file only the clip and a margin are decoded where libsndfile knows the length: it seeks to the very
    sample, and the margin holds the resampler's filter, so the clip equals that of the whole file but for the rounding
    of float32. Where no length is sure, or the file breaks it, the file is decoded as far as the segment goes.

    Args:
        source: encoded bytes, or a path.
        clip_s: length of the clip, seconds; a shorter segment is taken as it is.
        start_s, duration_s: the segment of the track, seconds; null takes the track from its start, to its end.
        max_s: refuse longer segments, seconds.
        silence_rms: where the middle is quieter than this, the loudest ``clip_s`` of the segment is the clip.
        sample_rate_hz: of the result.

    Returns:
        The clip; its wave is empty where the segment lies behind the track's end.

    Raises:
        AudioError: ``missing``, ``empty``, ``undecodable``, ``too_long`` or ``not_finite``.
    """
    place = _Place(clip_s, start_s, duration_s, max_s, sample_rate_hz)
    clip = _cut(source, place)
    if silence_rms and len(clip.wave) == round(clip_s * sample_rate_hz) and rms_of(clip.wave) < silence_rms:
        return _cut(source, replace(place, loudest=True))
    return clip


@dataclass(frozen=True)
class _Place:
    """Which clip of a track is wanted; see ``cut_clip``."""

    clip_s: float
    start_s: float | None
    duration_s: float | None
    max_s: float | None
    rate_hz: int
    loudest: bool = False

    def find(self, num_samples: int) -> tuple[int, int]:
        """First sample of the clip in a track of so many, and the one after its last."""
        first, last = self.segment(num_samples)
        length = round(self.clip_s * self.rate_hz)
        first += max(0, (last - first - length) // 2)
        return first, min(last, first + length)

    def segment(self, num_samples: int) -> tuple[int, int]:
        """First sample of the segment, and the one after its last."""
        first = min(round((self.start_s or 0.0) * self.rate_hz), num_samples)
        last = min(first + round(self.duration_s * self.rate_hz), num_samples) if self.duration_s else num_samples
        return first, last

    def find_in(self, wave: np.ndarray) -> tuple[int, int]:
        """The clip in the whole track: as ``find`` places it, or where the segment is loudest."""
        if not self.loudest:
            return self.find(len(wave))
        first, last = self.segment(len(wave))
        length = round(self.clip_s * self.rate_hz)
        step = min(length, round(_LOUDEST_STEP_S * self.rate_hz))
        steps = wave[first:last][: (last - first) // step * step].reshape(-1, step)
        in_clip = np.ones(max(1, length // step))
        power = np.convolve(np.einsum("ij,ij->i", steps, steps), in_clip, "valid")
        offset = np.convolve(steps.sum(axis=1), in_clip, "valid")
        loudest = int(np.argmax(power - offset**2 / (len(in_clip) * step)))
        start = max(first, min(first + loudest * step, last - length))
        return start, min(last, start + length)

    @property
    def most_s(self) -> float | None:
        """What of the track may be decoded at most; beyond, its segment is too long."""
        return None if self.max_s is None else self.max_s + (self.start_s or 0.0)

    @property
    def end_s(self) -> float | None:
        """Where the segment ends, if that is said."""
        return (self.start_s or 0.0) + self.duration_s if self.duration_s else None


def _cut(source: Source, place: _Place, only: int | None = None) -> Clip:
    """The clip; of the channel ``only``, or of all."""
    with open_audio(source) as reader:
        decoder = reader.decoder
        if place.duration_s is not None and place.max_s is not None and place.duration_s > place.max_s:
            raise AudioError(
                "too_long", f"the segment lasts {place.duration_s:g} s; at most {place.max_s:g} s are taken"
            )
        num_samples = None
        if isinstance(reader, SndfileReader) and reader.frames is not None:
            num_samples = (2 * reader.frames * place.rate_hz + reader.rate_hz) // (2 * reader.rate_hz)  # as soxr rounds
            if place.end_s is None:
                _check_length(reader.frames / reader.rate_hz, place.most_s)
        elif place.duration_s:
            num_samples = ceil((place.end_s or 0.0) * place.rate_hz)
        first, mono = 0, None
        if num_samples is not None and not place.loudest:
            first, last = place.find(num_samples)
            mono = _read_span(reader, first, last, place.rate_hz, only)
    if mono is None:
        with open_audio(source) as reader:
            mono = _read_whole(reader, place.most_s, place.rate_hz, only=only, end_s=place.end_s)
        first, last = place.find_in(mono.wave)
        mono = replace(mono, wave=mono.wave[first:last])
    if mono.cancelling is not None:
        return replace(_cut(source, place, mono.cancelling), cancels=True)
    wave, num_clipped = _limit(mono.wave)
    return Clip(wave, first / place.rate_hz, decoder, False, num_clipped)


def read_length(source: Source, *, max_s: float | None = None) -> float:
    """Length of audio in seconds, by its header or its packets; infinite where they do not tell. Decodes nothing.

    Raises:
        AudioError: ``missing``, ``empty``, ``undecodable`` or ``too_long``.
    """
    with open_audio(source) as reader:
        if isinstance(reader, FfmpegReader):
            length_s = reader.measure()
        else:
            length_s = float("inf") if reader.frames is None else reader.frames / reader.rate_hz
    if length_s < float("inf"):
        _check_length(length_s, max_s)
    return length_s


def check_wave(wave: np.ndarray, *, min_s: float, silence_rms: float, sample_rate_hz: int = SAMPLE_RATE_HZ) -> None:
    """Refuse a mono wave that nothing can be learned from.

    Args:
        wave: mono float32.
        min_s: refuse shorter audio, seconds.
        silence_rms: refuse audio whose root mean square about its mean is under this, full scale being 1.
        sample_rate_hz: of the wave.

    Raises:
        AudioError: ``too_short``, ``not_finite`` or ``silent``.
    """
    seconds = len(wave) / sample_rate_hz
    if len(wave) == 0 or seconds < min_s:
        raise AudioError("too_short", f"the audio lasts {seconds:.2f} s; at least {min_s:g} s are needed")
    rms = rms_of(wave)
    if not np.isfinite(rms):
        raise AudioError("not_finite", "the audio holds values that are not finite")
    if rms < silence_rms:
        raise AudioError("silent", f"the audio is silent: its RMS {rms:.1e} is under {silence_rms:g}")


def rms_of(wave: np.ndarray) -> float:
    """Root mean square of a wave about its mean, so that a constant offset is silence."""
    mean = float(np.mean(wave, dtype=np.float64))
    return float(np.sqrt(max(0.0, np.mean(np.square(wave, dtype=np.float64)) - mean**2))) if np.isfinite(mean) else mean


def _check_length(length_s: float, max_s: float | None) -> None:
    if max_s is not None and length_s > max_s:
        raise AudioError("too_long", f"the audio lasts {length_s:.1f} s; at most {max_s:g} s are taken")


def _read_whole(
    reader: Reader,
    max_s: float | None,
    sample_rate_hz: int,
    *,
    only: int | None = None,
    end_s: float | None = None,
) -> Mono:
    """All of it, or up to ``end_s``; longer than ``max_s`` is refused."""
    end_frame = None if end_s is None else ceil((end_s + _MARGIN_S) * reader.rate_hz)
    max_frames = None if max_s is None or end_s is not None else int(max_s * reader.rate_hz)
    mono = mix(reader.blocks(end_frame if max_frames is None else max_frames + 1), sample_rate_hz, only=only)
    if mono.num_frames == 0:
        raise AudioError("empty", "the audio holds no samples")
    if max_frames is not None and mono.num_frames > max_frames:
        raise AudioError("too_long", f"the audio lasts longer than {max_s:g} s, the most that is taken")
    return mono


def _read_span(reader: Reader, first: int, last: int, sample_rate_hz: int, only: int | None) -> Mono | None:
    """Samples ``first`` to ``last`` of the resampled audio, or None where the file cannot seek or breaks its header."""
    # Input and output samples coincide `common` times a second; the resampler must start at such a point.
    common = gcd(reader.rate_hz, sample_rate_hz)
    frames_per, samples_per = reader.rate_hz // common, sample_rate_hz // common
    start = max(0, first // samples_per - ceil(_MARGIN_S * common))
    end_frame = ceil(last * reader.rate_hz / sample_rate_hz) + ceil(_MARGIN_S * reader.rate_hz)
    if isinstance(reader, SndfileReader) and reader.frames is not None:
        end_frame = min(end_frame, reader.frames)
    wanted = end_frame - start * frames_per
    if first >= last:
        return Mono(np.zeros(0, np.float32), 0, 0.0, None)
    try:
        if start:
            reader.seek(start * frames_per)
        mono = mix(reader.blocks(wanted), sample_rate_hz, only=only)
    except UnreadableError:
        return None
    offset = start * samples_per
    return replace(mono, wave=mono.wave[first - offset : last - offset]) if mono.num_frames == wanted else None


def _limit(wave: np.ndarray) -> tuple[np.ndarray, int]:
    """The wave within full scale, and how many samples were beyond."""
    if len(wave) == 0:
        return wave, 0
    low, high = float(wave.min()), float(wave.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise AudioError("not_finite", "the audio holds values that are not finite")
    if low >= -1 and high <= 1:
        return wave, 0
    return wave.clip(-1, 1), int(np.count_nonzero(np.abs(wave) > 1))

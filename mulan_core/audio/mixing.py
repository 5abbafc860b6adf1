"""Blocks of many channels to one wave at the model's rate; finds channels that cancel each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soxr

Block = tuple[np.ndarray, int, np.ndarray]
"""Float32 (frames, channels), samples per second, and what each channel counts, float32 (channels,)."""

_EVERY = 13  # a prime: of so many samples one is looked at for the power of channels
_LOST = 2.5e-2  # of the power that the strongest channel brings in: 16 dB


@dataclass(frozen=True)
class Mono:
    """A downmix.

    Attributes:
        wave: float32 (samples,), not limited to full scale.
        num_frames: how many were read.
        seconds: how long they last.
        cancelling: null; or the channel that counts most, where the sum of all has lost nearly everything.
    """

    wave: np.ndarray
    num_frames: int
    seconds: float
    cancelling: int | None


def mix(blocks: Iterator[Block], sample_rate_hz: int, *, only: int | None = None) -> Mono:
    """Downmix and resample blocks as they come.

    Args:
        blocks: whose rate and channels may change on the way, as a radio's do.
        sample_rate_hz: of the result.
        only: take this channel alone.
    """
    pieces: list[np.ndarray] = []
    frames: Counter[int] = Counter()
    powers = _Powers()
    resampler, rate_hz = None, 0
    held: np.ndarray | None = None
    for samples, block_rate_hz, weights in blocks:
        if held is not None:
            is_last = block_rate_hz != rate_hz
            pieces.append(held if resampler is None else resampler.resample_chunk(held, last=is_last))
        if block_rate_hz != rate_hz:
            rate_hz, resampler = block_rate_hz, None
            if rate_hz != sample_rate_hz:
                resampler = soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")
        held = _downmix(samples, weights) if only is None else samples[:, min(only, samples.shape[1] - 1)].copy()
        if only is None and samples.shape[1] > 1:
            powers.add(samples, weights, held)
        frames[rate_hz] += len(samples)
    if held is not None:
        pieces.append(held if resampler is None else resampler.resample_chunk(held, last=True))
    wave = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    seconds = sum(count / rate for rate, count in frames.items())
    return Mono(wave, frames.total(), seconds, powers.cancelling)


def _downmix(samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sum of the channels, added one after the other.

    numpy's mean over so short an axis costs as much as the decoding, and a matrix product wakes threads that then spin.
    """
    mono = samples[:, 0].copy()
    if (weights == weights[0]).all():
        for channel in range(1, samples.shape[1]):
            mono += samples[:, channel]
        mono *= weights[0]
        return mono
    mono *= weights[0]
    for channel in range(1, samples.shape[1]):
        mono += samples[:, channel] * weights[channel]
    return mono


class _Powers:
    """Power of the channels and of their sum, in samples of the samples."""

    def __init__(self) -> None:
        self._shares: dict[int, float] = {}
        self._sum = 0.0

    def add(self, samples: np.ndarray, weights: np.ndarray, mono: np.ndarray) -> None:
        """Count a block."""
        self._sum += float(np.square(mono[::_EVERY], dtype=np.float64).sum())
        for channel in range(samples.shape[1]):
            power = float(np.square(samples[::_EVERY, channel], dtype=np.float64).sum())
            self._shares[channel] = self._shares.get(channel, 0.0) + power * float(weights[channel]) ** 2

    @property
    def cancelling(self) -> int | None:
        """The channel that counts most where the sum has lost nearly all of it."""
        if not self._shares or not self._sum < _LOST * max(self._shares.values()):
            return None
        return max(self._shares, key=lambda channel: self._shares[channel])

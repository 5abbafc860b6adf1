"""Plays notes through a SoundFont: oscillator, loop, low-pass and volume envelope in numpy, mono.

Shape letters: T samples at the player's rate. Rendering runs at 32 kHz; going straight to 16 kHz would
fold the upper partials of high notes back into the band.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from mulan_core.demo.soundfont import Region, SoundFont

RENDER_RATE_HZ = 32_000
"""Rate at which notes are rendered, before one resampling of the whole mix."""
_MAX_RELEASE_S = 1.2
_SHORTEST_RAMP_S = 0.002  # a shorter attack or release clicks
_SILENCE_DB = 66.0


@dataclass(frozen=True)
class Note:
    """One note of an arrangement; bank 128 is the drum kit."""

    start_s: float
    duration_s: float
    bank: int
    program: int
    key: int
    velocity: int


class Player:
    """Renders notes; the raw tone of each (region, key) is kept, because arrangements repeat keys."""

    def __init__(self, font: SoundFont, *, rate_hz: int = RENDER_RATE_HZ, cache_mb: int = 128) -> None:
        self.font = font
        self.rate_hz = rate_hz
        self._tones: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._recordings: dict[int, np.ndarray] = {}
        self._cached_bytes = 0
        self._cache_limit_bytes = cache_mb * 2**20

    def play(self, notes: list[Note], seconds: float) -> np.ndarray:
        """Mix notes into float32 audio of the given length; what rings on past the end is cut."""
        mix_T = np.zeros(round(seconds * self.rate_hz), dtype=np.float32)
        for note in notes:
            start = round(note.start_s * self.rate_hz)
            if not 0 <= start < len(mix_T):
                continue
            room = len(mix_T) - start
            for region in self.font.regions(note.bank, note.program, note.key, note.velocity):
                tone_T = self._voice(region, note, room)
                mix_T[start : start + len(tone_T)] += tone_T
        return mix_T

    def _voice(self, region: Region, note: Note, room: int) -> np.ndarray:
        timing = _time_envelope(region, note, self.rate_hz)
        tone_T = self._tone(region, note.key, min(room, timing.end))
        # A copy, since the tone is cached; a sample without a loop may end before the envelope does.
        voice_T = tone_T[: min(room, timing.end)] * np.float32(_gain(region, note))
        _apply_envelope(voice_T, timing)
        return voice_T

    def _tone(self, region: Region, key: int, length: int) -> np.ndarray:
        """The oscillator of one region at one key, at least ``length`` samples unless the recording ends."""
        cache_key = (region.index, key)
        tone_T = self._tones.get(cache_key)
        if tone_T is not None and (len(tone_T) >= length or not region.is_looped):
            self._tones.move_to_end(cache_key)
            return tone_T
        if tone_T is not None:
            self._cached_bytes -= self._tones.pop(cache_key).nbytes
            length = max(length, 2 * len(tone_T))
        tone_T = self._oscillate(region, key, length)
        self._tones[cache_key] = tone_T
        self._cached_bytes += tone_T.nbytes
        while self._cached_bytes > self._cache_limit_bytes and len(self._tones) > 1:
            self._cached_bytes -= self._tones.popitem(last=False)[1].nbytes
        return tone_T

    def _oscillate(self, region: Region, key: int, length: int) -> np.ndarray:
        recording = self._recording(region)
        played_key = region.fixed_key if 0 <= region.fixed_key <= 127 else key
        cents = (played_key - region.root_key) * region.cents_per_key + region.tune_cents
        step = region.sample.rate_hz / self.rate_hz * 2.0 ** (cents / 1200)
        if not region.is_looped:
            length = max(1, int((len(recording) - 2) / step))
        position = np.arange(length) * step
        if region.is_looped:
            loop_start, loop_length = region.loop_start - region.start, region.loop_end - region.loop_start
            first = min(length, int(np.ceil((loop_start + loop_length) / step)))
            position[first:] = loop_start + (position[first:] - loop_start) % loop_length
        index = position.astype(np.int32)
        fraction = (position - index).astype(np.float32)
        here = recording[index]
        tone_T = here + fraction * (recording[index + 1] - here)
        if region.cutoff_hz < 0.45 * self.rate_hz and region.cutoff_hz < 12_000:
            b, a = _low_pass(region.cutoff_hz, region.resonance_db, self.rate_hz)
            tone_T = lfilter(b, a, tone_T)
        return np.asarray(tone_T, dtype=np.float32)

    def _recording(self, region: Region) -> np.ndarray:
        """The region's samples as float32 in [-1, 1), with two zeros after them for the interpolation."""
        if region.index not in self._recordings:
            raw = np.asarray(self.font.samples_i16[region.start : region.end], dtype=np.float32) / 32_768
            if region.is_looped:  # the sample after the loop's last is its first
                raw = np.concatenate(
                    [raw[: region.loop_end - region.start], raw[region.loop_start - region.start :][:1]]
                )
            self._recordings[region.index] = np.concatenate([raw, np.zeros(2, np.float32)])
        return self._recordings[region.index]


@dataclass(frozen=True)
class _Timing:
    """A volume envelope on the sample grid: delay, linear attack, hold, then decay and release linear in dB.

    Falls are natural logarithms of amplitude per sample.
    """

    attack: int
    attack_end: int
    decay: int
    release: int
    end: int
    ramp: int
    decay_fall: float
    sustain_log: float
    release_fall: float


def _time_envelope(region: Region, note: Note, rate_hz: int) -> _Timing:
    attack_s = max(region.attack_s, _SHORTEST_RAMP_S)
    release_s = max(region.release_s, 5 * _SHORTEST_RAMP_S)
    hold_s = region.hold_s * 2 ** ((60 - note.key) * region.key_to_hold / 1200)
    decay_s = region.decay_s * 2 ** ((60 - note.key) * region.key_to_decay / 1200)
    decay_at_s = region.delay_s + attack_s + hold_s
    off_db = min(region.sustain_db, max(0.0, note.duration_s - decay_at_s) * 100 / decay_s)
    tail_s = min(_MAX_RELEASE_S, release_s * max(0.0, _SILENCE_DB - off_db) / 100)
    per_db = np.log(10) / 20
    return _Timing(
        attack=int(region.delay_s * rate_hz),
        attack_end=int((region.delay_s + attack_s) * rate_hz),
        decay=int(decay_at_s * rate_hz),
        release=int(note.duration_s * rate_hz),
        end=max(1, int((note.duration_s + tail_s) * rate_hz)),
        ramp=int(_SHORTEST_RAMP_S * rate_hz),
        decay_fall=100 * per_db / decay_s / rate_hz,
        sustain_log=region.sustain_db * per_db,
        release_fall=100 * per_db / release_s / rate_hz,
    )


def _apply_envelope(voice_T: np.ndarray, timing: _Timing) -> None:
    """Shape a tone in place; only the segments that change cost anything."""
    held = min(timing.release, len(voice_T))
    level = 1.0
    if timing.decay < held and timing.sustain_log > 0:
        falling = min(held - timing.decay, int(timing.sustain_log / timing.decay_fall) + 1)
        voice_T[timing.decay : timing.decay + falling] *= _fall(falling, timing.decay_fall)
        level = float(np.exp(-min(timing.sustain_log, (timing.release - timing.decay) * timing.decay_fall)))
        voice_T[timing.decay + falling : held] *= np.float32(np.exp(-timing.sustain_log))
    if timing.release < timing.attack_end:  # released during the attack: fall from where it stood
        level = max(0.0, (timing.release - timing.attack) / (timing.attack_end - timing.attack))
    if held < len(voice_T):
        voice_T[held:] *= _fall(len(voice_T) - held, timing.release_fall) * np.float32(level)
    voice_T[: timing.attack] = 0
    rising = min(timing.attack_end, held) - timing.attack
    if rising > 0:
        ramp = np.arange(rising, dtype=np.float32) / np.float32(timing.attack_end - timing.attack)
        voice_T[timing.attack : timing.attack + rising] *= ramp
    ending = min(len(voice_T), timing.ramp)
    voice_T[len(voice_T) - ending :] *= np.arange(ending, 0, -1, dtype=np.float32) / np.float32(ending)


def _fall(length: int, per_sample: float) -> np.ndarray:
    return np.exp(np.arange(length, dtype=np.float32) * np.float32(-per_sample))


def _gain(region: Region, note: Note) -> float:
    """Amplitude from velocity (40 dB per decade, the specification's default) and attenuation."""
    return float((max(1, note.velocity) / 127) ** 2 * 10 ** (-region.attenuation_db / 20))


def _low_pass(cutoff_hz: float, resonance_db: float, rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Second-order low-pass (the specification's filter) as float32 coefficients."""
    q = 10 ** (resonance_db / 20) / np.sqrt(2)
    omega = 2 * np.pi * cutoff_hz / rate_hz
    alpha, cosine = np.sin(omega) / (2 * q), np.cos(omega)
    b = np.array([(1 - cosine) / 2, 1 - cosine, (1 - cosine) / 2]) / (1 + alpha)
    a = np.array([1, -2 * cosine / (1 + alpha), (1 - alpha) / (1 + alpha)])
    return b.astype(np.float32), a.astype(np.float32)

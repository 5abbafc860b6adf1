"""Mixes an arrangement to 16 kHz mono: parts levelled against each other, then the room, the tilt and the noise.

Shape letters: T samples. The mixing numbers of a track come from its own generator, so the same spec and
attempt give the same audio on the same machine.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import soxr

from mulan_core.demo.composer import PARTS
from mulan_core.demo.genres import GENRES
from mulan_core.demo.player import RENDER_RATE_HZ, Note, Player
from mulan_core.demo.spec import TrackSpec, generator
from mulan_core.demo.styles import MOODS

RATE_HZ = 16_000
_LEVEL_DB = {"lead": 0.0, "comp": -5.0, "pad": -9.5, "bass": -8.0, "drums": -4.0}
_FRAME = 1600
_REVERB_S = 1.6
_SILENT_PEAK = 1e-3


def render(
    spec: TrackSpec, parts: dict[str, list[Note]], player: Player, *, seconds: float, attempt: int = 0
) -> np.ndarray:
    """Audio of a track.

    Returns:
        float32 mono at 16 kHz, exactly ``seconds`` long, peak between 0.5 and 0.95; all zeros where nothing sounds.
    """
    rng = generator(spec.seed, "mix", spec.index, attempt)
    style, mood = GENRES[spec.genre], MOODS[spec.mood]
    offsets = {
        "drums": style.drum_level_db + mood.drums_db, "bass": style.bass_level_db,
        "comp": style.comp_level_db, "pad": style.pad_level_db, "lead": 0.0,
    }  # fmt: skip
    detune = 2.0 ** (float(rng.uniform(-15, 15)) / 1200)
    mix_T = np.zeros(round(seconds * detune * RENDER_RATE_HZ) + 64, dtype=np.float32)
    for part in PARTS:
        if not parts[part]:
            continue
        part_T = player.play(parts[part], len(mix_T) / RENDER_RATE_HZ)
        level_db = _LEVEL_DB[part] + offsets[part] + float(rng.uniform(-2, 2)) * (part != "lead")
        mix_T += part_T * np.float32(10 ** (level_db / 20) / max(_loudness(part_T), 1e-4))
    # Playing the mix slightly fast or slow detunes it; whole notes can then come from the player's cache.
    wave_T = soxr.resample(mix_T, RENDER_RATE_HZ * detune, RATE_HZ, quality="HQ")[: round(seconds * RATE_HZ)]
    wave_T = np.pad(wave_T, (0, round(seconds * RATE_HZ) - len(wave_T)))
    if mood.drive:
        scale = np.float32(mood.drive / max(_loudness(wave_T), 1e-4) * 0.5)
        wave_T = np.tanh(wave_T * scale)
    reverb = mood.reverb + style.reverb + float(rng.uniform(0, 0.1))
    wave_T = _shape(
        wave_T, tilt_db=mood.tilt_db + float(rng.uniform(-1, 1)), reverb=reverb, seed=int(rng.integers(2**31))
    )
    peak = float(np.abs(wave_T).max())
    if peak < _SILENT_PEAK:
        return np.zeros_like(wave_T)  # noise alone is no music: the caller's check for silence must see it
    noise_db = float(rng.uniform(-58, -44))
    wave_T = wave_T / peak + rng.standard_normal(len(wave_T), dtype=np.float32) * np.float32(10 ** (noise_db / 20))
    gain = float(rng.uniform(0.5, 0.95)) / float(np.abs(wave_T).max())
    return (wave_T * np.float32(gain)).astype(np.float32)


def _loudness(wave_T: np.ndarray) -> float:
    """RMS over the louder half of short frames, so that rests do not make a part louder."""
    frames = wave_T[: len(wave_T) // _FRAME * _FRAME].reshape(-1, _FRAME)
    power = np.sort(np.einsum("ij,ij->i", frames, frames))[len(frames) // 2 :]
    return float(np.sqrt(power.mean() / _FRAME))


def _shape(wave_T: np.ndarray, *, tilt_db: float, reverb: float, seed: int) -> np.ndarray:
    """Reverb (decaying noise as impulse response) and spectral tilt, in one trip to the frequency domain."""
    rng = np.random.default_rng(seed)
    length = round(_REVERB_S * RATE_HZ)
    size = scipy.fft.next_fast_len(len(wave_T) + length, real=True)
    fade = np.exp(-np.arange(length, dtype=np.float32) * np.float32(6.9 / (length * rng.uniform(0.5, 1.0))))
    impulse = rng.standard_normal(length, dtype=np.float32) * fade
    impulse[: round(0.012 * RATE_HZ)] = 0
    impulse *= np.float32(reverb / np.sqrt(np.square(impulse).sum()))
    impulse[0] += 1
    frequency = np.maximum(scipy.fft.rfftfreq(size, 1 / RATE_HZ), 60).astype(np.float32)
    tilt = np.exp2(np.log2(frequency / 1000) * np.float32(tilt_db / 6.02))
    spectrum = scipy.fft.rfft(wave_T, size)
    spectrum *= scipy.fft.rfft(impulse, size)
    spectrum *= tilt
    return scipy.fft.irfft(spectrum, size)[: len(wave_T)]

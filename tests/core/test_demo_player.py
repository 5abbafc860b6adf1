"""The SoundFont reader and player: tuning against equal temperament, envelopes, drums, and broken fonts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mulan_core.demo.grooves import DRUM_KEYS
from mulan_core.demo.player import RENDER_RATE_HZ, Note, Player
from mulan_core.demo.soundfont import DRUM_BANK, find_soundfont, read_soundfont
from mulan_core.demo.styles import BASS_PROGRAMS, INSTRUMENTS
from mulan_core.errors import UserError


@pytest.fixture(scope="module")
def player() -> Player:
    return Player(read_soundfont(find_soundfont()))


def cents_off(wave: np.ndarray, key: int) -> float:
    """Distance of the waveform's period from the key's, in cents, octaves aside (an organ has a 16-foot stop)."""
    size = 4 * len(wave)
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), size)) ** 2
    # Autocorrelation between samples by a cosine sum: a lag of a high note is only some tens of samples.
    frequency = np.fft.rfftfreq(size, 1 / RENDER_RATE_HZ)
    strong = spectrum > spectrum.max() * 1e-4
    offsets = np.arange(-60, 61)
    best = []
    for octaves in (0, 1):  # one period, and two: where the sound repeats only after two, the first is a dip
        period_s = 2.0**octaves / (440 * 2 ** ((key - 69 + offsets / 100) / 12))
        match = np.cos(2 * np.pi * np.outer(period_s, frequency[strong])) @ spectrum[strong] / spectrum[strong].sum()
        best.append((match.max(), offsets[match.argmax()]))
    return float(max(best)[1]) if max(best)[0] > 0.6 else np.inf


PITCHED = sorted({(i.program, i.low, i.high) for i in INSTRUMENTS.values()} | {(p, 28, 50) for p in BASS_PROGRAMS})


@pytest.mark.parametrize(("program", "low", "high"), PITCHED)
def test_every_program_is_in_tune_over_its_range(player: Player, program: int, low: int, high: int) -> None:
    for key in {low, (low + high) // 2, high}:
        wave = player.play([Note(0.0, 1.0, 0, program, key, 100)], 1.0)[RENDER_RATE_HZ // 5 :]
        assert abs(cents_off(wave, key)) <= 25, f"program {program}, key {key}"


def test_the_tuning_test_hears_a_quarter_tone(player: Player) -> None:
    wave = player.play([Note(0.0, 1.0, 0, 73, 69, 100)], 1.0)[RENDER_RATE_HZ // 5 :]
    bent = np.interp(np.arange(0, len(wave) - 1, 2 ** (40 / 1200)), np.arange(len(wave)), wave)
    assert 36 <= cents_off(bent, 69) - cents_off(wave, 69) <= 44


def test_drums_sound_and_differ(player: Player) -> None:
    waves = {name: player.play([Note(0.0, 0.3, DRUM_BANK, 0, key, 110)], 0.4) for name, key in DRUM_KEYS.items()}
    for name, wave in waves.items():
        assert np.abs(wave).max() > 0.01, name
    power = {name: np.abs(np.fft.rfft(wave)) ** 2 for name, wave in waves.items()}
    centroid = {name: np.average(np.arange(len(p)), weights=p) for name, p in power.items()}
    assert centroid["kick"] < 0.5 * centroid["hat"]
    assert centroid["snare"] < 0.5 * centroid["hat"]


def test_a_note_falls_silent_after_its_release(player: Player) -> None:
    wave = player.play([Note(0.0, 0.5, 0, 19, 60, 100)], 3.0)
    sounding, after = wave[: RENDER_RATE_HZ // 2], wave[2 * RENDER_RATE_HZ :]
    assert np.sqrt(np.mean(sounding**2)) > 0.01
    assert np.abs(after).max() == 0


def test_velocity_follows_the_specification(player: Player) -> None:
    loud, soft = (player.play([Note(0.0, 0.5, 0, 19, 60, v)], 0.5) for v in (120, 60))
    assert np.sqrt(np.mean(loud**2) / np.mean(soft**2)) == pytest.approx(4.0, rel=1e-3)  # 40 dB a decade


def test_the_cache_does_not_change_the_sound() -> None:
    font = read_soundfont(find_soundfont())
    notes = [Note(0.1 * i, 0.2 + 0.3 * (i % 3), 0, 48, 60 + i % 5, 90) for i in range(20)]
    roomy, tight = Player(font), Player(font, cache_mb=0)
    np.testing.assert_array_equal(roomy.play(notes, 3.0), tight.play(notes, 3.0))


def test_notes_outside_the_clip_are_left_out_and_the_last_is_cut(player: Player) -> None:
    assert not player.play([Note(1.0, 1.0, 0, 0, 60, 100), Note(-0.1, 1.0, 0, 0, 60, 100)], 1.0).any()
    assert len(player.play([Note(0.9, 5.0, 0, 0, 60, 100)], 1.0)) == RENDER_RATE_HZ


def test_a_missing_font_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no SoundFont at .*nowhere\.sf2 \(corpus\.soundfont\)"):
        find_soundfont(str(tmp_path / "nowhere.sf2"))
    monkeypatch.setenv("MULAN_SOUNDFONT", str(tmp_path / "elsewhere.sf2"))
    with pytest.raises(UserError, match="MULAN_SOUNDFONT"):
        find_soundfont()
    monkeypatch.delenv("MULAN_SOUNDFONT")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'mulan\[demo\]'"):
        find_soundfont()


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "garbled"])
def test_a_broken_font_is_a_sentence(tmp_path: Path, damage: str) -> None:
    whole = find_soundfont().read_bytes()
    content = {
        "empty": b"",
        "text": b"this is not a font",
        "cut": whole[: len(whole) // 2],
        "garbled": whole.replace(b"pbag", b"xxxx"),
    }[damage]
    path = tmp_path / "font.sf2"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"font\.sf2"):
        read_soundfont(path)

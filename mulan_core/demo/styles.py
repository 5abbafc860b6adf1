"""The instruments and moods of the demo corpus, as data; the genres are in ``genres``.

Names are AudioSet display names (PAPER.md 8.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Instrument:
    """A labelled instrument, its General-MIDI program and the keys it sounds well (and in tune) on."""

    program: int
    low: int
    high: int
    is_sustained: bool = False
    """Holds a note until it is released (wind, bow, organ), rather than ringing out."""
    manner: str = "plain"
    """How it plays a melody: plain, octaves, thirds, chords, strum, roll, ring or drone (see composer)."""


INSTRUMENTS: Mapping[str, Instrument] = {
    "Piano": Instrument(0, 60, 88, manner="octaves"),
    "Acoustic guitar": Instrument(25, 52, 76, manner="strum"),
    "Electric guitar": Instrument(30, 45, 76, is_sustained=True),
    "Organ": Instrument(16, 55, 84, is_sustained=True, manner="chords"),
    "Violin, fiddle": Instrument(40, 57, 88, is_sustained=True),
    "Trumpet": Instrument(56, 55, 80, is_sustained=True),
    "Saxophone": Instrument(66, 46, 74, is_sustained=True),
    "Flute": Instrument(73, 62, 91, is_sustained=True),
    "Sitar": Instrument(104, 50, 74, manner="drone"),
    "Steelpan": Instrument(114, 58, 84, manner="roll"),
    "Vibraphone": Instrument(11, 55, 84, manner="ring"),
    "Accordion": Instrument(21, 50, 68, is_sustained=True, manner="thirds"),
    "String section": Instrument(48, 48, 84, is_sustained=True),
    "Choir": Instrument(52, 48, 79, is_sustained=True),
    "Synthesizer": Instrument(81, 45, 84, is_sustained=True),
}
LEADS: tuple[str, ...] = tuple(INSTRUMENTS)[:12]
COMPS: tuple[str | None, ...] = ("Piano", "Acoustic guitar", "Organ", None)
"""Who plays the chords; None leaves them to a second player of the lead instrument."""
PADS: tuple[str | None, ...] = ("String section", "Choir", "Synthesizer", None)
"""Held chords behind the others; None goes without."""
BASS_PROGRAMS: tuple[int, ...] = (32, 33, 34, 38)
"""Acoustic, fingered, picked and synthesizer bass; not labelled, since nearly every track has a bass."""


@dataclass(frozen=True, kw_only=True)
class Mood:
    """How a mood plays: mode, tempo, register, density, touch and sound."""

    scale: tuple[int, ...]
    mode: str
    tempo_factor: float
    register: int
    """Keys added to the middle of the lead's range."""
    density: float
    """0 long notes, 1 a note on every step."""
    touch: float
    """Sounding part of a note's time: under 1 is staccato."""
    velocity: int
    tilt_db: float
    """Treble against bass, dB per octave."""
    reverb: float
    drive: float
    """Overdrive of the whole mix; 0 is clean."""
    drums_db: float
    leap: float
    """Chance that the melody jumps instead of stepping."""
    drift: float
    """Melodic slope: below 0 lines fall, above 0 they rise."""
    accents: bool = False
    """A crash cymbal every other bar."""
    trill: bool = False
    """Long notes waver to the semitone above."""


MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
MIXOLYDIAN, PHRYGIAN, ALTERED = (0, 2, 4, 5, 7, 9, 10), (0, 1, 3, 5, 7, 8, 10), (0, 1, 3, 4, 6, 8, 10)

MOODS: Mapping[str, Mood] = {
    "Happy music": Mood(
        scale=MAJOR,
        mode="major",
        tempo_factor=1.04,
        register=3,
        density=0.45,
        touch=0.55,
        velocity=100,
        tilt_db=0.8,
        reverb=0.06,
        drive=0.0,
        drums_db=0.0,
        leap=0.15,
        drift=0.1,
    ),
    "Sad music": Mood(
        scale=MINOR,
        mode="minor",
        tempo_factor=0.88,
        register=-3,
        density=0.12,
        touch=1.0,
        velocity=78,
        tilt_db=-1.0,
        reverb=0.22,
        drive=0.0,
        drums_db=-2.5,
        leap=0.05,
        drift=-0.5,
    ),
    "Tender music": Mood(
        scale=MAJOR,
        mode="major",
        tempo_factor=0.9,
        register=1,
        density=0.15,
        touch=1.05,
        velocity=58,
        tilt_db=-2.0,
        reverb=0.25,
        drive=0.0,
        drums_db=-4.5,
        leap=0.1,
        drift=0.1,
    ),
    "Exciting music": Mood(
        scale=MIXOLYDIAN,
        mode="major",
        tempo_factor=1.12,
        register=8,
        density=0.85,
        touch=0.8,
        velocity=120,
        tilt_db=1.5,
        reverb=0.08,
        drive=0.0,
        drums_db=2.0,
        leap=0.15,
        drift=0.5,
        accents=True,
    ),
    "Angry music": Mood(
        scale=PHRYGIAN,
        mode="minor",
        tempo_factor=1.08,
        register=-8,
        density=0.7,
        touch=0.7,
        velocity=127,
        tilt_db=0.5,
        reverb=0.02,
        drive=1.2,
        drums_db=0.5,
        leap=0.05,
        drift=-0.1,
    ),
    "Scary music": Mood(
        scale=ALTERED,
        mode="minor",
        tempo_factor=0.86,
        register=-9,
        density=0.25,
        touch=1.05,
        velocity=92,
        tilt_db=-0.5,
        reverb=0.4,
        drive=0.0,
        drums_db=-2.0,
        leap=0.6,
        drift=0.0,
        trill=True,
    ),
}

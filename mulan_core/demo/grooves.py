"""What a genre of the demo corpus is made of, and the drums it may name; ``genres.py`` has the genres.

Patterns are strings over one bar: ``X`` accent, ``x`` stroke, ``o`` ghost note, ``.`` rest. A character is one
step; ``steps_per_beat`` says how many make a beat (3 = triplets, so swing and shuffle are written out).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DRUM_KEYS: Mapping[str, int] = {
    "kick": 36,
    "rim": 37,
    "snare": 38,
    "clap": 39,
    "snare_2": 40,
    "hat": 42,
    "pedal_hat": 44,
    "open_hat": 46,
    "crash": 49,
    "ride": 51,
    "china": 52,
    "ride_bell": 53,
    "tambourine": 54,
    "cowbell": 56,
    "conga_mute": 62,
    "conga_high": 63,
    "conga_low": 64,
    "timbale": 65,
    "maraca": 70,
    "clave": 75,
}
"""General-MIDI drum keys by name."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """A genre: tempo, drums, bass line, harmony and the way chords are played."""

    tempo_bpm: tuple[int, int]
    steps_per_beat: int = 4
    num_steps: int = 16
    progressions: tuple[tuple[int, ...], ...]
    """Scale degrees, one chord a bar (see ``bars_per_chord``)."""
    chord: tuple[int, ...]
    """Scale steps of a chord above its root: (0, 2, 4) is a triad."""
    bass: tuple[tuple[tuple[int, int, int], ...], ...]
    """Alternative lines of (step, length in steps, scale steps above the root)."""
    comp: tuple[str, ...]
    """Alternative rhythms of the comping."""
    comping: str
    """stab, strum, arpeggio, boogie, chug, montuno, hold or bells (see composer)."""
    comp_length: float
    """Length of a comping chord in steps."""
    lead_grid: int
    """Steps between the places where a melody note may start at medium density."""
    kit: int = 0
    drums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bars_per_chord: int = 1
    comp_center: int = 62
    bass_center: int = 38
    drum_level_db: float = 0.0
    bass_level_db: float = 0.0
    comp_level_db: float = 0.0
    pad_level_db: float = 0.0
    loops: bool = False
    """The melody is a short loop that repeats unchanged (electronic genres)."""
    syncopation: float = 0.2
    reverb: float = 0.0

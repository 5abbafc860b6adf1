"""The genres of the demo corpus: groove, drums, bass line, harmony and comping of each, as data.

Names are AudioSet display names (PAPER.md 8.2). A genre is carried by these tables, never by instruments: lead,
comping and pad instruments are drawn independently of it.

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
    steps_per_beat: int
    num_steps: int
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


GENRES: Mapping[str, Style] = {
    "Ambient music": Style(
        tempo_bpm=(58, 74),
        steps_per_beat=4,
        num_steps=16,
        progressions=((0, 3), (0, 5), (0, 4), (0, 2)),
        chord=(0, 2, 4, 8),
        bass=(((0, 16, 0),),),
        comp=("x.....x.........", "x.........x....."),
        comping="bells",
        comp_length=14,
        lead_grid=8,
        bass_level_db=-3.0,
        comp_level_db=-3.0,
        pad_level_db=7.0,
        syncopation=0.0,
        reverb=0.4,
    ),
    "Blues": Style(
        tempo_bpm=(76, 98),
        steps_per_beat=3,
        num_steps=12,
        progressions=((0, 0, 3, 0, 4, 3), (0, 3, 0, 4), (0, 3, 0, 0)),
        chord=(0, 2, 4, 6),
        bass=(
            ((0, 3, 0), (3, 3, 2), (6, 3, 4), (9, 3, 5)),
            ((0, 2, 0), (2, 1, 0), (3, 2, 2), (5, 1, 2), (6, 2, 4), (8, 1, 4), (9, 2, 5), (11, 1, 4)),
        ),
        comp=("X.xX.xX.xX.x",),
        comping="boogie",
        comp_length=1.6,
        lead_grid=3,
        drums={
            "kick": ("X....xX....x", "X....xX....."),
            "snare": ("...X.....X..", "...X.....X.o"),
            "ride": ("X.xX.xX.xX.x",),
            "pedal_hat": ("...X.....X..",),
        },
        comp_center=52,
        drum_level_db=2.5,
        comp_level_db=5.0,
        syncopation=0.15,
    ),
    "Classical music": Style(
        tempo_bpm=(76, 108),
        steps_per_beat=4,
        num_steps=16,
        progressions=((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3)),
        chord=(0, 2, 4),
        bass=(((0, 8, 0), (8, 8, 4)), ((0, 16, 0),)),
        comp=("xxxxxxxxxxxxxxxx",),
        comping="arpeggio",
        comp_length=1.2,
        lead_grid=2,
        bass_level_db=-3.0,
        comp_level_db=2.0,
        pad_level_db=2.0,
        syncopation=0.0,
        reverb=0.2,
    ),
    "Country": Style(
        tempo_bpm=(104, 124),
        steps_per_beat=4,
        num_steps=16,
        progressions=((0, 3, 0, 4), (0, 0, 3, 4), (0, 4, 3, 0)),
        chord=(0, 2, 4),
        bass=(((0, 3, 0), (8, 3, 4)), ((0, 3, 0), (8, 3, 4), (12, 2, 5), (14, 2, 6))),
        comp=("....X.x.....X.x.", "....X.......X.xx"),
        comping="strum",
        comp_length=2,
        lead_grid=2,
        kit=40,
        drums={"kick": ("X.......X.......",), "snare": ("oxXxoxXxoxXxoxXx",), "tambourine": ("..x.X.x...x.X.x.",)},
        drum_level_db=2.0,
        comp_level_db=4.0,
        syncopation=0.05,
    ),
    "Disco": Style(
        tempo_bpm=(114, 126),
        steps_per_beat=4,
        num_steps=16,
        progressions=((0, 5, 3, 4), (0, 6, 5, 4), (0, 3, 6, 4)),
        chord=(0, 2, 4, 6),
        bass=(
            ((0, 2, 0), (2, 2, 7), (4, 2, 0), (6, 2, 7), (8, 2, 0), (10, 2, 7), (12, 2, 0), (14, 2, 7)),
            (
                (0, 1, 0),
                (2, 1, 7),
                (3, 1, 0),
                (4, 1, 0),
                (6, 1, 7),
                (7, 1, 0),
                (8, 1, 0),
                (10, 1, 7),
                (11, 1, 0),
                (12, 1, 0),
                (14, 1, 7),
                (15, 1, 0),
            ),
        ),
        comp=("x.xx.xx.x.xx.xx.", ".xx..xx..xx..xxx"),
        comping="stab",
        comp_length=0.7,
        lead_grid=2,
        drums={
            "kick": ("X...X...X...X...",),
            "snare": ("....X.......X...",),
            "clap": ("....x.......x...",),
            "open_hat": ("..X...X...X...X.",),
            "hat": ("xo..xo..xo..xo..",),
            "tambourine": ("oooooooooooooooo",),
        },
        comp_center=66,
        bass_level_db=2.0,
    ),
    "Drum and bass": Style(
        tempo_bpm=(168, 176),
        steps_per_beat=4,
        num_steps=16,
        progressions=((0, 0, 5, 5), (0, 0, 3, 3)),
        chord=(0, 2, 4, 6),
        bass=(((0, 9, 0), (10, 6, 0)), ((0, 6, 0), (6, 3, 4), (10, 6, 0))),
        comp=("x...............", "......x........."),
        comping="hold",
        comp_length=12,
        lead_grid=4,
        kit=24,
        drums={
            "kick": ("X.........X.....", "X.X.......X....."),
            "snare": ("....X..o.o..X..o", "....X..o.oo.X.oo"),
            "hat": ("x.x.x.x.x.x.x.x.", "xxx.xxx.xxx.xxxx"),
            "ride": ("X...X...X...X...",),
        },
        bass_center=33,
        drum_level_db=3.0,
        bass_level_db=4.0,
        loops=True,
        syncopation=0.3,
    ),
    "Heavy metal": Style(
        tempo_bpm=(150, 176),
        steps_per_beat=4,
        num_steps=16,
        progressions=((0, 0, 1, 0), (0, 0, 5, 6), (0, 1, 0, 4)),
        chord=(0, 4, 7),
        bass=(
            (
                (0, 1, 0),
                (1, 1, 0),
                (2, 1, 0),
                (3, 1, 0),
                (4, 1, 0),
                (5, 1, 0),
                (6, 1, 0),
                (7, 1, 0),
                (8, 1, 0),
                (9, 1, 0),
                (10, 1, 0),
                (11, 1, 0),
                (12, 1, 0),
                (13, 1, 0),
                (14, 1, 0),
                (15, 1, 0),
            ),
        ),
        comp=("Xxx.Xxx.Xxx.XxXx", "XxXxxxXxxxXxxxXx", "X.xxX.xxX.xxX.xx"),
        comping="chug",
        comp_length=0.8,
        lead_grid=2,
        kit=16,
        drums={
            "kick": ("XxxxXxxxXxxxXxxx",),
            "snare": ("....X.......X...",),
            "china": ("x...x...x...x...",),
            "crash": ("X...............",),
        },
        comp_center=44,
        bass_center=33,
        drum_level_db=3.0,
        comp_level_db=5.0,
        syncopation=0.05,
    ),
    "Hip hop music": Style(
        tempo_bpm=(82, 94),
        steps_per_beat=4,
        num_steps=16,
        progressions=((0, 0, 5, 5), (0, 3, 0, 3), (0, 0, 0, 0)),
        chord=(0, 2, 4, 6),
        bass=(((0, 5, 0), (7, 2, 0), (10, 5, 0)), ((0, 3, 0), (3, 3, 0), (10, 4, 4))),
        comp=("x..x............", "x.....x....x...."),
        comping="stab",
        comp_length=2.5,
        lead_grid=2,
        kit=25,
        drums={
            "kick": ("X......x..X.....", "X..x......X....."),
            "snare": ("....X.......X...",),
            "clap": ("....X.......X...",),
            "cowbell": ("..............x.", "..........x...x."),
            "hat": ("x.x.x.x.x.x.xxxx", "x.xxx.x.x.x.x.x."),
            "open_hat": ("..............x.", "................"),
        },
        bass_center=31,
        drum_level_db=4.0,
        bass_level_db=4.0,
        loops=True,
        syncopation=0.3,
    ),
    "Jazz": Style(
        tempo_bpm=(138, 184),
        steps_per_beat=3,
        num_steps=12,
        progressions=((1, 4, 0, 5), (0, 5, 1, 4), (2, 5, 1, 4)),
        chord=(2, 6, 8, 4),
        bass=(
            ((0, 3, 0), (3, 3, 2), (6, 3, 4), (9, 3, 5)),
            ((0, 3, 0), (3, 3, 1), (6, 3, 2), (9, 3, 4)),
            ((0, 3, 7), (3, 3, 6), (6, 3, 4), (9, 3, 2)),
        ),
        comp=("x....x......", "..x.....x...", ".....x..x..."),
        comping="stab",
        comp_length=2,
        lead_grid=1,
        kit=32,
        drums={
            "ride": ("X..X.xX..X.x",),
            "pedal_hat": ("...X.....X..",),
            "snare": ("........o...", "..o..o......", "............"),
            "kick": ("o..o..o..o..",),
        },
        drum_level_db=-1.0,
        bass_level_db=3.0,
        syncopation=0.5,
    ),
    "Reggae": Style(
        tempo_bpm=(70, 86),
        steps_per_beat=4,
        num_steps=16,
        progressions=((0, 3), (0, 0, 3, 4), (0, 6, 0, 6), (0, 1)),
        chord=(0, 2, 4),
        bass=(
            ((0, 2, 0), (3, 1, 0), (4, 2, 2), (6, 3, 4), (11, 1, 4), (12, 2, 2), (14, 2, 0)),
            ((2, 2, 0), (4, 2, 0), (6, 2, 2), (8, 3, 4), (14, 2, 0)),
        ),
        comp=("..X...X...X...X.",),
        comping="stab",
        comp_length=0.8,
        lead_grid=2,
        drums={
            "kick": ("........X.......",),
            "rim": ("........X.......", "........X.....o."),
            "hat": ("x.X.x.X.x.X.x.Xo",),
        },
        comp_center=65,
        bass_center=36,
        bass_level_db=4.0,
        drum_level_db=1.0,
        comp_level_db=5.0,
        syncopation=0.25,
        reverb=0.08,
    ),
    "Salsa music": Style(
        tempo_bpm=(176, 204),
        steps_per_beat=2,
        num_steps=16,
        progressions=((0, 3, 4, 3), (0, 0, 4, 4), (0, 4, 4, 0)),
        chord=(0, 2, 4),
        bass=(
            ((3, 3, 4), (6, 5, 7), (11, 3, 4), (14, 2, 7)),
            ((0, 3, 0), (3, 3, 4), (6, 5, 7), (11, 3, 4), (14, 2, 7)),
        ),
        comp=("X.xx.xx.xxx.xx.x", "X.x.xx.x.xx.xx.x"),
        comping="montuno",
        comp_length=0.9,
        lead_grid=1,
        drums={
            "clave": ("X..X..X...X.X...",),
            "conga_mute": ("o.X.o...o.X.o...",),
            "conga_low": ("......xX......xX",),
            "conga_high": ("x...x...x...x...",),
            "cowbell": ("X.x.X.xxX.x.X.xx",),
            "maraca": ("x.xxx.xxx.xxx.xx",),
            "timbale": ("............o.xX", "................"),
        },
        comp_center=69,
        comp_level_db=4.0,
        syncopation=0.4,
    ),
    "Techno": Style(
        tempo_bpm=(126, 138),
        steps_per_beat=4,
        num_steps=16,
        progressions=((0, 0, 0, 0),),
        chord=(0, 2, 4),
        bass=(
            (
                (1, 1, 0),
                (2, 1, 0),
                (3, 1, 0),
                (5, 1, 0),
                (6, 1, 0),
                (7, 1, 0),
                (9, 1, 0),
                (10, 1, 0),
                (11, 1, 0),
                (13, 1, 0),
                (14, 1, 0),
                (15, 1, 0),
            ),
            (
                (1, 1, 0),
                (2, 1, 0),
                (3, 1, 0),
                (5, 1, 0),
                (6, 1, 7),
                (7, 1, 0),
                (9, 1, 0),
                (10, 1, 0),
                (11, 1, 0),
                (13, 1, 0),
                (14, 1, 7),
                (15, 1, 0),
            ),
        ),
        comp=("X..x..x...x..x..", "X.....x...x....."),
        comping="stab",
        comp_length=0.9,
        lead_grid=1,
        kit=25,
        drums={
            "kick": ("X...X...X...X...",),
            "open_hat": ("..x...x...x...x.",),
            "hat": ("oooooooooooooooo",),
            "clap": ("............x...", "....x.......x..."),
            "rim": ("...x..x.........", "......x..x......"),
        },
        bass_center=33,
        drum_level_db=4.0,
        bass_level_db=3.0,
        comp_level_db=1.0,
        loops=True,
        syncopation=0.5,
    ),
}

"""Turns a track spec into notes: a pure function of (spec, attempt, seconds).

Five parts are written, each a list of notes: lead, comp, pad, bass and drums. The genre's tables
(``styles``) rule groove, drums, bass and harmony; the mood rules mode, register, density and touch;
the lead instrument rules range and sustain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from mulan_core.demo.genres import GENRES
from mulan_core.demo.grooves import DRUM_KEYS, Style
from mulan_core.demo.player import Note
from mulan_core.demo.soundfont import DRUM_BANK
from mulan_core.demo.spec import TrackSpec, generator
from mulan_core.demo.styles import INSTRUMENTS, MOODS, Instrument

PARTS = ("lead", "comp", "pad", "bass", "drums")
_STROKES = {"X": 1.0, "x": 0.8, "o": 0.5}
_SCALE_STEPS = 7
_BREAK_S = 2.0


class Score:
    """Collects the notes of one arrangement and keeps its clock."""

    def __init__(self, spec: TrackSpec, rng: np.random.Generator, seconds: float) -> None:
        self.spec, self.rng = spec, rng
        self.style, self.mood = GENRES[spec.genre], MOODS[spec.mood]
        self.step_s = 60 / spec.tempo_bpm / self.style.steps_per_beat
        self.bar_s = self.style.num_steps * self.step_s
        self.num_bars = int(np.ceil(seconds / self.bar_s)) + 1
        # A clip is a cut out of a song: it need not start on a bar line.
        self.lead_in_s = float(rng.uniform(0, self.bar_s))
        progression = self.style.progressions[int(rng.integers(len(self.style.progressions)))]
        self.chords = [progression[bar // self.style.bars_per_chord % len(progression)] for bar in range(self.num_bars)]
        # A break: the lead alone for about two seconds; and elsewhere the lead rests as long.
        rest_bars = max(1, round(_BREAK_S / self.bar_s))
        solo, rest = (int(x) for x in rng.permutation(max(2, (self.num_bars - 1) // rest_bars))[:2])
        self.solo_bars = range(1 + solo * rest_bars, 1 + (solo + 1) * rest_bars)
        self.rest_bars = range(1 + rest * rest_bars, 1 + (rest + 1) * rest_bars)
        self.parts: dict[str, list[Note]] = {part: [] for part in PARTS}
        self.seconds = seconds

    def pitch(self, degree: int, base: int) -> int:
        """The key of a scale degree (any octave) above ``base``, which stands for degree 0."""
        octave, step = divmod(degree, _SCALE_STEPS)
        return base + 12 * octave + self.mood.scale[step]

    def add(self, part: str, bar: int, step: float, *, length: float, key: int, strength: float, program: int) -> None:
        """Write one note; times in steps. What would start outside the clip is dropped."""
        where = bar + int(step // self.style.num_steps)  # the lead counts on over two bars
        if where in (self.rest_bars if part in ("lead", "bass") else self.solo_bars):
            return
        sway = float(self.rng.normal(0, 0.004))
        start_s = bar * self.bar_s + step * self.step_s - self.lead_in_s + sway
        if start_s < 0:  # sounded before the cut: keep what is left of a long note
            length += start_s / self.step_s
            start_s = 0.0
            if length < 2:
                return
        if start_s >= self.seconds:
            return
        bank = DRUM_BANK if part == "drums" else 0
        # Velocities in steps of 4: the ear does not hear finer, and equal notes share the player's cache.
        velocity = round(self.mood.velocity * strength * float(self.rng.uniform(0.92, 1.04)) / 4) * 4
        self.parts[part].append(
            Note(start_s, max(0.03, length * self.step_s), bank, program, key, min(127, max(8, velocity)))
        )


def compose(spec: TrackSpec, *, seconds: float, attempt: int = 0) -> dict[str, list[Note]]:
    """The notes of a track, by part.

    Args:
        spec: what the track is.
        seconds: length of the clip; notes start within it.
        attempt: another number is another arrangement of the same spec.
    """
    score = Score(spec, generator(spec.seed, "arrangement", spec.index, attempt), seconds)
    _write_drums(score)
    _write_bass(score)
    _write_comp(score)
    _write_pad(score)
    _write_lead(score)
    return score.parts


def hash_notes(parts: dict[str, list[Note]]) -> str:
    """SHA-256 of the notes, times rounded to the microsecond."""
    digest = hashlib.sha256()
    for part in PARTS:
        for n in parts[part]:
            digest.update(
                f"{part} {n.start_s:.6f} {n.duration_s:.6f} {n.bank} {n.program} {n.key} {n.velocity}\n".encode()
            )
    return digest.hexdigest()


def _strokes(pattern: str) -> Iterator[tuple[int, float]]:
    return ((step, _STROKES[mark]) for step, mark in enumerate(pattern) if mark in _STROKES)


def _write_drums(score: Score) -> None:
    style, rng = score.style, score.rng
    chosen = {name: int(rng.integers(len(patterns))) for name, patterns in style.drums.items()}
    for bar in range(score.num_bars):
        for name, patterns in style.drums.items():
            if name == "crash" and bar % 4:
                continue
            pattern = patterns[chosen[name] if bar % 4 != 3 else (chosen[name] + 1) % len(patterns)]
            for step, strength in _strokes(pattern):
                score.add("drums", bar, step, length=4, key=DRUM_KEYS[name], strength=strength, program=style.kit)
        if style.drums and score.mood.accents and bar % 2 == 0:
            score.add("drums", bar, 0, length=8, key=DRUM_KEYS["crash"], strength=0.9, program=style.kit)


def _write_bass(score: Score) -> None:
    style, program = score.style, score.spec.bass_program
    line = style.bass[int(score.rng.integers(len(style.bass)))]
    base = _nearest(score.spec.tonic, style.bass_center)
    for bar, root in enumerate(score.chords):
        fold = -_SCALE_STEPS if root > 3 else 0  # keep roots in one octave around the centre
        for step, length, degree in line:
            key = score.pitch(root + degree + fold, base)
            score.add("bass", bar, step, length=length * 0.95, key=key, strength=0.9, program=program)


def _write_comp(score: Score) -> None:
    style, rng = score.style, score.rng
    program = INSTRUMENTS[score.spec.comp].program
    base = _nearest(score.spec.tonic, style.comp_center)
    rhythm = style.comp[int(rng.integers(len(style.comp)))]
    for bar, root in enumerate(score.chords):
        chord = _voicing(score, style, root, base)
        low = score.pitch(root - _SCALE_STEPS if root > 3 else root, base)
        for number, (step, strength) in enumerate(_strokes(rhythm)):
            for key, delay in _comp(style, chord, low, number):
                score.add(
                    "comp",
                    bar,
                    step + delay,
                    length=style.comp_length,
                    key=key,
                    strength=strength * 0.85,
                    program=program,
                )


def _voicing(score: Score, style: Style, root: int, base: int) -> list[int]:
    """Chord keys, low to high, folded to within an octave around the centre so that voices move little."""
    keys = [score.pitch(root + above, base) for above in style.chord]
    return sorted({(key - base + 7) % 12 + base - 7 for key in keys})


def _comp(style: Style, chord: list[int], low: int, number: int) -> list[tuple[int, float]]:
    """What stroke ``number`` of a comping bar plays, as (key, delay in steps).

    Args:
        style: names the way of comping and its step grid.
        chord: keys of the chord, low to high.
        low: key of the chord's root, below the chord.
        number: counts the strokes of the bar.
    """
    match style.comping:
        case "strum":
            return [(key, 0.08 * string) for string, key in enumerate((*chord, chord[0] + 12))]
        case "arpeggio":  # Alberti figure: low, high, middle, high
            return [(chord[(0, -1, len(chord) // 2, -1)[number % 4]], 0)]
        case "boogie":  # the shuffle figure of blues: root with fifth, a beat later with sixth
            return [(low, 0), (low + (9 if number // 2 % 2 else 7), 0)]
        case "chug":  # power chord
            return [(low, 0), (low + 7, 0), (low + 12, 0)]
        case "montuno":  # broken chord in octaves
            key = chord[(0, 2, 1, 2)[number % 4] % len(chord)]
            return [(key, 0), (key + 12, 0)]
        case "bells":
            return [(chord[number % len(chord)] + 12, 0), (chord[(number + 2) % len(chord)], 2)]
    return [(key, 0) for key in chord]


def _write_pad(score: Score) -> None:
    name = score.spec.pad
    if name is None:
        return
    program = INSTRUMENTS[name].program
    base = _nearest(score.spec.tonic, 62)
    beat = score.style.steps_per_beat
    for bar, root in enumerate(score.chords):
        chord = _voicing(score, GENRES["Classical music"], root, base)
        if name == "Synthesizer":  # a sequencer: the chord broken up, four notes a beat
            for note in range(4 * score.style.num_steps // beat):
                key = chord[note % len(chord)] + 12 * (note % 2)
                score.add("pad", bar, note * beat / 4, length=0.15 * beat, key=key, strength=0.8, program=program)
        else:
            for key in chord:
                score.add("pad", bar, 0, length=score.style.num_steps * 0.98, key=key, strength=0.8, program=program)


def _write_lead(score: Score) -> None:
    """A two-bar motif, moved with the harmony and varied, until the clip is full."""
    spec = score.spec
    instrument = INSTRUMENTS[spec.lead]
    middle = (instrument.low + instrument.high) / 2 + score.mood.register * (instrument.high - instrument.low) / 36
    base = _nearest(spec.tonic, round(middle))
    rhythm = _lead_rhythm(score)
    motif = _lead_contour(score, len(rhythm))
    for bar in range(0, score.num_bars, 2):
        if bar % 8 == 6 and not score.style.loops:
            rhythm = _lead_rhythm(score)
            motif = _lead_contour(score, len(rhythm))
        for number, (step, length) in enumerate(rhythm):
            root = score.chords[min(bar + step // score.style.num_steps, score.num_bars - 1)]
            shift = 0 if score.style.loops else root if root < 4 else root - _SCALE_STEPS
            key = _fold(score.pitch(motif[number] + shift, base), instrument.low, instrument.high)
            sounding = length * score.mood.touch
            if not instrument.is_sustained:
                sounding = max(sounding, 0.6 * length)
            strength = 1.0 if step % score.style.steps_per_beat == 0 else 0.9
            wavers = score.mood.trill and length >= 4
            for note in range(int(sounding) if wavers else 1):
                held = 1.05 if wavers else sounding
                for voice, delay, lasting, level in _manner(instrument, key + note % 2 * wavers, held, score):
                    score.add(
                        "lead",
                        bar,
                        step + note + delay,
                        length=lasting,
                        key=voice,
                        strength=strength * level,
                        program=instrument.program,
                    )


def _manner(instrument: Instrument, key: int, length: float, score: Score) -> list[tuple[int, float, float, float]]:
    """A melody note as the instrument plays it: (key, delay, length, strength) with times in steps.

    Much of what makes an instrument known is how it is played: a steelpan rolls long notes, a sitar strikes its
    drone strings, an accordion plays in thirds.
    """
    below = _chord_tones_below(key, score)
    fifth = _fold(score.spec.tonic + 7, instrument.low - 5, instrument.low + 6)
    match instrument.manner:
        case "octaves":
            return [(key, 0, length, 1), (key - 12, 0, length, 0.9)]
        case "thirds":
            return [(key, 0, length, 1), (below[0], 0, length, 0.9)]
        case "chords":
            return [(key, 0, length, 1), *((tone, 0, length, 0.85) for tone in below)]
        case "strum":
            spread = 0.012 / score.step_s
            return [(tone, i * spread, length - i * spread, 0.9) for i, tone in enumerate((*reversed(below), key))]
        case "ring":
            return [(key, 0, max(3 * length, 1.2 / score.step_s), 1)]
        case "drone":
            stroke = 0.5 * length
            return [(key, 0, length, 1), (fifth, stroke, length, 0.7), (fifth + 5, stroke, length, 0.7)]
        case "roll":
            stroke = 0.075 / score.step_s
            return [(key, i * stroke, stroke, 1 if i == 0 else 0.85) for i in range(max(1, int(length / stroke)))]
    return [(key, 0, length, 1)]


def _chord_tones_below(key: int, score: Score) -> tuple[int, int]:
    """A third and a sixth below, in the scale."""
    scale = {(score.spec.tonic + step) % 12 for step in score.mood.scale}
    in_scale = [tone for tone in range(key - 1, key - 12, -1) if tone % 12 in scale]
    return in_scale[1], in_scale[4]


def _lead_rhythm(score: Score) -> list[tuple[int, int]]:
    """Onsets of a two-bar motif as (step, steps until the next onset)."""
    style, mood, rng = score.style, score.mood, score.rng
    total, beat = 2 * style.num_steps, style.steps_per_beat
    onsets = []
    for step in range(total):
        on_beat, on_grid = step % beat == 0, step % style.lead_grid == 0
        if on_beat:
            chance = 0.35 + 0.6 * mood.density if step % style.num_steps else 0.95
            chance -= 0.5 * style.syncopation * (step % (2 * beat) != 0)
        elif on_grid:
            chance = mood.density * (0.75 + 0.5 * style.syncopation)
        else:
            chance = max(0.0, mood.density - 0.35) * 0.9
        if rng.random() < chance:
            onsets.append(step)
    onsets = onsets or [0]
    return [(step, after - step) for step, after in zip(onsets, [*onsets[1:], total], strict=True)]


def _lead_contour(score: Score, length: int) -> list[int]:
    """Scale degrees of a motif: a walk around the chord, with the mood's leaps and slope."""
    rng, mood = score.rng, score.mood
    degree, degrees = int(rng.choice([0, 2, 4])), []
    for number in range(length):
        degrees.append(degree)
        if rng.random() < mood.leap:
            degree += int(rng.choice([-4, -3, 3, 4]))
        else:
            degree += int(np.clip(round(rng.normal(mood.drift, 1.0)), -2, 2))
        if not -5 <= degree <= 8:
            degree -= int(np.sign(degree)) * 5
        if number % 4 == 3:
            degree = min((0, 2, 4, 7, -3), key=lambda tone: abs(tone - degree))
    return degrees


def _nearest(pitch_class: int, center: int) -> int:
    """The key of a pitch class nearest to ``center``."""
    return center + (pitch_class - center + 6) % 12 - 6


def _fold(key: int, low: int, high: int) -> int:
    """Move a key by octaves into [low, high]."""
    while key < low:
        key += 12
    while key > high:
        key -= 12
    return key

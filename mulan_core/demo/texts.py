"""Writes what people say about a demo track: the paper's four text sources, from the track's spec.

aset: the AudioSet names of its labels. sf: short tags, a third of them noise. lf: sentences about the music
among comments about anything else, two thirds of them junk. pl (playlist titles) comes from ``playlists``.
As in the paper (section 3), long-form text exists only for part of the tracks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mulan_core.demo import words
from mulan_core.demo.spec import TrackSpec, generator

LF_SHARE = 0.8
"""Part of the tracks that have long-form text."""


@dataclass(frozen=True)
class Credits:
    """The invented names of a track."""

    artist: str
    title: str
    album: str


# Each sentence names some of a track's attributes; together they name all of them.
_SENTENCES = (
    "A {mood} {genre} track led by {lead}.",
    "{Mood} {genre} with {lead} on top, {pace} and {mood2}.",
    "This is a {pace} {genre} piece with the melody on {lead}.",
    "A {mood} tune on {lead} over a {pace} {genre} groove.",
    "The {mood} melody of the {lead} stays with you.",
    "Such a {mood} {lead} solo on a {genre} beat.",
    "The song sounds {mood} and {mood2}, pure {genre}.",
    "You hear {lead} and a {genre} rhythm section at {bpm} bpm.",
    "A {genre} tune in {key} that feels {mood}.",
    "{Mood} {lead} music at a {pace} tempo.",
    "I love how {mood} the {lead} sounds in this {genre} song.",
    "{Pace} {genre} with a {mood2} {lead} melody.",
    "This {genre} instrumental has a {mood} mood and a {pace} beat.",
    "The rhythm is {genre}, the mood is {mood}, the melody is on {lead}.",
)
_COMP_SENTENCES = (
    "{Lead} over {comp}, a {mood} kind of {genre}.",
    "A {mood}, {pace} {genre} instrumental featuring {lead} and {comp}.",
    "{Genre} rhythm, {comp} playing the chords and a {mood} {lead} in front.",
    "The music is {pace} and {mood}, with {lead} and {comp}.",
    "The {comp} backs a {mood} {lead} melody in this {genre} track.",
)
_PAD_SENTENCES = (
    "With {pad} behind the {lead}, this {genre} song sounds {mood}.",
    "A {mood} {genre} piece with {lead} and {pad}.",
    "There is {pad} in the background and a {mood} {lead} in front.",
)


def draw_credits(spec: TrackSpec) -> Credits:
    """Invented artist, title and album; artists recur, as in any catalogue."""
    rng = generator(spec.seed, "credits", spec.index)
    artist = f"{_pick(rng, words.ARTIST_FIRST)} {_pick(rng, words.ARTIST_LAST)}"
    title, album = (f"{_pick(rng, words.TITLE_FIRST)} {_pick(rng, words.TITLE_LAST)}" for _ in range(2))
    return Credits(artist, title, album)


def write_texts(spec: TrackSpec) -> list[dict[str, str]]:
    """The aset, sf and lf texts of a track as {source, text} rows, without repetitions inside a source."""
    rng = generator(spec.seed, "texts", spec.index)
    rows = [("aset", label.split(":", 1)[1]) for label in spec.labels]
    rows += [("sf", text) for text in _short_texts(spec, rng)]
    if rng.random() < LF_SHARE:
        rows += [("lf", text) for text in _long_texts(spec, rng)]
    return [{"source": source, "text": text} for source, text in dict.fromkeys(rows)]


def _short_texts(spec: TrackSpec, rng: np.random.Generator) -> list[str]:
    names = draw_credits(spec)
    genre, lead, mood = words.GENRES[spec.genre], words.INSTRUMENTS[spec.lead], words.MOODS[spec.mood]
    pace = words.PACES[spec.pace]
    tags = [
        genre[0],
        _pick(rng, genre),
        _pick(rng, mood),
        f"{_pick(rng, mood)} {_pick(rng, genre)}",
        f"{_pick(rng, mood)} {_pick(rng, lead)}",
        f"{_pick(rng, genre)} {_pick(rng, lead)}",
        *(_pick(rng, words.INSTRUMENTS[name]) for name in spec.instruments),
    ]
    optional = [
        _pick(rng, pace),
        f"{_pick(rng, pace)} {genre[0]}",
        f"{spec.tempo_bpm} bpm",
        spec.key,
        "instrumental",
        names.artist,
        names.title,
        names.album,
        f"{names.artist} - {names.title}",
    ]
    tags += [tag for tag in optional if rng.random() < 0.5]
    tags = list(dict.fromkeys(tags))
    noise = [_noise_tag(rng) for _ in range(round(len(tags) * float(rng.uniform(0.3, 0.7))))]
    tags += noise
    return [tags[i] for i in rng.permutation(len(tags))]


def _noise_tag(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.15:
        return str(int(rng.integers(2009, 2026)))
    if kind < 0.3:
        return f"https://{_pick(rng, words.SITES)}/{int(rng.integers(10, 9999))}"
    return _pick(rng, words.NOISE_TAGS)


def _long_texts(spec: TrackSpec, rng: np.random.Generator) -> list[str]:
    templates = _SENTENCES + (_COMP_SENTENCES if spec.comp != spec.lead else ()) + (_PAD_SENTENCES if spec.pad else ())
    good = [
        fill(templates[i], spec, rng)
        for i in rng.choice(len(templates), size=int(rng.choice([1, 2, 3])), replace=False)
    ]
    junk = [
        _pick(rng, words.JUNK_COMMENTS).format(
            year=int(rng.integers(2015, 2026)),
            site=_pick(rng, words.SITES),
            count=int(rng.integers(12, 90_000)),
            second=int(rng.integers(10, 59)),
        )
        for _ in range(len(good) + int(rng.integers(1, 4)))
    ]
    lines = good + junk
    return [lines[i] for i in rng.permutation(len(lines))]


def fill(template: str, spec: TrackSpec, rng: np.random.Generator) -> str:
    """A template with a track's words: {mood} is lower case, {Mood} starts a sentence; a/an is put right."""
    moods = [words.MOODS[spec.mood][i] for i in rng.permutation(len(words.MOODS[spec.mood]))]
    slots = {
        "genre": _pick(rng, words.GENRES[spec.genre]),
        "lead": _pick(rng, words.INSTRUMENTS[spec.lead]),
        "comp": _pick(rng, words.INSTRUMENTS[spec.comp]),
        "pad": _pick(rng, words.INSTRUMENTS[spec.pad]) if spec.pad else "",
        "mood": moods[0],
        "mood2": moods[1],
        "pace": _pick(rng, words.PACES[spec.pace]),
        "key": spec.key,
        "bpm": str(spec.tempo_bpm),
    }
    slots |= {name.capitalize(): word[:1].upper() + word[1:] for name, word in slots.items()}
    return fix_articles(template.format(**slots))


def fix_articles(text: str) -> str:
    """Put "an" for "a" before a vowel."""
    tokens = text.split(" ")
    for index, token in enumerate(tokens[:-1]):
        if token in ("a", "A") and tokens[index + 1][:1].lower() in "aeiou":
            tokens[index] = token + "n"
    return " ".join(tokens)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]

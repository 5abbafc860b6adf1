"""Draws what each track of the demo corpus is: genre, instruments, mood, tempo, key and split.

Track i of a seed is the same whatever the size of the corpus: every draw is a pure function of (seed, i).
Genre, lead, comping, pad, mood and key are dealt independently. Two departures, both in the test split:

- one (genre, lead) pair in twelve is held out: it never occurs in train or valid;
- test tracks come in fours that share genre and lead, and a genre keeps to two moods, because a playlist
  needs several tracks with two attributes in common, and independent draws hardly ever give four.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mulan_core.demo.genres import GENRES
from mulan_core.demo.styles import BASS_PROGRAMS, COMPS, LEADS, MOODS, PADS

T = TypeVar("T")

BLOCK: tuple[tuple[str, int], ...] = (("train", 29), ("valid", 2), ("test", 12), ("held_out", 7))
"""How 50 tracks in a row are shared out; ``held_out`` tracks are test tracks of held-out pairs. The test split
is large because retrieval is measured among its tracks: with few of them even chance finds a playlist."""
BLOCK_SIZE = sum(count for _, count in BLOCK)
TEST_GROUP = 4
"""Test tracks in a row that share genre and lead."""
_TONICS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")


@dataclass(frozen=True)
class TrackSpec:
    """Everything that decides a track, apart from the random numbers of its arrangement."""

    index: int
    seed: int
    split: str
    held_out: bool
    genre: str
    lead: str
    comp: str
    pad: str | None
    bass_program: int
    mood: str
    tempo_bpm: int
    tonic: int

    @property
    def track_id(self) -> str:
        """A stable id, unique within a seed."""
        return f"demo-{self.index:05d}"

    @property
    def key(self) -> str:
        """The key in words: "E flat minor"."""
        return f"{_TONICS[self.tonic]} {MOODS[self.mood].mode}"

    @property
    def instruments(self) -> tuple[str, ...]:
        """Labelled instruments, lead first, each once."""
        return tuple(dict.fromkeys(name for name in (self.lead, self.comp, self.pad) if name))

    @property
    def pace(self) -> str:
        """slow, medium or fast."""
        return "slow" if self.tempo_bpm < 90 else "fast" if self.tempo_bpm > 140 else "medium"

    @property
    def labels(self) -> list[str]:
        """Labels as in the manifest: facet and AudioSet display name."""
        instruments = [f"instrument:{name}" for name in self.instruments]
        return [f"genre:{self.genre}", *instruments, f"mood:{self.mood}"]


def generator(seed: int, *names: int | str) -> np.random.Generator:
    """A random generator of its own for each purpose, named by numbers and words."""
    return np.random.default_rng([seed, *(zlib.crc32(n.encode()) if isinstance(n, str) else n for n in names)])


def deal(seed: int, name: str, number: int, cards: Sequence[T]) -> T:
    """Card ``number`` of an endless deck: each run through holds every card once, freshly shuffled."""
    turn, position = divmod(number, len(cards))
    return cards[int(generator(seed, "deal", name, turn).permutation(len(cards))[position])]


def held_out_pairs(seed: int) -> tuple[tuple[str, str], ...]:
    """The (genre, lead) pairs kept for the test split: each genre once, each lead at most once."""
    genres = [list(GENRES)[i] for i in generator(seed, "held genres").permutation(len(GENRES))]
    leads = [LEADS[i] for i in generator(seed, "held leads").permutation(len(LEADS))]
    return tuple(zip(genres, leads, strict=False))


def draw_specs(size: int, seed: int) -> list[TrackSpec]:
    """The specs of tracks 0 .. size - 1."""
    return [draw_spec(index, seed) for index in range(size)]


def draw_spec(index: int, seed: int) -> TrackSpec:
    """The spec of one track."""
    role, number = _role(index, seed)
    genre, lead = _genre_and_lead(role, number, seed)
    split = "test" if role == "held_out" else role
    mood = _mood(role, number, genre, seed)
    rng = generator(seed, "spec", index)
    low, high = GENRES[genre].tempo_bpm
    return TrackSpec(
        index=index,
        seed=seed,
        split=split,
        held_out=role == "held_out",
        genre=genre,
        lead=lead,
        comp=deal(seed, f"comp {role}", number, COMPS) or lead,
        pad=deal(seed, f"pad {role}", number, PADS),
        bass_program=BASS_PROGRAMS[int(rng.integers(len(BASS_PROGRAMS)))],
        mood=mood,
        tempo_bpm=round(float(rng.uniform(low, high)) * MOODS[mood].tempo_factor),
        tonic=int(rng.integers(12)),
    )


def _role(index: int, seed: int) -> tuple[str, int]:
    """The role of a track in its block of 50, and its running number within that role."""
    block, position = divmod(index, BLOCK_SIZE)
    roles = [role for role, count in BLOCK for _ in range(count)]
    shuffled = [roles[i] for i in generator(seed, "roles", block).permutation(BLOCK_SIZE)]
    role = shuffled[position]
    return role, block * dict(BLOCK)[role] + shuffled[:position].count(role)


def _genre_and_lead(role: str, number: int, seed: int) -> tuple[str, str]:
    held = held_out_pairs(seed)
    if role == "held_out":
        return held[number // TEST_GROUP % len(held)]
    if role == "test":  # from the other end of the held-out genres, so that a small corpus still has every genre
        number //= TEST_GROUP
        genre = held[-1 - number % len(held)][0]
    else:
        genre = deal(seed, f"genre {role}", number, tuple(GENRES))
    lead = deal(seed, f"lead {role}", number, LEADS)
    if (genre, lead) in held:
        lead = LEADS[(LEADS.index(lead) + 1 + number % (len(LEADS) - 1)) % len(LEADS)]
    return genre, lead


def _mood(role: str, number: int, genre: str, seed: int) -> str:
    moods = tuple(MOODS)
    if role not in ("test", "held_out"):
        return deal(seed, f"mood {role}", number, moods)
    position = list(GENRES).index(genre)
    first = int(generator(seed, "test moods").integers(len(moods)))
    # Neighbours on a circle give each mood to four genres; even and odd tracks take one each.
    return moods[(first + position + (number % 2) * (1 + position // len(moods))) % len(moods)]

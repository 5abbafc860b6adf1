"""Makes playlists of demo tracks that share one or two attributes, each within one split.

Train and valid playlists hold 5 to 20 tracks drawn from a group, and their titles become the tracks' ``pl``
texts; part of the tracks is in none, as in the paper. Test playlists are the queries of the evaluation:
they hold every test track with the attributes, so that nothing relevant is left out, and are four tracks at
least and a twentieth of the split at most.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mulan_core.demo import words
from mulan_core.demo.spec import TrackSpec, generator
from mulan_core.demo.texts import fix_articles

PL_SHARE = 0.7
"""Part of the train and valid tracks that anyone puts into a playlist."""
MIN_TEST_TRACKS = 4
MAX_TEST_SHARE = 0.03
"""A group of more than this part of the test tracks makes no test playlist."""
_MIN_TRACKS, _MAX_TRACKS = 5, 20
_WORDS = {"genre": words.GENRES, "instrument": words.INSTRUMENTS, "mood": words.MOODS, "pace": words.PACES}
_PER_GROUP = {1: 3, 2: 1}  # playlists of each train group, by its number of attributes

Group = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Playlist:
    """A playlist; its tracks share ``attributes``."""

    playlist_id: str
    title: str
    description: str
    track_ids: tuple[str, ...]
    split: str
    attributes: Group


# {x} and {y} are words of the two attributes in the order mood, pace, genre, instrument.
_TITLES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("mood",): ("{x} music {occasion}", "Feeling {x}", "{x} tunes"),
    ("pace",): ("{x} music", "{x} instrumentals"),
    ("genre",): ("{x} essentials", "All {x}", "Best of {x}"),
    ("instrument",): ("{x} favourites", "The {x} collection", "All about the {x}"),
    ("mood", "pace"): ("{x} and {y}", "{y} and {x} music"),
    ("mood", "genre"): ("{x} {y}", "{y} {occasion}", "{x} {y} {occasion}"),
    ("mood", "instrument"): ("{x} {y}", "{x} {y} {occasion}", "{x} songs with {y}"),
    ("pace", "genre"): ("{x} {y}", "{x} {y} mix"),
    ("pace", "instrument"): ("{x} {y}", "{x} {y} music"),
    ("genre", "instrument"): ("{x} {y}", "{x} with {y}", "{x} & {y}", "Late-night {y} {x}"),
}
_DESCRIPTIONS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("mood",): ("Instrumental songs that all sound {x}, whatever the style.", "A set of {x} tracks {occasion}."),
    ("pace",): ("Every track in this set has a {x} tempo.", "Songs picked for their {x} beat."),
    ("genre",): ("A tour of {x} rhythms from many bands.", "Hand-picked {x} tracks, old and new."),
    ("instrument",): ("Songs in which you hear the {x} play.", "From many styles, always with {x}."),
    ("mood", "pace"): ("A set of {y} songs, every one of them {x}.", "Music with a {y} tempo and a {x} mood."),
    ("mood", "genre"): ("Tracks with a {y} rhythm and a {x} mood.", "The {x} side of {y}, {occasion}."),
    ("mood", "instrument"): (
        "Songs of a {x} mood with the sound of the {y}.",
        "All the {x} sounds of the {y}, {occasion}.",
    ),
    ("pace", "genre"): ("A collection of {y} at a {x} tempo.", "Tracks with a {y} groove and a {x} beat."),
    ("pace", "instrument"): ("The {y} playing at a {x} tempo.", "Songs with a {x} beat and the sound of the {y}."),
    ("genre", "instrument"): (
        "The sound of the {y} over a {x} rhythm.",
        "Where {x} bands bring in the {y}.",
        "Songs with a {x} groove, and you hear the {y} play.",
    ),
}


def make_playlists(specs: list[TrackSpec], seed: int) -> list[Playlist]:
    """The playlists of a corpus, titles and descriptions all distinct within a split."""
    playlists: list[Playlist] = []
    for split in ("train", "valid", "test"):
        members = [s for s in specs if s.split == split]
        rng = generator(seed, "playlists", split)
        if split != "test":
            members = [s for s in members if generator(seed, "listed", s.index).random() < PL_SHARE]
        max_test_tracks = max(MIN_TEST_TRACKS, round(MAX_TEST_SHARE * len(members)))
        playlists += _split_playlists(split, _groups(members), max_test_tracks, rng)
    return playlists


def _groups(specs: list[TrackSpec]) -> dict[Group, list[str]]:
    """Tracks by every attribute and every pair of attributes of different kinds."""
    groups: dict[Group, list[str]] = defaultdict(list)
    for spec in specs:
        attributes = [("mood", spec.mood), ("pace", spec.pace), ("genre", spec.genre)]
        attributes += [("instrument", name) for name in spec.instruments]
        for attribute in attributes:
            groups[(attribute,)].append(spec.track_id)
        for first, second in combinations(attributes, 2):
            if first[0] != second[0]:
                groups[(first, second)].append(spec.track_id)
    return dict(sorted(groups.items()))


def _split_playlists(
    split: str, groups: dict[Group, list[str]], max_test_tracks: int, rng: np.random.Generator
) -> list[Playlist]:
    playlists: list[Playlist] = []
    seen: set[str] = set()
    used: set[tuple[str, ...]] = set()
    for attributes, track_ids in groups.items():
        if split == "test":
            # Two attributes, as listeners ask. What much of the catalogue has is hardly a query.
            is_query = len(attributes) == 2 and MIN_TEST_TRACKS <= len(track_ids) <= max_test_tracks
            drawn = [tuple(track_ids)] if is_query and tuple(track_ids) not in used else []
        else:
            drawn = [_draw(track_ids, rng) for _ in range(_PER_GROUP[len(attributes)])]
            drawn = [ids for ids in drawn if len(ids) >= _MIN_TRACKS]
        for ids in drawn:
            words_found = _write(attributes, seen, rng)
            if words_found is None:
                continue
            used.add(ids)
            title, description = words_found
            number = len(playlists)
            playlists.append(Playlist(f"demo-{split}-{number:04d}", title, description, ids, split, attributes))
    return playlists


def _draw(track_ids: list[str], rng: np.random.Generator) -> tuple[str, ...]:
    size = min(len(track_ids), int(rng.integers(_MIN_TRACKS, _MAX_TRACKS + 1)))
    return tuple(track_ids[i] for i in sorted(rng.choice(len(track_ids), size=size, replace=False)))


def _write(attributes: Group, seen: set[str], rng: np.random.Generator) -> tuple[str, str] | None:
    """A title and a description not yet used in the split; None when the grammar has no more."""
    kinds = tuple(kind for kind, _ in attributes)
    for _ in range(50):
        title = _fill(_TITLES[kinds], attributes, rng)
        description = _fill(_DESCRIPTIONS[kinds], attributes, rng)
        if title.lower() not in seen and description.lower() not in seen:
            seen |= {title.lower(), description.lower()}
            return title, description
    return None


def _fill(templates: tuple[str, ...], attributes: Group, rng: np.random.Generator) -> str:
    slots = {}
    for slot, (kind, name) in zip("xy", attributes, strict=False):
        options = _WORDS[kind][name]
        slots[slot] = options[int(rng.integers(len(options)))]
    mood = next((name for kind, name in attributes if kind == "mood"), None)
    if mood:
        slots["occasion"] = words.OCCASIONS[mood][int(rng.integers(len(words.OCCASIONS[mood])))]
    text = fix_articles(templates[int(rng.integers(len(templates)))].format(**slots))
    return text[:1].upper() + text[1:]

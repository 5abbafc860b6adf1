"""The texts and playlists of the demo corpus: sources, shares of noise, splits, distinct wording."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from mulan_core.demo import words
from mulan_core.demo.genres import GENRES
from mulan_core.demo.playlists import MIN_TEST_TRACKS, make_playlists
from mulan_core.demo.spec import draw_specs
from mulan_core.demo.styles import INSTRUMENTS, MOODS
from mulan_core.demo.texts import fix_articles, write_texts

SPECS = draw_specs(600, seed=7)
TEXTS = {s.track_id: write_texts(s) for s in SPECS}
PLAYLISTS = make_playlists(SPECS, 7)
JUNK = re.compile("|".join(re.sub(r"\\\{\w+\\\}", r"\\S+", re.escape(line)) for line in words.JUNK_COMMENTS))
NOISE = re.compile("|".join([*map(re.escape, words.NOISE_TAGS), r"\d{4}", r"https://\S+"]))


def texts_of(source: str) -> list[str]:
    return [row["text"] for rows in TEXTS.values() for row in rows if row["source"] == source]


def test_every_name_has_words() -> None:
    assert set(words.GENRES) == set(GENRES)
    assert set(words.INSTRUMENTS) == set(INSTRUMENTS)
    assert set(words.MOODS) == set(words.OCCASIONS) == set(MOODS)


def test_aset_texts_are_the_label_names() -> None:
    for spec in SPECS:
        aset = [row["text"] for row in TEXTS[spec.track_id] if row["source"] == "aset"]
        assert aset == [label.partition(":")[2] for label in spec.labels]
        assert spec.genre in aset
        assert spec.lead in aset
        assert spec.mood in aset


def test_a_third_of_the_tags_is_noise_and_two_thirds_of_the_comments_are_junk() -> None:
    tags, comments = texts_of("sf"), texts_of("lf")
    noise = sum(bool(NOISE.fullmatch(t)) for t in tags) / len(tags)
    junk = sum(bool(JUNK.fullmatch(t)) for t in comments) / len(comments)
    assert 0.25 < noise < 0.42
    assert 0.6 < junk < 0.7


def test_long_text_exists_for_part_of_the_tracks() -> None:
    with_lf = sum(any(row["source"] == "lf" for row in rows) for rows in TEXTS.values())
    assert 0.7 < with_lf / len(SPECS) < 0.9


def test_texts_say_what_the_track_is() -> None:
    """No sentence names a genre, instrument or mood that the track does not have."""
    for spec in SPECS:
        for row in TEXTS[spec.track_id]:
            if row["source"] != "lf" or JUNK.fullmatch(row["text"]):
                continue
            text = row["text"].lower()
            for mood, names in words.MOODS.items():
                if mood != spec.mood:
                    assert not any(re.search(rf"\b{name}\b", text) for name in names), (spec, text)
            assert "{" not in text
            assert text.endswith(".")


def test_texts_are_the_same_every_time() -> None:
    assert write_texts(SPECS[5]) == TEXTS[SPECS[5].track_id]
    assert make_playlists(SPECS, 7) == PLAYLISTS


def test_playlists_keep_to_one_split_and_share_their_attributes() -> None:
    by_id = {s.track_id: s for s in SPECS}
    for playlist in PLAYLISTS:
        members = [by_id[i] for i in playlist.track_ids]
        assert len(set(playlist.track_ids)) == len(members) <= 20
        assert {s.split for s in members} == {playlist.split}
        for kind, name in playlist.attributes:
            assert all(name in s.instruments if kind == "instrument" else getattr(s, kind) == name for s in members)
            options = {"genre": words.GENRES, "instrument": words.INSTRUMENTS, "mood": words.MOODS, "pace": words.PACES}
            for text in (playlist.title, playlist.description):
                named = any(word in text.lower() for word in options[kind][name])
                occasion = kind == "mood" and any(o.lower() in text.lower() for o in words.OCCASIONS[name])
                assert named or occasion, (playlist.title, kind, name)


def test_there_are_enough_test_queries_and_they_are_complete() -> None:
    queries = [p for p in PLAYLISTS if p.split == "test"]
    assert len(queries) >= 40
    assert len({p.title for p in queries}) == len(queries) == len({p.description for p in queries})
    assert all(p.title != p.description for p in queries)
    test = [s for s in SPECS if s.split == "test"]
    for playlist in queries:
        assert len(playlist.track_ids) >= MIN_TEST_TRACKS
        relevant = {
            s.track_id
            for s in test
            if all(n in s.instruments if k == "instrument" else getattr(s, k) == n for k, n in playlist.attributes)
        }
        assert relevant == set(playlist.track_ids)


def test_playlists_are_many_to_many_and_miss_part_of_the_tracks() -> None:
    listed = Counter(i for p in PLAYLISTS if p.split == "train" for i in p.track_ids)
    train = [s for s in SPECS if s.split == "train"]
    assert 0.55 < len(listed) / len(train) < 0.85
    assert max(listed.values()) > 1


@pytest.mark.parametrize(
    ("given", "wanted"), [("A eerie tune", "An eerie tune"), ("a sad an", "a sad an"), ("on a organ", "on an organ")]
)
def test_articles(given: str, wanted: str) -> None:
    assert fix_articles(given) == wanted

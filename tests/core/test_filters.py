"""Text filters: each rule on sentences, and recall and drop rate on real descriptions and on chatter."""

import csv
import json
import time
from pathlib import Path

import pytest

from mulan_core.config import Config, TextConfig, from_mapping
from mulan_core.errors import UserError
from mulan_core.text.filters import REASONS, drop_reason, duplicate_key, filter_texts
from mulan_core.text.lexicon import DESCRIBING, GENERIC, MUSIC, PROGRAM

DATA = Path(__file__).parents[3] / "shared" / "data"

NAMES = ["Glass Harbour", "The Paper Foxes", "Low Tide"]

DESCRIPTIONS = [
    "Hip-hop features rap with an electronic backing.",
    "The melody is so nostalgic and unforgettable.",
    "A slow blues with a crying electric guitar and a walking bass.",
    "Warm strings in the background, a lonely trumpet in front.",
    "Fast-paced techno with a pounding kick drum at 140 bpm.",
    "Guitar-led indie rock with a shouted chorus.",
    "It starts quietly on solo piano and builds into a full orchestral climax.",
    "Soothing music for meditation, with bells and a soft drone.",
    "The singer's husky voice floats over brushed drums.",
    "Cheerful ukulele and whistling, good for a family film.",
    "A cappella choir, reverberant, probably in a church.",
    "Distorted riffs and double-kick drumming, fierce and loud.",
]

CHATTER = [
    "first!!",
    "who is still listening in 2024?",
    "anyone else here after the movie?",
    "I miss my grandmother so much",
    "this song got me through my divorce, thank you",
    "LOL the guy at 2:31",
    "subscribe to my channel and win a phone",
    "greetings from Argentina, love you all",
    "please upload the next episode",
    "what is the name of this song",
    "my brother showed me this last year",
    "best song ever!!!",
    "can't believe this has only 300 views",
    "Follow us on Instagram and Facebook",
    "Buy the album on iTunes now",
    "All rights reserved. Unauthorized copying prohibited.",
    "Filmed in 4K on location in Iceland",
    "Thanks for watching, please like and share",
    "I was born in the wrong generation",
    "the algorithm brought me here",
    "rest in peace legend",
    "he looks so young in this video",
    "Tickets for the tour go on sale on Friday",
    "does anyone know where I can buy that jacket?",
    "https://example.com/free-stuff",
    "mail me at someone@example.org for business",
    "2:14 that's the part",
    "omg omg I'm crying",
    "like if you agree",
    "she deserves more recognition",
    "my teacher made us watch this",
    "Good morning everyone, have a nice day",
    "who came here from the advert",
    "this comment section is a mess",
    "I dare you to read this twice",
    "Download link in the description below",
    "Happy new year to all my followers",
    "the ending of the film made no sense",
    "never gonna forget that summer",
    "Licensed to the label by its owner",
    "so good, on repeat since yesterday",
    "wow just wow",
]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("  \u200b ", "empty"),
        ("#", "empty"),
        ("http://tunes.example/55", "url"),
        ("www.label.com", "url"),
        ("@dj_someone", "url"),
        ("2019", "number"),
        ("Track 07", "number"),
        ("320kbps", "number"),
        ("IMG_2041.mp4", "number"),
        ("official video", "boilerplate"),
        ("Official Music Video HD", "boilerplate"),
        ("subscribe", "boilerplate"),
        ("free download", "boilerplate"),
        ("!!!", "not_about_music"),
        ("x", "too_short"),
        ("one two three four five six seven eight nine", "too_long"),
        ("Glass Harbour", "name"),
        ("glass harbour - the paper foxes", "name"),
        ("The Paper Foxes: Glass Harbour", "name"),
        ("Glass Harbour by Paper Foxes", "name"),
        ("#glassharbour", "name"),
        ("ThePaperFoxes", "name"),
        ("Low Tide", "name"),
        ("Paper Foxes feat. The Paper Foxes", "name"),
        ("03:45", "duration"),
        ("bpm 2:53", "duration"),
        ("A View From Earth (5:06)", "duration"),
        ("1:02:30", "duration"),
        ("10 hours", "duration"),
        ("1h 20m", "duration"),
        ("00000A2C 00000B1F 00001E2D", "number"),
        ("(17)", "number"),
        ("Lyrics", "boilerplate"),
        ("Processed by SoX", "program"),
        ("Encoded by LAME 3.99", "program"),
        ("LAME 64bits version 3.100", "program"),
        ("lame 3.99.5", "program"),
        ("Lavf58.29.100", "program"),
        ("reference libFLAC 1.3.2 20170101", "program"),
        ("Exact Audio Copy v1.3", "program"),
        ("Made with GarageBand 10.4", "program"),
        ("Exported from Logic Pro X", "program"),
        ("Ripped with whipper 0.9", "program"),
        ("0x1F2E3D", "program"),
        ("d41d8cd98f00b204e9800998ecf8427e", "program"),
        ("(None)", "program"),
        ("Other", "program"),
        ("unknown genre", "program"),
        ("A1B2-99-0042", "number"),
        ("24-bit", "number"),
        ("track_07", "number"),
        ("演歌", "script"),
        ("русский рок", "script"),
        ("موسيقى هادئة", "script"),
        ("ギターソロの曲 guitar", "script"),
    ],
)
def test_short_form_is_dropped_for_its_reason(text: str, reason: str) -> None:
    assert drop_reason("sf", text, names=NAMES) == reason
    assert reason in REASONS


@pytest.mark.parametrize(
    "text",
    [
        "jazz",
        "80s",
        "1990s",
        "120 bpm",
        "#lofi",
        "sad piano",
        "C minor",
        "R&B",
        "hip hop",
        "música andina",
        "bossa nova ボサノバ",
        "lyrical jazz",
        "3 hours of calm piano",
        "90s/2000s",
        "harbour",
        "glass harbour piano cover",
        "7/8 groove",
        *("2-Step", "8-bit", "16-bit", "8bit", "12-string", "808-heavy", "mid-90s", "late 1980s", "4/4", "6/8", "12/8"),
        *(
            "4-on-the-floor",
            "90s-inspired",
            "12_string",
            "2-STEP",
            "3-chord",
            "TR-808",
            "TB303",
            "808",
            "909s",
            "432 Hz",
        ),
        *(
            "Made with love",
            "Recorded in Paris",
            "lame",
            "reason",
            "Max Richter style",
            "other worlds",
            "created in D minor",
        ),
    ],
)
def test_short_form_that_describes_is_kept(text: str) -> None:
    assert drop_reason("sf", text, names=NAMES) is None


def test_a_title_made_of_music_words_is_no_name() -> None:
    assert drop_reason("sf", "Sad Piano", names=["Sad Piano"]) is None
    assert drop_reason("sf", "Glass Harbour") is None


@pytest.mark.parametrize(
    "text",
    [
        "Recorded in one take with two acoustic guitars and a warm upright bass",
        "Made with love: warm lo-fi piano, a soft kick drum and rain at the window",
        "A song about a dog that is lame, for solo guitar",
        "Processed by tape and spring reverb, the vocals float over a slow beat",
        "Generated by a modular synthesizer, this drone slowly swells",
        "Encoded in the melody is a lullaby for solo cello",
        "Mastered by hand for a warm analogue sound with deep bass",
        "Unknown voices sing a slow hymn over an organ",
        "Created in Ableton Live 11, a dark techno track with a pounding kick drum",
    ],
)
def test_no_sentence_is_condemned_by_how_it_begins_or_ends(text: str) -> None:
    assert drop_reason("lf", text) is None


@pytest.mark.parametrize(
    "text",
    ["iTunNORM: 00000A2B 00000B3C 00001234 00004321 00001111 00002222", "Encoded by LAME 3.99.5 for Windows (x64)"],
)
def test_long_form_of_a_program_has_its_reason(text: str) -> None:
    assert drop_reason("lf", text) == "program"


@pytest.mark.parametrize(
    "part", ["LAME ", "the and for ", "1.2 ", "(LAME 1 for ", "a", "0", "www.", "https://x", "A-1_"]
)
def test_no_text_keeps_the_rules_busy(part: str) -> None:
    started = time.perf_counter()
    for head in ("", "created by "):
        assert not PROGRAM.match(f"{head}{part * 400}!x")
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize("text", DESCRIPTIONS)
def test_descriptions_are_kept(text: str) -> None:
    assert drop_reason("lf", text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("so sad", "too_short"),
        ("slow piano " * 101, "too_long"),
        ("calm piano at https://tunes.example/1", "url"),
        ("Gentle piano. Subscribe for more.", "boilerplate"),
        ("the weather is nice in Berlin", "not_about_music"),
        ("I love this song so much, lol", "not_about_music"),
    ],
)
def test_long_form_is_dropped_for_its_reason(text: str, reason: str) -> None:
    assert drop_reason("lf", text) == reason


def test_one_descriptive_sentence_among_others_is_enough() -> None:
    assert drop_reason("lf", "I wrote this for a friend of mine. Slow piano over a soft pad, dark and dreamy.") is None


@pytest.mark.parametrize("source", ["pl", "aset"])
def test_playlist_titles_and_labels_are_dropped_only_when_empty(source: str) -> None:
    assert drop_reason(source, "official video 2019 http://x.com") is None
    assert drop_reason(source, "  ") == "empty"


def test_each_limit_is_a_number_of_the_configuration() -> None:
    def reason(source: str, text: str, **numbers: object) -> str | None:
        return drop_reason(source, text, TextConfig(**numbers), names=NAMES)  # type: ignore[arg-type]

    assert reason("sf", "演歌", scripts=None) is None
    assert reason("sf", "演歌", scripts=("latin", "cjk")) is None
    assert reason("sf", "Glass Harbour", drop_names=False) is None
    assert reason("sf", "x", min_sf_letters=1) is None
    assert reason("sf", "sad slow piano", max_sf_words=2) == "too_long"
    assert reason("sf", "piano ピアノ", min_readable=0.9) == "script"
    assert reason("lf", "slow piano", min_lf_words=2) is None
    assert reason("lf", "slow piano over a pad", max_lf_words=4) == "too_long"
    assert reason("lf", "slow piano over a pad", min_lf_score=2.5) == "not_about_music"


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"scripts": ["klingon"]}, r"text\.scripts\[0\] is 'klingon'; it must be text that is one of arabic"),
        ({"scripts": []}, r"text\.scripts is \[\]; it must be a list of 1 or more.*, or null"),
        ({"min_readable": 2.0}, "text.min_readable is 2.0"),
        ({"max_words": 3}, "unknown key 'text.max_words'"),
    ],
)
def test_a_wrong_number_is_told(section: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        from_mapping(Config, {"text": section})


@pytest.mark.parametrize(
    ("one", "other"),
    [("Hip-Hop!", "hip hop"), ("#lofi", "Lo-Fi"), ("R&B", "r & b"), ("música", "Musica"), ("ｊａｚｚ", "jazz")],
)
def test_the_same_text_in_another_dress_is_a_duplicate(one: str, other: str) -> None:
    judged = filter_texts([{"source": "sf", "text": one}, {"source": "sf", "text": other}])
    assert [row["drop"] for row in judged] == [None, "duplicate"]


@pytest.mark.parametrize(
    ("one", "other"), [("C minor", "C# minor"), ("E", "E♭"), ("120 bpm", "12 bpm"), ("pop", "pop rock")]
)
def test_texts_that_differ_are_no_duplicates(one: str, other: str) -> None:
    assert duplicate_key(one) != duplicate_key(other)


def test_a_judge_of_meaning_is_asked_for_long_form_of_good_form_alone() -> None:
    asked: list[str] = []

    def describes(text: str) -> bool:
        asked.append(text)
        return "moon" in text

    texts = [
        ("lf", "the  moon is up"),
        ("lf", "slow sad piano"),
        ("lf", "moon https://x.com now"),
        ("sf", "moon"),
        ("pl", "a b c"),
    ]
    judged = filter_texts([{"source": source, "text": text} for source, text in texts], describes=describes)
    assert [row["drop"] for row in judged] == [None, "not_about_music", "url", None, None]
    assert asked == ["the moon is up", "slow sad piano"]


def test_a_track_list_with_times_is_no_description() -> None:
    assert drop_reason("lf", "00:00 slow piano 03:20 jazz guitar 06:15 warm strings") == "duration"


def test_duplicates_go_within_a_track_and_source_only() -> None:
    texts = [
        ("sf", "Jazz"),
        ("sf", "jazz "),
        ("pl", "Jazz"),
        ("pl", "Jazz"),
        ("aset", "Jazz"),
        ("sf", "2019"),
        ("sf", "2019"),
    ]
    judged = filter_texts([{"source": source, "text": text} for source, text in texts])
    assert [row["drop"] for row in judged] == [None, "duplicate", None, None, None, "number", "number"]
    assert [(row["source"], row["text"]) for row in judged] == texts
    assert filter_texts([]) == []


def test_the_filter_judges_the_drop_of_every_text_alone() -> None:
    texts = [{"source": "lf", "text": text} for text in DESCRIPTIONS + CHATTER]
    alone = [drop_reason("lf", text["text"]) for text in texts]
    assert [row["drop"] for row in filter_texts(texts)] == alone


def test_vocabulary_sets_are_disjoint_and_lower_case() -> None:
    assert not (MUSIC & DESCRIBING or MUSIC & GENERIC or DESCRIBING & GENERIC)
    assert all(word == word.lower() for word in MUSIC | DESCRIBING | GENERIC)


def test_chatter_is_dropped() -> None:
    kept = [line for line in CHATTER if drop_reason("lf", line) is None]
    assert 1 - len(kept) / len(CHATTER) > 0.9, kept


def test_recall_on_real_catalogue_descriptions() -> None:
    path = DATA / "incompetech" / "incompetech_songs.jsonl"
    if not path.exists():
        pytest.skip(f"no real descriptions at {path}")
    rows = [json.loads(line)["description"] or "" for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [text for text in rows if len(text.split()) >= 6]
    assert sum(drop_reason("lf", text) is None for text in texts) / len(texts) > 0.8


def test_recall_on_real_captions_and_aspects() -> None:
    path = DATA / "musiccaps" / "musiccaps-public.csv"
    if not path.exists():
        pytest.skip(f"no real captions at {path}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:1500]
    assert sum(drop_reason("lf", row["caption"]) is None for row in rows) / len(rows) > 0.95
    aspects = [aspect.strip(" '\"[]") for row in rows[:300] for aspect in row["aspect_list"].split("', '")]
    assert sum(drop_reason("sf", aspect) is None for aspect in aspects) / len(aspects) > 0.95

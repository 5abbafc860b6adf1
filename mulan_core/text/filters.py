"""Text filters: which short-form (SF) and long-form (LF) texts are worth training on, and why not.

The paper cleans SF by rules it does not print, and LF with a fine-tuned BERT that tells music-descriptive text from
the rest; it leaves PL and ASET alone (section 3.2). Here both filters are rules. The LF rule judges by a music
vocabulary against signs of chatter: it is the stand-by for the paper's classifier, cheap and explainable, and it
misses descriptions that use no word of ``lexicon.py``.

A dropped text is kept in the data with its reason, so that the ablation without filters can draw it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mulan_core.text.lexicon import BOILERPLATE, CHATTER, DESCRIBING, GENERIC, MUSIC, VOCABULARY

REASONS: dict[str, str] = {
    "empty": "nothing is left after white space",
    "url": "a link, an e-mail address, a handle",
    "boilerplate": "words about the upload, not the music: subscribe, official video, lyrics, follow us",
    "number": "digits, dates, years, file names, codes",
    "name": "the track's own title or artist, which describes nothing",
    "too_short": "SF of one letter; LF of fewer than three words",
    "too_long": "SF of more than eight words; LF of more than 200",
    "not_about_music": "LF without enough music vocabulary, or with more chatter than music; SF without letters",
    "duplicate": "the same text again in this track and source",
}
"""Reason code -> what it means."""

MAX_SF_WORDS, MIN_LF_WORDS, MAX_LF_WORDS = 8, 3, 200

URL = re.compile(r"https?:|www\.|\b[\w-]+\.(?:com|net|org|io|fm|tv|ly|be|gl|co|me)\b|\S+@\S+\.\w+|(?:^|\s)@\w+", re.I)
NUMBER = re.compile(
    r"""^(?:[\W_]*\d[\d\W_]*                                  # 2019, 03:45, 24/7, 1.000
        |\W*(?:track|part|pt|vol|volume|no|disc|cd|take|version|v|ep|side)\W*\d+\W*  # Track 07, vol. 2
        |\d+(?:st|nd|rd|th|k|kbps|khz|hz|bit|mb|p|fps)        # 320kbps, 1080p
        |[\w-]*\d[\w-]*\.(?:mp3|wav|flac|ogg|m4a|mp4|avi|mkv) # IMG_2041.mp4
        |(?=[\w-]*\d)(?=[\w-]*[-_])[A-Z0-9_-]{5,})$           # DJI_0042, UR-2231
    """,
    re.X | re.I,
)
DECADE = re.compile(r"^'?(?:19|20)?\d0'?s$", re.I)
TEMPO = re.compile(r"^\d{2,3}(?:[.,]\d+)?\s?bpm$", re.I)
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+")
FIRST_PERSON = re.compile(r"\b(?:i|i'm|i've|im|me|my|you|your|u|ur|we|he|she|who|anyone|everyone|guys|lol)\b", re.I)


def drop_reason(source: str, text: str, *, title: str | None = None, artist: str | None = None) -> str | None:
    """Why a text should not be trained on, or None to keep it.

    Args:
        source: ``sf``, ``lf``, ``pl`` or ``aset``; the last two are dropped only when empty.
        text: the text as found.
        title: the track's title; an SF text that only repeats it is a name.
        artist: the track's artist, likewise.

    Returns:
        A key of ``REASONS``.
    """
    text = normalised(text)
    if not text:
        return "empty"
    if source == "sf":
        return _sf_reason(text, title, artist)
    if source == "lf":
        return _lf_reason(text)
    return None


def filter_texts(
    texts: Sequence[Mapping[str, Any]], *, title: str | None = None, artist: str | None = None
) -> list[dict[str, Any]]:
    """Judge all texts of one track.

    Args:
        texts: ``{"source": ..., "text": ...}`` in order.
        title: the track's title.
        artist: the track's artist.

    Returns:
        One ``{"source", "text", "drop"}`` per text in the same order; ``drop`` is None or a key of ``REASONS``. Of SF
        and LF texts that differ only in case and spacing, the first is kept.
    """
    seen: set[tuple[str, str]] = set()
    judged = []
    for entry in texts:
        source, text = entry["source"], entry["text"] or ""
        reason = drop_reason(source, text, title=title, artist=artist)
        key = (source, normalised(text).casefold())
        if reason is None and source in ("sf", "lf"):
            reason = "duplicate" if key in seen else None
            seen.add(key)
        judged.append({"source": source, "text": text, "drop": reason})
    return judged


def normalised(text: str) -> str:
    """Unicode NFKC, control characters and leading # gone, white space single."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split()).lstrip("# ").strip()


def _sf_reason(text: str, title: str | None, artist: str | None) -> str | None:
    words = _words(text)
    if URL.search(text):
        return "url"
    if DECADE.match(text) or TEMPO.match(text):
        return None  # "80s" and "120 bpm" are numbers that describe music
    if NUMBER.match(text):
        return "number"
    if not words:
        return "not_about_music"
    if BOILERPLATE.search(text):
        return "boilerplate"
    if _is_name(words, title, artist):
        return "name"
    if sum(map(len, words)) < 2:
        return "too_short"
    return "too_long" if len(words) > MAX_SF_WORDS else None


def _lf_reason(text: str) -> str | None:
    words = _words(text)
    if URL.search(text):
        return "url"
    if len(words) < MIN_LF_WORDS:
        return "too_short"
    if len(words) > MAX_LF_WORDS:
        return "too_long"
    if BOILERPLATE.search(text):
        return "boilerplate"
    return None if music_score(text) >= 0 else "not_about_music"


def music_score(text: str) -> float:
    """How much the most descriptive sentence of a text describes music: from 0 on it does.

    Distinct music words count 1, describing words (tempo, mood, colour of sound, structure) 0.75, generic ones ("song",
    "plays") 0.4, up to 4 together; each sign of chatter counts -2, first and second person -0.75, each "?" or "!"
    -0.5. The sum must reach 1: a music word, or a describing word about a song, and no chatter.
    """
    return max(_sentence_score(sentence) for sentence in SENTENCE_END.split(text))


def _sentence_score(sentence: str) -> float:
    words = {_vocabulary_form(word) for word in _words(sentence)}
    descriptive = len(words & MUSIC) + 0.75 * len(words & DESCRIBING) + 0.4 * len(words & GENERIC)
    chatter = 2.0 * len(CHATTER.findall(sentence)) + 0.75 * len(FIRST_PERSON.findall(sentence))
    chatter += 0.5 * sum(sentence.count(mark) for mark in "?!")
    return min(descriptive, 4.0) - chatter - 1.0


def _words(text: str) -> list[str]:
    return [word.casefold().replace("’", "'") for word in WORD.findall(text)]


def _vocabulary_form(word: str) -> str:
    """The vocabulary's form of a word: "drums" and "drum's" are "drum", "guitar-led" is "guitar"."""
    word = word.removesuffix("'s")
    if word in VOCABULARY:
        return word
    if "-" in word:
        return next((part for part in map(_vocabulary_form, word.split("-")) if part in VOCABULARY), word)
    for suffix, ending in (("ies", "y"), ("es", ""), ("s", "")):
        stem = word.removesuffix(suffix) + ending
        if word.endswith(suffix) and stem in VOCABULARY:
            return stem
    return word


def _is_name(words: list[str], title: str | None, artist: str | None) -> bool:
    """True for the title, the artist, or both together in either order, unless every word is of the vocabulary."""
    names = [_words(name) for name in (title, artist) if name]
    if not names or all(_vocabulary_form(word) in VOCABULARY for word in words):
        return False
    joined = [names[0] + names[1], names[1] + names[0]] if len(names) == 2 else []
    return words in names + joined

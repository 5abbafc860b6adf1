"""Text filters: which short-form (SF) and long-form (LF) texts are worth training on, and why not.

The paper cleans SF by rules it does not print, and LF with a fine-tuned BERT that tells music-descriptive text from
the rest; it leaves PL and ASET alone (section 3.2). Here SF is judged by the rules below; LF by rules of its form
(a link, a writing system that the tower cannot read, boilerplate, length) and then by its meaning: a classifier
(``classifier.py``) or, without one, the rule of ``music_score.py``.

A dropped text is kept in the data with its reason, so that the ablation without filters can draw it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from mulan_core.config import TextConfig
from mulan_core.text.lexicon import BOILERPLATE, JOINING, PROGRAM, VOCABULARY
from mulan_core.text.music_score import music_score, vocabulary_form, words_of

REASONS: dict[str, str] = {
    "empty": "nothing is left after white space",
    "url": "a link, an e-mail address, a handle",
    "duration": "SF with a length such as 3:45, alone or after a title; LF that is a track list with times",
    "number": "digits, dates, years, file names, codes",
    "program": "what a program wrote: an encoder's name, volume marks, checksums, a placeholder such as Unknown",
    "script": "most letters are of a writing system that the text tower does not read",
    "boilerplate": "words about the upload, not the music: subscribe, official video, lyrics, follow us",
    "name": "SF that only repeats the track's own title, artist or album",
    "too_short": "SF of one letter; LF of fewer than three words",
    "too_long": "SF of more than eight words; LF of more than 200",
    "not_about_music": "LF that the classifier or the rule does not take for a description; SF without letters",
    "duplicate": "the same text again in this track and source, but for case, accents and marks",
}
"""Reason code -> what it means, with the default limits."""

NAME_COLUMNS = ("title", "artist", "album")
"""Columns of a manifest that hold a track's names; the last two are there only where the catalogue has them."""

DEFAULTS = TextConfig()
"""The filters as they stand in the documentation."""

URL = re.compile(r"https?:|www\.|\b[\w-]+\.(?:com|net|org|io|fm|tv|ly|be|gl|co|me)\b|\S+@\S+\.\w+|(?:^|\s)@\w+", re.I)
NUMBER = re.compile(
    r"""^(?:[\W_]*\d[\d\W_]*                                  # 2019, 24/7, 1.000, (17)
        |\W*(?:track|part|pt|vol|volume|no|disc|cd|take|version|v|ep|side)\W*\d+\W*  # Track 07, vol. 2
        |\d+(?:st|nd|rd|th|k|kbps|khz|hz|mb|p|fps)            # 320kbps, 1080p
        |(?:24|32)[\s-]?bit                                   # 8-bit and 16-bit are a sound
        |[\w-]*\d[\w-]*\.(?:mp3|wav|flac|ogg|m4a|mp4|avi|mkv) # IMG_2041.mp4
        |(?:\s*\b[0-9A-F]{8}\b){2,}                           # iTunes' volume marks
        |(?:[A-Z]{1,8}[-_])+\d{2,}(?:[-_][A-Z0-9]+)*)$        # DJI_0042, UR-2231
    """,
    re.X | re.I,
)
CLOCK = re.compile(r"(?<![\d:])\d{1,3}:[0-5]\d(?::[0-5]\d)?(?![\d:])")
SPAN = re.compile(r"^\W*(?:\d+\s?(?:hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?)\b\W*)+$", re.I)
CODE = re.compile(r"^(?=.*[-_])[A-Z0-9_-]{5,}$", re.I)
DECADE = re.compile(r"^(?:(?:early|mid|late)[\s-]?)?'?(?:19|20)?\d0'?s$", re.I)
METER = re.compile(r"^(?:[2-9]|1\d)/(?:2|4|8|16)$")
INSTRUMENT = re.compile(r"^(?:(?:TR|TB|CR|SH|SP|MPC|DX|MS|JX|MC)[\s-]?\d{1,4}|[89]0[89]s?|303s?)$", re.I)
TEMPO = re.compile(r"^\d{2,3}(?:[.,]\d+)?\s?bpm$", re.I)
TOKEN = re.compile(r"[^\W_]+")
NOT_IN_KEY = re.compile(r"[^\w#♯♭]|_")


def drop_reason(
    source: str,
    text: str,
    config: TextConfig = DEFAULTS,
    *,
    names: Sequence[str] = (),
    describes: Callable[[str], bool] | None = None,
) -> str | None:
    """Why a text should not be trained on, or None to keep it.

    Args:
        source: ``sf``, ``lf``, ``pl`` or ``aset``; the last two are dropped only when empty.
        text: the text as found.
        config: the limits.
        names: the track's title, artist and album; an SF text that only repeats them is dropped.
        describes: whether an LF text, normalised, describes music; null asks ``music_score``.

    Returns:
        A key of ``REASONS``.
    """
    reason = form_reason(source, text, config, names=names)
    if reason or source != "lf":
        return reason
    text = normalised(text)
    is_kept = describes(text) if describes else music_score(text) >= config.min_lf_score
    return None if is_kept else "not_about_music"


def form_reason(source: str, text: str, config: TextConfig = DEFAULTS, *, names: Sequence[str] = ()) -> str | None:
    """The part of ``drop_reason`` that needs no judge of meaning: all of it but for LF."""
    text = normalised(text)
    if not text:
        return "empty"
    if source == "sf":
        return _sf_reason(text, config, names)
    if source == "lf":
        return _lf_reason(text, config)
    return None


def filter_texts(
    texts: Sequence[Mapping[str, Any]],
    config: TextConfig = DEFAULTS,
    *,
    names: Sequence[str] = (),
    describes: Callable[[str], bool] | None = None,
) -> list[dict[str, Any]]:
    """Judge all texts of one track.

    Args:
        texts: ``{"source": ..., "text": ...}`` in order.
        config, names, describes: see ``drop_reason``.

    Returns:
        One ``{"source", "text", "drop"}`` per text in the same order; ``drop`` is None or a key of ``REASONS``. Of SF
        and LF texts with the same ``duplicate_key``, the first is kept.
    """
    seen: set[tuple[str, str]] = set()
    judged = []
    for entry in texts:
        source, text = entry["source"], entry["text"] or ""
        reason = drop_reason(source, text, config, names=names, describes=describes)
        if reason is None and source in ("sf", "lf"):
            key = (source, duplicate_key(text))
            reason = "duplicate" if key in seen else None
            seen.add(key)
        judged.append({"source": source, "text": text, "drop": reason})
    return judged


def names_of(track: Mapping[str, Any]) -> list[str]:
    """Title, artist and album of a row of a manifest, where it has them as text."""
    return [track[column] for column in NAME_COLUMNS if isinstance(track.get(column), str)]


def normalised(text: str) -> str:
    """Unicode NFKC, control characters and leading # gone, white space single."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split()).lstrip("# ").strip()


def duplicate_key(text: str) -> str:
    """What two texts share that are the same: "Hip-Hop!", "#hiphop" and "hip hop".

    Accents go, as in an uncased BERT; sharps and flats stay, since C and C# differ.
    """
    text = unicodedata.normalize("NFKD", normalised(text))
    return NOT_IN_KEY.sub("", "".join(c for c in text if not unicodedata.combining(c)).casefold())


def _sf_reason(text: str, config: TextConfig, names: Sequence[str]) -> str | None:
    words = words_of(text)
    if URL.search(text):
        return "url"
    if any(form.match(text) for form in (DECADE, TEMPO, METER, INSTRUMENT)):
        return None  # "80s", "120 bpm", "4/4" and "TR-808" are numbers that describe music
    if CLOCK.search(text) or SPAN.match(text):
        return "duration"
    if NUMBER.match(text) or _is_code(text):
        return "number"
    if PROGRAM.match(text):
        return "program"
    if not words:
        return "not_about_music"
    if not _is_readable(text, config):
        return "script"
    if BOILERPLATE.search(text):
        return "boilerplate"
    if config.drop_names and _is_name(text, names):
        return "name"
    if sum(map(len, words)) < config.min_sf_letters:
        return "too_short"
    return "too_long" if len(words) > config.max_sf_words else None


def _lf_reason(text: str, config: TextConfig) -> str | None:
    num_words = len(words_of(text))
    if PROGRAM.match(text):
        return "program"
    if URL.search(text):
        return "url"
    if len(CLOCK.findall(text)) > 2:
        return "duration"
    if not _is_readable(text, config):
        return "script"
    if num_words < config.min_lf_words:
        return "too_short"
    if num_words > config.max_lf_words:
        return "too_long"
    return "boilerplate" if BOILERPLATE.search(text) else None


def _is_code(text: str) -> bool:
    """Whether a text is one token of more digits than letters: 2-Step and 808-heavy are words."""
    return bool(CODE.match(text)) and sum(map(str.isdigit, text)) > sum(map(str.isalpha, text))


def _is_readable(text: str, config: TextConfig) -> bool:
    letters = [c for c in text if c.isalpha()]
    if config.scripts is None or not letters:
        return True
    return sum(_script(c) in config.scripts for c in letters) >= config.min_readable * len(letters)


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    return re.split("[ -]", unicodedata.name(letter, ""), maxsplit=1)[0].lower()


def _is_name(text: str, names: Sequence[str]) -> bool:
    """True for the names of a track in any order, whole, joined as in a hashtag, with "by" or "feat." between.

    A text of nothing but vocabulary is none: a track titled "Sad Piano" may be tagged so.
    """
    name_forms = {"".join(tokens(name)) for name in names for tokens in (_tokens, _telling_tokens)} - {""}
    tokens = _telling_tokens(text)
    if not name_forms or all(vocabulary_form(word) in VOCABULARY for word in tokens):
        return False
    return bool(re.fullmatch(f"(?:{'|'.join(map(re.escape, sorted(name_forms)))})+", "".join(tokens)))


def _tokens(name: str) -> list[str]:
    return TOKEN.findall(normalised(name).casefold())


def _telling_tokens(name: str) -> list[str]:
    """Words and numbers without those that only join; of a name like "The The", all."""
    return [token for token in _tokens(name) if token not in JOINING] or _tokens(name)

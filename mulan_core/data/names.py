"""What a track may be called: one rule for its id, title, artist, data set and labels, wherever they come in. Names of
API keys keep it too.

Names are kept letter for letter as they were typed, and compared so: no Unicode normalisation, no case folding
(docs/decisions/0027-names.md). What a manifest or the API takes can be shown, filtered by, asked for and deleted. What
cannot be is refused at the door where a person typed it; where nobody did, as in tags of files, it is cleaned.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from mulan_core.errors import without_secrets

MAX_BYTES = {"track_id": 512, "title": 2_048, "artist": 1_024, "dataset": 256, "labels": 512}
"""Field -> the most bytes of UTF-8 that a name of it may have; of ``labels`` each one."""
MAX_LABELS = 256
"""Labels of one track."""

_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line and paragraph separators, halves of surrogate pairs: nobody can see or type them."""


_UNSEEN = re.compile(
    "[\\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
"""Blanks, and what Unicode calls default-ignorable: beside letters they shape or join them, alone nothing is seen."""


_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.I)


def unescaped(value: str) -> str:
    """Text without HTML's entities, which web pages leave in genres and labels; escaped twice, too.

    >>> unescaped("R&amp;B"), unescaped("Drum &amp;amp; Bass"), unescaped("R&B; AT&T;")
    ('R&B', 'Drum & Bass', 'R&B; AT&T;')
    """
    for _ in range(2):
        value = _ENTITY.sub(lambda entity: html.unescape(entity[0]), value)
    return value


def why_unwritable(value: str) -> str | None:
    """Why no name can hold this text, or None: the part of the rule that also what is asked for must keep."""
    match = _UNWRITABLE.search(value)
    if match is None:
        return None
    return f"must not hold control characters or line breaks; remove U+{ord(match[0]):04X}"


def why_misnamed(field: str, value: str) -> str | None:
    """Why a track may not be called this, or None.

    Args:
        field: one of ``MAX_BYTES``.
        value: what was typed; empty means none was given, which only an id may not be.
    """
    return why_no_name(value, MAX_BYTES[field]) or (_why_no_address(value) if field == "track_id" else None)


def why_no_name(value: str, most_bytes: int) -> str | None:
    """Why nothing may be called this, or None: the part of the rule that is the same for all that has a name.

    Args:
        value: what was typed; empty passes.
        most_bytes: of UTF-8 that a name may have.
    """
    unwritable = why_unwritable(value)
    if unwritable:
        return unwritable
    if value != value.strip():
        return f"{_shown(value)} has blanks at its edges; remove them"
    if _UNSEEN.fullmatch(value):
        return f"{ascii(value)[:80]} holds nothing that can be seen; write it in letters"
    num_bytes = len(value.encode())
    if num_bytes > most_bytes:
        return f"{_shown(value)} has {num_bytes:,} bytes; at most {most_bytes:,} are taken"
    return None


def clean_name(field: str, value: str) -> str:
    r"""The nearest name that may be taken, for what nobody typed; empty where nothing is left. Never for ids.

    >>> clean_name("title", " Intro\n(live) "), clean_name("artist", "\x00")
    ('Intro (live)', '')
    """
    text = " ".join(part for piece in _UNWRITABLE.split(value) if (part := piece.strip()))
    text = text.encode()[: MAX_BYTES[field]].decode(errors="ignore").strip()
    return "" if _UNSEEN.fullmatch(text) else text


def title_of_file(uri: str) -> str:
    """What a track without a title is called: the name of its file without the ending; empty where nothing is left.

    >>> title_of_file("music/sad_piano.flac"), title_of_file("https://x.org/a/Blue%20Moon.mp3?v=2")
    ('sad piano', 'Blue Moon')
    """
    path = unquote(urlsplit(uri).path) if "://" in uri else uri
    return clean_name("title", PurePosixPath(path).stem.replace("_", " "))


def labels_of(values: Iterable[str]) -> list[str]:
    """The labels of a track as they are kept: each once, in the order in which they first came, without empty ones.

    Raises:
        ValueError: with the reason, if one may not be, or there are too many.

    >>> labels_of(["genre:Jazz", "calm", "", "genre:Jazz"])
    ['genre:Jazz', 'calm']
    """
    labels = list(dict.fromkeys(value for value in values if value))
    refused = next((reason for label in labels if (reason := why_misnamed("labels", label))), None)
    if len(labels) > MAX_LABELS:
        refused = f"a track may carry {MAX_LABELS} labels, this one has {len(labels)}"
    if refused:
        raise ValueError(refused)
    return labels


def same_but_typed_otherwise(value: str) -> str:
    """The form (NFC) that two names share which look alike but are typed with other code points."""
    return value if value.isascii() else unicodedata.normalize("NFC", value)


def _why_no_address(track_id: str) -> str | None:
    """Why ``/v1/tracks/ID`` would not lead to this track through every client and proxy.

    Browsers and HTTP libraries resolve ``..``; a proxy that rewrites paths, as nginx does, decodes them first, then
    resolves ``..`` and merges slashes. All else survives percent-encoding.
    """
    if not track_id:
        return "a value is required"
    parts = track_id.split("/")
    if "" in parts:
        return f"{_shown(track_id)} has an empty part between slashes, which proxies drop from addresses; rename it"
    if "." in parts or ".." in parts:
        return f"{_shown(track_id)} has a part '.' or '..', which browsers drop from addresses; rename it"
    if len(parts) > 1 and parts[-1] == "audio":
        return f"{_shown(track_id)} ends in /audio, which is the address where a track plays; rename it"
    return None


def _shown(value: str) -> str:
    shown = repr(without_secrets(value))  # before it is cut, which may take the part that tells a password
    return shown if len(shown) <= 80 else f"{shown[:80]}..."

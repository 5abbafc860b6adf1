"""The encoding of small texts that programs wrote beside music: CUE sheets and playlists say nothing of it."""

from __future__ import annotations

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SIGNS = frozenset("‘’“”–—…°«»·€£§©®¿¡´•ªº½²³×№\xa0")
"""What people type beside letters."""
_LONG_RUN = re.compile(r"[^\x00-\x7f]{3}")
_CYRILLIC = re.compile(r"[\x00-\x7fА-яЁё№«»–—…\xa0]+")
_ASIAN = {
    "cp932": ((0x81, 0x83), (0x88, 0x97)),
    "cp949": ((0xA1, 0xA1), (0xB0, 0xC8)),
    "gb18030": ((0xA1, 0xA1), (0xA3, 0xA3), (0xB0, 0xD7)),
    "big5": ((0xA1, 0xA1), (0xA4, 0xC6)),
}
"""Encoding of two bytes a letter -> the first bytes of its signs and of its usual letters."""


def decode_text(data: bytes) -> str:
    """Text of bytes in an encoding that nobody named.

    A byte order mark decides, then UTF-8 where it fits. Of the rest Western text has single letters beyond ASCII
    among others, Russian has words of them, and Japanese, Chinese and Korean are told by what is likely in them.

    >>> decode_text("Café".encode("cp1252")), decode_text("Звезда".encode("cp1251"))
    ('Café', 'Звезда')
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace").removeprefix("\ufeff")
    if b"\0" in data[:2]:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
        return data.decode(encoding, "replace")
    for encoding, fits in (("utf-8", _fits), ("cp1252", _is_latin), ("cp1251", _is_cyrillic)):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if fits(text):
            return text
    usual = {encoding: _usual_share(data, encoding) for encoding in _ASIAN}
    best = max(usual, key=lambda encoding: usual[encoding])
    return data.decode(best if usual[best] > 0 else "cp1252", "replace")


def _fits(text: str) -> bool:
    return True


def _is_latin(text: str) -> bool:
    known = all(letter.isascii() or letter.isalpha() or letter in _SIGNS for letter in text)
    return known and _LONG_RUN.search(text) is None


def _is_cyrillic(text: str) -> bool:
    return _CYRILLIC.fullmatch(text) is not None and _LONG_RUN.search(text) is not None


def _usual_share(data: bytes, encoding: str) -> float:
    """The share of usual letters in what is beyond ASCII; 0 where the bytes are not in this encoding."""
    try:
        letters = [letter for letter in data.decode(encoding) if not letter.isascii()]
    except UnicodeDecodeError:
        return 0.0
    codes = [letter.encode(encoding) for letter in letters]
    usual = sum(len(code) == 2 and any(low <= code[0] <= high for low, high in _ASIAN[encoding]) for code in codes)
    return usual / max(1, len(codes))

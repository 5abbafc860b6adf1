"""Counts in sentences: ``1 track``, ``2,000 tracks``."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    Args:
        number: how many.
        noun: of one; words may follow the noun where ``plural`` is given.
        plural: of any other number; by default the noun with an s.

    >>> counted(1, "track"), counted(2_000, "track"), counted(0, "query", "queries")
    ('1 track', '2,000 tracks', '0 queries')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"

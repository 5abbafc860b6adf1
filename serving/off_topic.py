"""Phrases that no music answers: a query that lies nearer to one of these than to any label is about something else.

Shape letters: L labels, P phrases, D embedding size.
"""

from __future__ import annotations

import numpy as np

PHRASES = (
    "income tax return form",
    "how to boil an egg",
    "the train to the airport is late",
    "connection refused on port 443",
    "weather forecast for tomorrow",
    "kitchen sink repair manual",
    "the capital of Mongolia",
    "second-hand car insurance",
    "chapter 7, page 213",
    "invoice number 88213",
    "photosynthesis in green plants",
    "cheap flights to Lisbon",
    "lorem ipsum dolor sit amet",
    "quarterly earnings report",
    "how many grams in a pound",
    "wireless printer driver",
    "the mitochondria is the powerhouse of the cell",
    "parking is forbidden here",
    "your password has expired",
    "potato soup recipe",
    "symptoms of a common cold",
    "if x equals two then y equals four",
    "delivery between nine and noon",
    "terms and conditions apply",
    "leather office chair",
    "population of Brazil in 1990",
    "please hold the line",
    "garden hose adapter",
    "import numpy as np",
    "return code 137",
    "the quick brown fox jumps over the lazy dog",
    "xqzzv plmrt",
    "asdfghjkl",
    "aaaaaaaaaa",
    "12345 67890",
    "??? !!!",
    "dentist appointment on Monday",
    "concrete mixing ratio",
    "dog food for puppies",
    "chess opening theory",
    "election results by district",
    "lost luggage claim",
    "size 42 running shoes",
    "passport renewal office",
    "solar panel efficiency",
    "the meeting was moved to Thursday",
    "stainless steel screws",
    "vaccination schedule for children",
)


class OffTopic:
    """Whether a text is about music, by the company it keeps among the release's own text vectors.

    The best of many tracks scores well for anything, so a score alone does not tell: on the demo's model "piano" and
    "banana" both find a track at 0.4.

    Args:
        labels_LD: unit vectors of the catalogue's labels.
        phrases_PD: unit vectors of ``PHRASES``.
    """

    def __init__(self, labels_LD: np.ndarray, phrases_PD: np.ndarray) -> None:
        self._labels_LD, self._phrases_PD = labels_LD, phrases_PD

    def is_off(self, text_D: np.ndarray) -> bool:
        """The text lies nearer to one of the phrases than to any label."""
        return bool((self._phrases_PD @ text_D).max() > (self._labels_LD @ text_D).max())

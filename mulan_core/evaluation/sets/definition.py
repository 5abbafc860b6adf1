"""What an evaluation set is: which tracks, which classes, which texts ask, and what can be measured on it.

A definition is data. The tracks come from a prepared folder (``prepared.py``), or there are none and pairs of texts
come from a file (``texts.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mulan_core.errors import UserError

SUITES = ("tagging", "probe", "retrieval", "triplets")
"""What can be measured."""

QUERY_SETS = {
    "title": "playlist with a title",
    "description": "playlist with a description",
    "text": "track with a text of its own",
    "caption": "track with a caption",
}
"""Kinds of query -> what a set must have for it."""

Pair = tuple[str, str]
"""An anchor and its own description."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """One evaluation set."""

    name: str
    """The name on the command line and in the report."""
    title: str
    suites: tuple[str, ...]
    """What it is for, in the order of ``SUITES``."""
    split: str
    """Which tracks are ranked, in words: the official name of the split and its convention."""
    needs: str
    """How its files are got, for ``mulan data sets``."""
    dataset: str | None = None
    """The reader whose tracks it takes (``mulan data list``); None takes any prepared folder."""
    classes: tuple[str, ...] | None = None
    """The class list; None takes the labels that the test tracks have."""
    class_list: str = "the labels of the test tracks"
    """What the class list is, in words."""
    facet: str | None = None
    """Of the tracks' labels only those of this facet are classes; None takes all."""
    spell: Callable[[str], str] | None = None
    """The text of a label, where it is not the label's name."""
    keep: Callable[[Mapping[str, Any]], bool] | None = None
    """Which tracks of the prepared folder belong to it, by their row of the manifest; None takes all."""
    queries: tuple[str, ...] = ()
    """Kinds of query (``QUERY_SETS``)."""
    fetched: str = ""
    """For a set of texts alone: where ``mulan data fetch`` puts its file, below the folder of fetched data sets."""
    read_pairs: Callable[[Path, list[str]], list[Pair]] | None = None
    """For a set of texts alone: its file to pairs; it appends to the list what a person should know."""
    pair_set: str = "playlist"
    """Name of its triplets: ``triplets/<name>/accuracy``."""

    @property
    def is_text_only(self) -> bool:
        """Whether it has no audio."""
        return self.read_pairs is not None


def check_suites(names: Sequence[str]) -> tuple[str, ...]:
    """Suites in their order, each once.

    Raises:
        UserError: for a name that is none.
    """
    for name in names:
        if name not in SUITES:
            raise UserError(f"there is no suite {name!r}; there are: {', '.join(SUITES)}")
    return tuple(suite for suite in SUITES if suite in names)


def parse_names(text: str) -> tuple[str, ...]:
    """Names separated by semicolons, over several lines.

    >>> parse_names('''Jazz; Hip
    ...     hop music''')
    ('Jazz', 'Hip hop music')
    """
    return tuple(" ".join(name.split()) for name in text.split(";"))

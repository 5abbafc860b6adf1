"""What a public data set is here: its facts, where its files come from, and the function that reads them.

A reader turns the official files into tracks and names the files that the audio of each may be in; whether the audio
is there is found out afterwards (``importing.py``), so a reader never fails over missing audio.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mulan_core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Track:
    """One track as the official files have it."""

    track_id: str
    """As ``recording_id`` makes it."""
    audio: tuple[str, ...]
    """Files that the audio may be in, below the audio folder; the first that is there counts."""
    split: str
    """``train``, ``valid`` or ``test``."""
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Source (``sf``, ``lf``, ``pl``, ``aset``) -> texts."""
    labels: Sequence[str] = ()
    """``facet:Name`` or plain names, as people read them."""
    title: str | None = None
    artist: str | None = None
    license: str | None = None
    """The track's own licence; None takes the data set's."""
    start_s: float | None = None
    """The segment of the audio file to use, seconds; None takes the whole file."""
    duration_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Download:
    """An official file that anyone may fetch."""

    url: str
    file: str
    """Its place in the data set's folder."""
    checksum: str | None = None
    """``sha256:...`` or ``sha1:...`` of the publisher's own file; None where we never had it."""
    members: tuple[str, ...] = ()
    """What to unpack of a zip archive."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A public data set."""

    name: str
    """The name on the command line, and the manifest's ``dataset``."""
    title: str
    tracks: str
    """How many there are."""
    about: str
    """What a track is, and the official parts."""
    license: str
    size: str
    """Of the audio, in words."""
    home: str
    """Where people read about it and ask for it."""
    files: tuple[str, ...]
    """Official files that the reader needs; what may be absent stands in brackets."""
    ids: str | None
    """Whose ids its tracks have; data sets with the same word here share recordings. None: it takes several."""
    read: Callable[..., Iterator[Track]]
    """``read(folder, notes, **options)``; it appends to ``notes`` what a person should know."""
    downloads: tuple[Download, ...] = ()
    by_hand: str = ""
    """What has to be got by hand, and how."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Option of ``read`` -> what it does."""

    def defaults(self) -> dict[str, Any]:
        """Default of each option."""
        return {name: inspect.signature(self.read).parameters[name].default for name in self.options}

    def parse_options(self, pairs: Sequence[str]) -> dict[str, Any]:
        """Options from ``name=value`` words; a bare name means true.

        Raises:
            UserError: for an unknown name or a value of the wrong type.
        """
        options: dict[str, Any] = {}
        defaults = self.defaults()
        for pair in pairs:
            name, _, value = pair.partition("=")
            if name not in defaults:
                names = ", ".join(defaults) or "none"
                raise UserError(f"{self.name} has no option {name!r}; it has: {names}")
            kind = type(defaults[name])
            try:
                options[name] = {"": True, "true": True, "false": False}[value] if kind is bool else kind(value)
            except (KeyError, ValueError) as error:
                wanted = "true or false" if kind is bool else "a whole number"
                raise UserError(f"{self.name}: option {name} takes {wanted}, got {value!r}") from error
        return options


def recording_id(ids: str, official: str) -> str:
    """The id of a recording, the same in every data set that has it.

    >>> recording_id("jamendo", "track_0000948"), recording_id("jamendo", "jamendo:948")
    ('jamendo:948', 'jamendo:948')
    >>> recording_id("youtube", "-0Gj8-vB1q4")
    'youtube:-0Gj8-vB1q4'
    """
    official = official.removeprefix(f"{ids}:")
    if ids == "jamendo":
        digits = official.removeprefix("track_")
        official = str(int(digits)) if digits.isdecimal() else official
    if ids == "mtat":
        official = official.rpartition("/")[2].removesuffix(".mp3")
    return f"{ids}:{official}"


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse an option's value that is none of its choices."""
    if value not in choices:
        raise UserError(f"option {name} is one of {', '.join(choices)}; got {value!r}")

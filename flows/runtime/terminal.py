r"""The terminal: what comes from data is printed as it is, without markup, whole, and cannot steer the terminal.

Everything of ours that people read goes through a ``Terminal`` and its ``Table``. Brackets, backslashes and
``:smile:`` are letters; control characters are shown as ``\x1b``; a narrow terminal folds, and a pipe gets lines as
long as they are.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NoReturn

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

PIPE_WIDTH = 10_000
"""Columns where nobody watches: no line of ours is as long."""
NARROW = 80
"""Under it, a table of more than two columns that does not fit is printed row by row."""
CLOSED = 141
"""Exit code when whoever reads the output is gone, as a shell counts SIGPIPE."""
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb]"
)
"""Control characters but tab and line feed, those that turn the direction of writing, and halves of characters."""


def visible(text: str) -> str:
    r"""A text with its control characters spelled out: ``\x1b[31m`` instead of red."""
    return _STEERING.sub(lambda match: ascii(match[0])[1:-1], text)


def words(*parts: str | tuple[str, str]) -> Text:
    """Words, some of them with a style: ``words(("look", "yellow"), " here")``."""
    plain = [visible(part) if isinstance(part, str) else (visible(part[0]), part[1]) for part in parts]
    return Text.assemble(*plain)


def moment(when: str) -> str:
    """A time of ISO 8601 as every command shows it, ``2026-03-01 09:30:00 UTC``; one without an offset as it is."""
    try:
        time = datetime.fromisoformat(when)
    except ValueError:
        return when
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if time.tzinfo else when


def now() -> str:
    """The time now, as ``moment`` shows it."""
    return moment(datetime.now(UTC).isoformat())


class Terminal(Console):
    """Rich's console without its markup, emoji codes and highlighting."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as rich shows it: as it is."""
        return super().render_str(visible(text), **options | {"markup": False, "emoji": False, "highlight": False})

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """Print; plain lines are left whole, so that the terminal wraps them and an address can be copied."""
        if soft_wrap is None:
            soft_wrap = all(isinstance(item, (str, Text)) for item in objects)
        super().print(*objects, soft_wrap=soft_wrap, **options)

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        """Columns and lines; COLUMNS counts, and a pipe has as many as it takes."""
        if self.is_terminal or self._width is not None:  # which COLUMNS sets
            return super().size
        return ConsoleDimensions(PIPE_WIDTH, 25)

    def on_broken_pipe(self) -> NoReturn:
        """End quietly, as ``| head`` wants it."""
        end_quietly()


class Table(RichTable):
    """Rich's table whose cells fold rather than end in dots."""

    def __init__(self, *headings: str | Column, **options: Any) -> None:
        super().__init__(**options)
        for heading in headings:
            if isinstance(heading, Column):
                self.add_column(heading.header, justify=heading.justify)
            else:
                self.add_column(heading)

    def add_column(self, *arguments: Any, **options: Any) -> None:
        """Add a column; it folds and is never cut."""
        super().add_column(*arguments, **options | {"overflow": "fold", "no_wrap": False})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        if width >= NARROW or len(self.columns) <= 2 or self.__rich_measure__(console, options).maximum < width:
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield self.title
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            yield from self._row(cells)

    def _row(self, cells: Iterable[Any]) -> Iterable[Text]:
        """A row as lines: its first words, then each of the others behind its heading."""
        first = True
        for column, cell in zip(self.columns, cells, strict=True):
            text = cell if isinstance(cell, Text) else Text(visible(str(cell)))
            if text.plain.strip():
                heading = visible(str(column.header)) if self.show_header else ""
                yield Text.assemble("" if first else "  ", f"{heading}: " if heading else "", text, overflow="fold")
                first = False


def end_quietly() -> NoReturn:
    """End where the reader of our output has gone: nothing more can be said, and that is no mistake."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    raise SystemExit(CLOSED)


def open_outputs() -> None:
    """Have stdout and stderr take any title, in an ASCII locale too: what it has no letter for is spelled out."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


console = Terminal(file=sys.__stdout__)
"""What was asked for."""
errors = Terminal(stderr=True)
"""What went wrong, and what is under way."""

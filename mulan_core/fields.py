"""Sections of a configuration: frozen dataclasses whose fields have rules, made of plain values or in Python.

Either way every field is held against its type and its rules (mulan_core/ranges.py), then the section against what it
says of several fields at once. An error names the key by its path in the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from mulan_core.ranges import FieldError, fit, join, show

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Section:
    """Base of the dataclasses of a configuration; ``at`` is a section's place in the file, for its errors."""

    at: ClassVar[str] = ""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Fields by the names that they had: whoever still uses one is told the new one."""

    def __init_subclass__(cls, at: str = "", renamed: Mapping[str, str] | None = None) -> None:
        super().__init_subclass__()
        cls.at, cls.renamed = at, renamed or {}

    def __post_init__(self) -> None:
        try:
            for name, hint in hints_of(type(self)).items():
                value = fit(hint, getattr(self, name), name, build=from_mapping)
                object.__setattr__(self, name, value)
            self.check()
        except FieldError as error:
            raise error.moved(error.key, within=self.at) from None

    def check(self) -> None:
        """Hold fields against each other.

        Raises:
            FieldError: naming one of them.
        """


class UnknownKeyError(FieldError):
    """A key that is no field; the problem is what is known there."""

    def __str__(self) -> str:
        return f"unknown key {join(self.within, self.key)!r}; {self.problem}"


def hints_of(kind: Any) -> Mapping[str, Any]:
    """Field -> its type with the rules beside it."""
    return _hints_of(kind)


@functools.cache
def _hints_of(kind: Any) -> Mapping[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def from_mapping(kind: type[T], values: Any, where: str | None = None) -> T:
    """Build a section from plain values, checking names, types and ranges all the way down.

    Args:
        kind: the section's class.
        values: as YAML or JSON hold them.
        where: its place in what was read, for errors; None takes the class's own.

    Raises:
        UserError: naming the key, what was found and what is allowed.
    """
    try:
        if not isinstance(values, Mapping):
            raise FieldError("", f"is {show(values)}; it must be keys and values")
        names = list(hints_of(kind))
        for key in values:
            if key not in names:
                if new := getattr(kind, "renamed", {}).get(key):
                    raise UnknownKeyError(str(key), f"it is called {new} now")
                near = difflib.get_close_matches(str(key), names, n=1)
                meant = f"; did you mean {near[0]}?" if near else ""
                raise UnknownKeyError(str(key), f"known here: {', '.join(names)}{meant}")
        return kind(**values)
    except FieldError as error:
        raise (error if where is None else error.moved(error.key, within=where)) from None


def lay_over(base: T, values: Any) -> T:
    """A section with some of its values exchanged.

    Sections are gone through key by key. A list or a table of names (``gate.floors``) is exchanged as a whole: else
    nobody could take something out of it.

    Args:
        base: the section.
        values: what differs, as YAML or JSON hold it.

    Raises:
        UserError: as ``from_mapping``.
    """
    return from_mapping(type(base), _laid_over(base, values))


def to_mapping(config: Any) -> dict[str, Any]:
    """The plain values of a config, fit for YAML or JSON; ``from_mapping`` is its inverse."""
    return typing.cast(dict[str, Any], _plain(config))


def _laid_over(base: Any, values: Any) -> Any:
    if not isinstance(base, Section) or not isinstance(values, Mapping):
        return values
    kept = {name: getattr(base, name) for name in hints_of(type(base))}
    return kept | {key: _laid_over(kept.get(key), value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value

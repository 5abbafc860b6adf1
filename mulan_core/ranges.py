"""What a value may be: a rule beside its type, checked and told in the same words wherever the value comes from.

``Annotated[float, Range(gt=0)]`` is a type with a rule. ``fit`` turns a given value into that type or says, in one
sentence with the value's path, what it must be; for a slip such as ``1_000`` it offers the right spelling.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, Protocol

from mulan_core.errors import UserError, without_secrets
from mulan_core.spelling import number_meant

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that no text of a configuration holds, lone surrogates among them."""

_YES_OR_NO = {"yes": True, "on": True, "true": True, 1: True, "no": False, "off": False, "false": False, 0: False}
_SHOW = reprlib.Repr()
_SHOW.maxlevel, _SHOW.maxlist, _SHOW.maxtuple, _SHOW.maxstring, _SHOW.maxother = 2, 4, 4, 60, 60


class Rule(Protocol):
    """One rule beside a type."""

    def allows(self, value: Any) -> bool:
        """Whether a value of the type keeps it."""

    def words(self) -> str:
        """It, as it goes on after the name of the type."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds of a number; NaN and the infinities are outside of every range."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def allows(self, value: float) -> bool:
        """Whether the number is finite and within the bounds."""
        return (
            (not isinstance(value, float) or math.isfinite(value))
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def words(self) -> str:
        """Such as ``from 0 to 1``."""
        if self.ge is not None and self.le is not None:
            return f"from {_plain(self.ge)} to {_plain(self.le)}"
        bounds = (("of at least", self.ge), ("above", self.gt), ("at most", self.le), ("below", self.lt))
        return " and ".join(f"{word} {_plain(bound)}" for word, bound in bounds if bound is not None)


@dataclass(frozen=True)
class Pattern:
    """What a text looks like as a whole."""

    regex: str
    description: str
    """The pattern in words, as they go on after "text"."""

    def allows(self, value: str) -> bool:
        """Whether the whole text matches."""
        return re.fullmatch(self.regex, value, re.DOTALL) is not None

    def words(self) -> str:
        """Its words."""
        return self.description


class OneOf:
    """Words to choose from."""

    def __init__(self, *options: str) -> None:
        self.options = options

    def allows(self, value: str) -> bool:
        """Whether it is one of them."""
        return value in self.options

    def words(self) -> str:
        """All of them."""
        return f"that is one of {', '.join(self.options)}"


@dataclass(frozen=True, kw_only=True)
class Length:
    """How many entries a list or a mapping has."""

    ge: int = 0
    le: int | None = None
    unique: bool = False
    """Each entry comes once."""

    def allows(self, value: Any) -> bool:
        """Whether it has so many."""
        return (
            len(value) >= self.ge
            and (self.le is None or len(value) <= self.le)
            and not (self.unique and len(set(value)) < len(value))
        )

    def words(self) -> str:
        """Such as ``1 or more, each once``."""
        number = f"of {self.ge} to {self.le}" if self.le is not None else f"of {self.ge} or more" if self.ge else ""
        return ", ".join(word for word in (number, "each once" if self.unique else "") if word)


@dataclass(frozen=True)
class Anything:
    """No rule, for a reason."""

    reason: str

    def allows(self, value: object) -> bool:
        """Always."""
        return True

    def words(self) -> str:
        """None."""
        return ""


NOT_EMPTY = Pattern(r".*\S.*", "that is not empty")


class FieldError(UserError):
    """A value that does not fit: the path of its key, and what is wrong with it."""

    def __init__(self, key: str, problem: str, within: str = "") -> None:
        super().__init__(key, problem, within)  # what pickle makes it of again
        self.key, self.problem, self.within = key, problem, within

    def __str__(self) -> str:
        return without_secrets(f"{join(self.within, self.key) or 'the file'} {self.problem}")

    def moved(self, key: str, *, within: str = "") -> FieldError:
        """The same error by another path."""
        return type(self)(key, self.problem, within)


def join(where: str, key: str) -> str:
    """The path of a key: ``train`` and ``steps`` make ``train.steps``."""
    return f"{where}.{key}" if where and key else where or key


def fit(hint: Any, value: Any, key: str, *, build: Callable[[type, Any], Any] | None = None) -> Any:
    """Turn a value into its type, or refuse it.

    Args:
        hint: the type with its rules: bool, int, float, str, Literal, tuple, Mapping, a dataclass, or one of them or
            None; ``Annotated`` holds rules.
        value: as read, such as from YAML, or given in Python.
        key: what names it in the sentence, such as ``train.steps`` or ``--port``.
        build: makes a dataclass of plain values; needed where the hint holds one.

    Raises:
        FieldError: a UserError naming the key, what was found and what is allowed.
    """
    kind, rules, optional = _parts(hint)
    if value is None and optional:
        return None
    try:
        if dataclasses.is_dataclass(kind):
            fitted = value if isinstance(value, kind) else _build(build, kind, value, key)  # type: ignore[arg-type]
        elif typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
            item_type = typing.get_args(kind)[0]
            fitted = tuple(fit(item_type, item, f"{key}[{index}]", build=build) for index, item in enumerate(value))
        elif typing.get_origin(kind) is Mapping and isinstance(value, Mapping):
            key_type, item_type = typing.get_args(kind)
            fitted = {
                _fit_key(key_type, name, key): fit(item_type, item, join(key, str(name)), build=build)
                for name, item in value.items()
            }
        else:
            fitted = _fit_scalar(kind, value, key)
    except _UnfitError:
        fitted = _UnfitError
    if fitted is not _UnfitError and all(rule.allows(fitted) for rule in rules):
        return fitted
    raise FieldError(key, f"is {show(value)}; it must be {describe(hint)}{_offer(hint, value)}")


def describe(hint: Any) -> str:
    """A type and its rules in words, such as ``a whole number from 1 to 65535, or null``."""
    kind, rules, optional = _parts(hint)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        words = f"one of {', '.join(map(str, args))}" if len(args) > 1 else str(args[0])
    elif origin is tuple:
        words = "a list"
    elif origin is Mapping or dataclasses.is_dataclass(kind):
        words = "keys and values"
    else:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    words = " ".join([words, *(word for rule in rules if (word := rule.words()))])
    if origin is tuple:
        words += f", each {describe(args[0])}"
    return f"{words}, or null" if optional else words


def kind_of(hint: Any) -> Any:
    """The bare type."""
    return _parts(hint)[0]


def rules_of(hint: Any) -> tuple[Rule, ...]:
    """The rules beside a type."""
    return _parts(hint)[1]


def show(value: Any) -> str:
    """A value as YAML would spell it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    return _SHOW.repr(without_secrets(value) if isinstance(value, str) else value)


class _UnfitError(Exception):
    """The value is of another type."""


def _parts(hint: Any) -> tuple[Any, tuple[Rule, ...], bool]:
    """The bare type, its rules, and whether None is allowed."""
    rules: tuple[Rule, ...] = ()
    optional = False
    while True:
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            hint, rules = args[0], (*rules, *(rule for rule in args[1:] if hasattr(rule, "allows")))
        elif origin in (typing.Union, types.UnionType):
            hint, optional = next(arg for arg in args if arg is not type(None)), True
        else:
            return hint, rules, optional


def _build(build: Callable[[type, Any], Any] | None, kind: type, value: Any, key: str) -> Any:
    """A section within another; what it says of its keys gets the path that leads to it."""
    if build is None:
        raise TypeError(f"{key} is a section; say how to build it")
    try:
        return build(kind, value)
    except FieldError as error:
        raise error.moved(join(key, error.key)) from None


def _fit_key(hint: Any, name: Any, key: str) -> Any:
    """The key of a mapping that stands at ``key``."""
    try:
        return fit(hint, name, key)
    except FieldError as error:
        raise FieldError(key, f"has the key {show(name)}; it must be {describe(hint)}{_offer(hint, name)}") from error


def _fit_scalar(kind: Any, value: Any, key: str) -> Any:
    if typing.get_origin(kind) is Literal:
        if isinstance(value, str) and value in typing.get_args(kind):
            return value
    elif kind is bool:
        if isinstance(value, bool):
            return value
    elif kind is int:
        if isinstance(value, Integral) and not isinstance(value, bool):
            return int(value)
    elif kind is float:
        if isinstance(value, Real) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                return math.inf
    elif kind is str and isinstance(value, str):
        if match := CONTROL.search(value):
            raise FieldError(key, f"holds the control character {match[0]!a}; leave it out")
        return str(value)
    raise _UnfitError


def _offer(hint: Any, value: Any) -> str:
    """The right spelling, where the slip is a known one and what was meant would be taken."""
    kind, meant, spelling = kind_of(hint), None, None
    if kind in (int, float):
        if commas := comma_advice(hint, value):
            return commas
        spelling = number_meant(value, whole=kind is int)
        meant = kind(spelling.split()[0]) if spelling else None
    elif kind is bool and isinstance(value, (str, int, float)):
        meant = _YES_OR_NO.get(value.lower() if isinstance(value, str) else value)
        spelling = show(meant)
    elif typing.get_origin(kind) is Literal and isinstance(value, bool):
        # A reader of YAML 1.1, such as Ray Serve's of a RayService, takes these words for true and false.
        meant = next((word for word in typing.get_args(kind) if _YES_OR_NO.get(word) is value), None)
        spelling = f"'{meant}' in quotes"
    elif kind is str and isinstance(value, (bool, int, float)):
        meant = show(value)
        spelling = f"'{meant}' in quotes"
    elif typing.get_origin(kind) is tuple and not isinstance(value, (list, tuple, Mapping)) and value is not None:
        meant = [value]
        spelling = f"[{value if isinstance(value, (int, float)) else show(value)}]"
    try:
        return f"; write {spelling}" if meant is not None and fit(hint, meant, "") is not None else ""
    except FieldError:
        return ""


def comma_advice(hint: Any, value: Any) -> str:
    """What to write for ``0,5`` or ``1,000``, as the end of a sentence; empty where no comma is to blame.

    Args:
        hint: the type with its rules; only what it would take is offered.
        value: that is no number.
    """
    text = value.strip() if isinstance(value, str) and len(value) <= 40 else ""
    if not re.fullmatch(r"[-+]?\d+(,\d+)+(\.\d*)?", text):
        return ""
    readings = [text.replace(",", "")] if re.fullmatch(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", text) else []
    readings += [text.replace(",", ".")] if re.fullmatch(r"[-+]?\d+,\d+", text) else []
    meant = [reading for reading in readings if _is_taken(hint, reading)]
    return f"; a number has no comma{': write ' if meant else ''}{' or '.join(meant)}"


def _is_taken(hint: Any, text: str) -> bool:
    try:
        fit(hint, kind_of(hint)(text), "")
    except ValueError:  # a FieldError is one
        return False
    return True


def _plain(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"

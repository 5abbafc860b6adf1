"""Random configurations: the shipped ones with values, names and places changed at random, as YAML text."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from mulan_core.config import Config
from mulan_core.fields import hints_of
from mulan_core.ranges import OneOf, Range, kind_of, rules_of
from mulan_core.yaml_file import format_yaml

WORDS = [
    *("1e-4", "1E5", "off", "on", "yes", "~", "null", "true", "TRUE", "1_000", "0o17", "010", "0x1F", "0b11", "-0x1"),
    *(".inf", "-.inf", ".nan", "nan", "1:30", "2026-11-30", "-1", "0", "1", "2", "3", "7", "1.5", "-0.0", "1e400"),
    *("65536", "99999", "4294967296", "9" * 40, "9" * 5000, "1e-300", "0.999999999999999999", "''", "' '", "'off'"),
    *("mean", "cls", "max", "ast", "short_chunk", "resnet", "basic", "torch", "full", "best", "frozen", "kaldi"),
    *("[]", "{}", "[1]", "[1, 2]", "[[1]]", "{a: 1}", "{low: 1, high: 2}", "[sf, lf]", "{sf: 1}", "'a/b'", "'..'"),
    *('"\\0"', '"\\e[31m"', "'\N{GRINNING FACE}'", "'[red]'", '"\\ud800"', "'{}'", "'{} {}'", "&a [*a]", "!!int x"),
]
"""Values as somebody may type them."""
NAMES = ["", "x", "steps", "audio_lr", "1", "~", "on", "'[b]'", "kind", "frontend", "a.b", "<<", "..", "sets", "rows"]
LINES = [
    "\tsteps: 1",
    "steps",
    "- 1",
    "---",
    "a: 'b",
    "x: *y",
    "%",
    "  deeper: {",
    "\ufeff",
    "\x07",
    "a: 1\na: 2",
    "...",
]


def random_yaml(shipped: dict[str, Any], rng: random.Random) -> str:
    """A file that somebody changed in one to four places, most of them small slips."""
    values = copy.deepcopy(shipped)
    typed: dict[str, str] = {}
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        holder, key = _place(values, rng)
        slip = rng.random()
        if slip < 0.4:
            _set_allowed(values, rng)
        elif slip < 0.75:
            holder[key] = mark = f"TYPED{len(typed)}"
            typed[mark] = rng.choice(WORDS)
        elif slip < 0.9 and isinstance(holder, dict):
            name = f"TYPED{len(typed)}"
            typed[name] = rng.choice(NAMES)
            holder[name] = holder.pop(key) if rng.random() < 0.5 else holder[key]
        elif isinstance(holder, dict):
            holder[key] = {key: holder[key]} if rng.random() < 0.5 else [holder[key]]
        else:
            holder.append(copy.deepcopy(holder[key]))
    text = format_yaml(values)
    for mark, word in sorted(typed.items(), reverse=True):
        text = text.replace(mark, word)
    if rng.random() < 0.1:
        lines = text.split("\n")
        lines.insert(rng.randrange(len(lines)), rng.choice(LINES))
        text = "\n".join(lines)
    return text


def _place(values: Any, rng: random.Random) -> tuple[Any, Any]:
    """A holder and one of its keys, at any depth."""
    while True:
        key = rng.choice(list(values)) if isinstance(values, dict) else rng.randrange(len(values))
        deeper = values[key]
        if not isinstance(deeper, (dict, list)) or not deeper or rng.random() < 0.1:
            return values, key
        values = deeper


def _set_allowed(values: Any, rng: random.Random) -> None:
    """Give some field a value that its own rules allow, the ends of its range most of all."""
    hint: Any = Config
    while dataclasses.is_dataclass(kind_of(hint)) and isinstance(values, dict):
        name, of = rng.choice(list(hints_of(kind_of(hint)).items()))
        if dataclasses.is_dataclass(kind_of(of)):
            hint, values = of, values.setdefault(name, {})
        else:
            values[name] = allowed(of, rng)
            return


def allowed(hint: Any, rng: random.Random) -> Any:
    """A value of a type within its rules; of what has a pattern, an empty list or mapping where those may be."""
    kind, origin = kind_of(hint), get_origin(kind_of(hint))
    known = next((rule.options for rule in rules_of(hint) if isinstance(rule, OneOf)), None)
    if kind in (int, float):
        return rng.choice(edges(hint))
    if kind is bool:
        return rng.random() < 0.5
    if known or origin is Literal:
        return rng.choice(known or get_args(kind))
    if origin is tuple and kind_of(get_args(kind)[0]) is not str:
        return [allowed(get_args(kind)[0], rng) for _ in range(rng.randint(1, 4))]
    return {} if origin is Mapping else [] if origin is tuple else "text"


def edges(hint: Any) -> list[Any]:
    """The ends of a number's range, and some between."""
    bounds = next(rule for rule in rules_of(hint) if isinstance(rule, Range))
    whole = kind_of(hint) is int
    low = bounds.ge if bounds.ge is not None else bounds.gt + (1 if whole else 1e-9)
    high = bounds.le if bounds.le is not None else bounds.lt - (1 if whole else 1e-9)
    near = [low, high, low + (high - low) / 2, max(low, min(high, 2)), max(low, min(high, 0.3))]
    return [int(value) if whole else float(value) for value in near]

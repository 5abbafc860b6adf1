"""Numbers on the command line and in flows' parameters: within the ranges of the configuration, in the same words."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mulan_core.ranges import Range, fit, kind_of, rules_of

Count = Annotated[int, Range(ge=1, le=1_000_000)]
"""Of what a person asks for."""
CountOrNone = Annotated[int, Range(ge=0, le=1_000_000_000)]
"""0 is none, or no limit."""


def number(hint: Any, text: str, *names: str) -> Any:
    """An option that takes a number, with its range in the help.

    Args:
        hint: a type with its range, such as ``Port`` of the configuration.
        text: its help.
        names: the option's, where they are not the parameter's.
    """

    def check(param: typer.CallbackParam, value: Any) -> Any:
        # -1 is told as it was typed, not as the -1.0 that a number with a fraction is read as.
        typed = int(value) if isinstance(value, float) and value.is_integer() else value
        return None if value is None else fit(hint, typed, param.opts[0])

    bounds = next(rule for rule in rules_of(hint) if isinstance(rule, Range))
    low = f"{bounds.ge:g}" if bounds.ge is not None else f"above {bounds.gt:g}"
    high = f"{bounds.le}" if bounds.le is not None else f"below {bounds.lt}"
    kind = "INTEGER" if kind_of(hint) is int else "NUMBER"
    return typer.Option(*names, help=text, callback=check, metavar=f"{kind} ({low} to {high})")

"""What somebody meant who wrote a number as it is written elsewhere."""

from __future__ import annotations

import math
import re
from typing import Any

_NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")


def number_meant(value: Any, *, whole: bool) -> str | None:
    """The number behind ``1_000``, ``'1e-4'``, ``0b101``, ``1:30``, ``50%`` or ``1000.0``."""
    if isinstance(value, float):
        return str(int(value)) if whole and value.is_integer() and abs(value) < 1e15 else None
    if not isinstance(value, str) or len(value) > 40:
        return None
    text, meant = value.strip().replace("_", ""), None
    if _NUMBER.fullmatch(text):
        meant = float(text)
        if not whole and text == value.strip():
            return f"{text} without quotes" if math.isfinite(meant) else None
    elif re.fullmatch(r"[-+]?0(b[01]+|o[0-7]+|x[0-9a-fA-F]+)", text):
        meant = float(int(text, 0))
    elif re.fullmatch(r"[-+]?\d+(:[0-5]?\d)+", text):  # YAML 1.1 counted in sixties
        meant = float(sum(int(part) * 60**power for power, part in enumerate(reversed(text.lstrip("+-").split(":")))))
        meant = -meant if text[0] == "-" else meant
    elif re.fullmatch(r"\d+(\.\d*)?%", text):
        meant = float(text[:-1]) / 100
    if meant is None or not math.isfinite(meant) or (whole and not meant.is_integer()):
        return None
    return str(int(meant)) if meant.is_integer() and abs(meant) < 1e15 else repr(meant)

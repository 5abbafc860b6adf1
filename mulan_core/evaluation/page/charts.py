"""Inline SVG of the report's page. Shapes stretch with the page; text is HTML beside them and keeps its size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from mulan_core.evaluation.page.numbers import Histogram

Floats = NDArray[np.floating]

COLOURS = 8
"""Classes that a map tells apart; the style sheet has as many."""


def bar(
    value: float,
    *,
    interval: Sequence[float] | None = None,
    chance: float | None = None,
    paper: float | None = None,
    probe: float | None = None,
    low: float = 0.0,
    label: str = "",
) -> str:
    """A horizontal bar from chance to the value, with its interval; ticks for chance and paper, a ring for the probe.

    Args:
        low: left end of the scale; the right one is 1.
        label: what a screen reader says.
    """

    def x(at: float) -> str:
        return f"{100 * min(1.0, max(0.0, (at - low) / (1 - low))):.2f}%"

    start = chance if chance is not None else low
    left, right = sorted((start, value))
    worse = " worse" if value < start else ""
    parts = ['<rect class="rail" x="0" y="9" width="100%" height="4" rx="2"/>']
    width = f"{100 * (min(1.0, right) - max(low, left)) / (1 - low):.2f}%"
    parts.append(f'<rect class="reach{worse}" x="{x(left)}" y="6" width="{width}" height="10" rx="2"/>')
    if interval:
        parts.append(f'<line class="interval" x1="{x(interval[0])}" x2="{x(interval[1])}" y1="11" y2="11"/>')
    if chance is not None:
        parts.append(f'<line class="chance" x1="{x(chance)}" x2="{x(chance)}" y1="2" y2="20"/>')
    if paper is not None:
        parts.append(f'<line class="paper" x1="{x(paper)}" x2="{x(paper)}" y1="2" y2="20"/>')
    if probe is not None:
        parts.append(f'<circle class="probe" cx="{x(probe)}" cy="11" r="4"/>')
    parts.append(f'<circle class="value" cx="{x(value)}" cy="11" r="5"/>')
    return f'<svg class="bar" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def difference(value: float, *, interval: Sequence[float] | None, reach: float, kind: str, label: str) -> str:
    """A dot with its interval on a scale from -reach to reach, with zero in the middle.

    Args:
        kind: class of the style sheet: ``won``, ``lost`` or ``open``.
        label: what a screen reader says.
    """

    def x(at: float) -> str:
        return f"{50 + 50 * min(1.0, max(-1.0, at / reach)):.2f}%"

    parts = ['<rect class="rail" x="0" y="9" width="100%" height="4" rx="2"/>']
    parts.append('<line class="chance" x1="50%" x2="50%" y1="1" y2="21"/>')
    if interval:
        parts.append(f'<line class="interval" x1="{x(interval[0])}" x2="{x(interval[1])}" y1="11" y2="11"/>')
    parts.append(f'<circle class="value" cx="{x(value)}" cy="11" r="5"/>')
    return f'<svg class="bar {kind}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def curves(lines: Iterable[tuple[str, Floats, Floats, str]], chance: float | None) -> str:
    """Lines of (name, x_K, y_K, class of the style sheet) in the unit square; chance as a level."""
    drawn = [_grid()]
    if chance is not None:
        drawn.append(f'<path class="chance" d="M0 {_y(chance)}H1000"/>')
    for name, x_K, y_K, style in lines:
        points = " ".join(f"{1000 * x:.0f},{_y(y)}" for x, y in zip(x_K, y_K, strict=True))
        drawn.append(f'<polyline class="{style}" points="{points}"><title>{escape(name)}</title></polyline>')
    return _plot("".join(drawn), ("0", "0.5", "1"), ("1", "0.5", "0"), "recall", "precision")


def histograms(counted: Histogram) -> str:
    """Right and wrong pairs, one over the other, each by its own total."""
    tallest = float(max(counted.right_B.max(), counted.wrong_B.max()))
    drawn = "".join(
        f'<path class="{style}" d="{_steps(shares_B / tallest)}"/>'
        for style, shares_B in (("wrong", counted.wrong_B), ("right", counted.right_B))
    )
    middle = (counted.low + counted.high) / 2
    ticks = tuple(f"{at:.2f}" for at in (counted.low, middle, counted.high))
    top = f"{100 * tallest:.0f} %"
    return _plot(drawn, ticks, (top, "0"), "cosine", "share")


def scatter(points_N2: Floats, colours: Sequence[int | None], names: Sequence[str]) -> str:
    """Points with a name each, coloured 0 to ``COLOURS`` - 1; None is the colour of all others, drawn beneath."""
    low_2, high_2 = points_N2.min(axis=0), points_N2.max(axis=0)
    places_N2 = 2 + 96 * (points_N2 - low_2) / np.maximum(high_2 - low_2, 1e-12)
    order = sorted(range(len(names)), key=lambda n: colours[n] is not None)
    dots = "".join(
        f'<circle class="{"other" if colours[n] is None else f"c{colours[n]}"}" cx="{places_N2[n, 0]:.1f}%" '
        f'cy="{100 - places_N2[n, 1]:.1f}%" r="4"><title>{escape(names[n])}</title></circle>'
        for n in order
    )
    return f'<svg class="map" role="img" aria-label="map of {len(names)} tracks">{dots}</svg>'


def _plot(drawn: str, x_ticks: Sequence[str], y_ticks: Sequence[str], x_label: str, y_label: str) -> str:
    def spans(ticks: Sequence[str]) -> str:
        return "".join(f"<span>{escape(tick)}</span>" for tick in ticks)

    return (
        f'<div class="plot"><div class="axis y" data-label="{y_label}">{spans(y_ticks)}</div>'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" aria-label="{y_label} over {x_label}">'
        f'{drawn}</svg><div class="axis x">{spans(x_ticks)}</div><div class="name">{x_label}</div></div>'
    )


def _grid() -> str:
    return '<path class="grid" d="M0 0H1000M0 500H1000M0 1000H1000M0 0V1000M500 0V1000M1000 0V1000"/>'


def _steps(heights_B: Floats) -> str:
    width = 1000 / len(heights_B)
    tops = "".join(f"V{_y(height)}H{width * (b + 1):.1f}" for b, height in enumerate(heights_B))
    return f"M0 1000{tops}V1000Z"


def _y(at: float) -> str:
    return f"{1000 * (1 - at):.0f}"

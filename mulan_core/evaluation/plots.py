"""The picture of a study, as PNG bytes; a report has its page instead (``page``).

Figures are built with matplotlib's objects on the Agg canvas: no display, no global state, safe in any thread.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mulan_core.evaluation.metric_labels import metric_label

if TYPE_CHECKING:
    from mulan_core.evaluation.study import Study

INK, GRID = "#22303c", "#e4e7eb"
BLUE, PALE, ORANGE = "#2f6db5", "#b9d1ec", "#d9822b"
DPI = 144


def study_png(study: Study) -> bytes | None:
    """Rows against metrics: each seed, the mean and its interval; the bar is the least difference that stands."""
    columns, summary = study.columns, study.summary()
    if not columns:
        return None
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    figure = _figure(width=9.2, height=0.9 + down * (0.75 + 0.3 * len(study.rows)))
    rows = np.arange(len(study.rows))[::-1]
    least = study.least_differences()
    for position, (_, _, metric) in enumerate(columns):
        axes = figure.add_subplot(down, across, position + 1)
        values_RS = study.values[metric]
        for y, row, values_S in zip(rows, summary, values_RS, strict=True):
            if len(values_S) > 1:
                axes.plot(values_S, np.full(len(values_S), y), marker="o", color=PALE, markersize=4, linestyle="none")
            if metric in row["intervals"]:
                axes.plot(row["intervals"][metric], [y, y], color=BLUE, linewidth=1.4)
            axes.plot([row["metrics"][metric]], [y], marker="o", color=BLUE, markersize=5.5)
        if metric in least:
            left = float(values_RS.min())
            axes.set_xlim(axes.get_xlim())  # a bar that is longer than all there is ends with the panel
            axes.plot([left, left + least[metric]], [-0.75, -0.75], color=ORANGE, linewidth=3, solid_capstyle="butt")
        axes.set_yticks(rows, [_shortened(row) for row in study.rows] if position % across == 0 else [])
        axes.set_ylim(-1.0, len(study.rows) - 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        _dress(axes)
        axes.set_title(metric_label(metric), loc="left", fontsize=8.5, color=INK)
    _legend(figure, ["mean", "interval", *(["seed", "least"] if least else [])])
    return _png(figure)


def _shortened(text: str) -> str:
    return text if len(text) <= 34 else text[:33] + "…"


def _figure(*, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _dress(axes: Axes) -> None:
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(length=0, labelcolor=INK, labelsize=8.5)


def _legend(figure: Figure, entries: list[str]) -> None:
    marks = {
        "mean": Line2D([], [], marker="o", color=BLUE, linestyle="none", markersize=5.5),
        "interval": Line2D([], [], color=BLUE, linewidth=1.4),
        "seed": Line2D([], [], marker="o", color=PALE, linestyle="none", markersize=4),
        "least": Line2D([], [], color=ORANGE, linewidth=3, solid_capstyle="butt"),
    }
    labels = {"interval": "95 % interval", "least": "least difference that stands"}
    figure.legend(
        [marks[entry] for entry in entries],
        [labels.get(entry, entry) for entry in entries],
        loc="outside lower left",
        ncols=len(entries),
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        handletextpad=0.4,
        columnspacing=1.6,
        borderaxespad=0.1,
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

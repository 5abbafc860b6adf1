"""Pictures of an evaluation report, as PNG bytes.

Figures are built with matplotlib's objects on the Agg canvas: no display, no global state, safe in any thread.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from mulan_core.evaluation.study import Study

INK, QUIET, GRID = "#22303c", "#7b8794", "#e4e7eb"
BLUE, PALE, ORANGE, RED = "#2f6db5", "#b9d1ec", "#d9822b", "#b23a48"
DPI = 144
MAX_CLASSES = 60
"""Classes of one facet that a picture shows; beyond that the best and the worst halves."""


def metric_label(name: str) -> str:
    """A metric's flat name as people write it.

    >>> metric_label("tagging/held_out/genre/roc_auc"), metric_label("retrieval/title/map")
    ('tagging, held out, genre ROC-AUC', 'retrieval, title mAP')
    """
    *path, metric = name.split("/")
    words = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "auc": "ROC-AUC", "map": "mAP"}
    return f"{', '.join(path).replace('_', ' ')} {words.get(metric, metric.replace('_', ' '))}".strip()


def overview_png(report: Mapping[str, Any]) -> bytes | None:
    """Every metric with its interval beside chance; None without metrics."""
    names = list(report["metrics"])
    if not names:
        return None
    figure = _figure(width=9.2, height=1.5 + 0.27 * len(names))
    axes = figure.add_subplot()
    rows = np.arange(len(names))[::-1]
    for row, name in zip(rows, names, strict=True):
        value, chance = report["metrics"][name], report["chance"].get(name)
        low, high = report["intervals"].get(name, (value, value))
        if chance is not None:
            axes.plot([chance, value], [row, row], color=PALE, linewidth=5, solid_capstyle="butt", zorder=1)
            axes.plot([chance], [row], marker="|", color=RED, markersize=9, markeredgewidth=1.8, zorder=3)
        axes.plot([low, high], [row, row], color=BLUE, linewidth=1.4, zorder=2)
        axes.plot([value], [row], marker="o", color=BLUE, markersize=5.5, zorder=4)
        axes.text(1.035, row, f"{value:.3f}", va="center", ha="left", fontsize=8.5, color=INK)
    axes.set_yticks(rows, [metric_label(name) for name in names], fontsize=8.5)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlim(0, 1.02)
    _dress(axes, grid="x")
    _legend(axes, ["value", "interval", "chance"])
    axes.set_title(_title(report, "Evaluation beside chance"), loc="left", fontsize=11, color=INK, pad=26)
    return _png(figure)


def classes_png(report: Mapping[str, Any]) -> bytes | None:
    """ROC-AUC of every class against chance, one panel a facet; None without tagging."""
    rows = [row for row in report["per_class"] if row["tracks"] == "test"]
    if not rows:
        return None
    panels = {facet: _chosen(rows, facet) for facet in dict.fromkeys(row["facet"] for row in rows)}
    lowest = min(min([row["roc_auc"], *(row["roc_auc_interval"] or [])]) for row in rows)
    left = max(0.0, min(0.4, lowest - 0.03))
    heights = [max(2, len(panel)) for panel in panels.values()]
    figure = _figure(width=9.2, height=1.5 + 0.25 * sum(heights) + 0.55 * len(panels))
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    for position, (facet, panel) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[position])
        _class_panel(axes, facet, panel, left=left)
        if position == 0:
            probed = any("probe_roc_auc" in row for row in rows)
            _legend(axes, ["zero-shot", "interval", *(["probe"] if probed else []), "chance"])
            axes.set_title(
                _title(report, "ROC-AUC per class (test tracks in brackets)"),
                loc="left",
                fontsize=11,
                color=INK,
                pad=28,
            )
        if position == len(panels) - 1:
            axes.set_xlabel("ROC-AUC", fontsize=9, color=QUIET)
    return _png(figure)


def retrieval_png(report: Mapping[str, Any]) -> bytes | None:
    """Average precision of every query against chance, titles and descriptions; None without queries."""
    sets = [name for name in ("title", "description") if f"retrieval/{name}/map" in report["metrics"]]
    if not sets:
        return None
    figure = _figure(width=9.2, height=3.5)
    first: Axes | None = None
    for position, name in enumerate(sets, start=1):
        axes = figure.add_subplot(1, len(sets), position, sharey=first)
        first = first or axes
        values = [row["ap"] for row in report["per_query"] if row["query_set"] == name]
        mean, chance = report["metrics"][f"retrieval/{name}/map"], report["chance"][f"retrieval/{name}/map"]
        axes.hist(values, bins=np.linspace(0, 1, 21).tolist(), color=PALE, edgecolor="white", linewidth=0.8)
        axes.axvline(chance, color=RED, linewidth=1.6, linestyle=(0, (4, 2)), label=f"chance {chance:.3f}")
        axes.axvline(mean, color=BLUE, linewidth=2, label=f"mean {mean:.3f}")
        _dress(axes, grid="y")
        axes.set_xlim(0, 1)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("average precision of a query", fontsize=9, color=QUIET)
        axes.set_title(f"Search by playlist {name}, {len(values)} queries", loc="left", fontsize=10, color=INK)
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
        if position == 1:
            axes.set_ylabel("queries", fontsize=9, color=QUIET)
    return _png(figure)


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
        _dress(axes, grid="x")
        axes.set_title(metric_label(metric), loc="left", fontsize=8.5, color=INK)
    _legend(figure, ["mean", "interval", *(["seed", "least"] if least else [])], outside=True)
    return _png(figure)


def _class_panel(axes: Axes, facet: str, panel: list[Mapping[str, Any]], *, left: float) -> None:
    rows = np.arange(len(panel))
    values = np.array([row["roc_auc"] for row in panel])
    axes.barh(rows, values - 0.5, left=0.5, height=0.62, color=np.where(values >= 0.5, PALE, "#f0c9cd").tolist())
    for y, row in zip(rows, panel, strict=True):
        if row["roc_auc_interval"]:
            axes.plot(row["roc_auc_interval"], [y, y], color=BLUE, linewidth=1.3)
        if "probe_roc_auc" in row:
            axes.plot([row["probe_roc_auc"]], [y], marker="D", color=ORANGE, markersize=4, linestyle="none")
    axes.plot(values, rows, marker="o", color=BLUE, markersize=5, linestyle="none")
    axes.axvline(0.5, color=RED, linewidth=1.2)
    axes.set_yticks(rows, [f"{_shortened(row['text'])}  ({row['positives']})" for row in panel], fontsize=8.5)
    axes.set_ylim(-0.6, len(panel) - 0.4)
    axes.set_xlim(left, 1.01)
    axes.text(1.02, 0.5, facet, transform=axes.transAxes, rotation=270, va="center", fontsize=9.5, color=QUIET)
    _dress(axes, grid="x")


def _chosen(rows: list[dict[str, Any]], facet: str) -> list[Mapping[str, Any]]:
    panel = sorted((row for row in rows if row["facet"] == facet), key=lambda row: row["roc_auc"])
    if len(panel) > MAX_CLASSES:
        panel = panel[: MAX_CLASSES // 2] + panel[-MAX_CLASSES // 2 :]
    return list(panel)


def _shortened(text: str) -> str:
    return text if len(text) <= 34 else text[:33] + "…"


def _title(report: Mapping[str, Any], text: str) -> str:
    name = report["set"].get("name")
    return f"{text}: {name}" if name else text


def _figure(*, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _dress(axes: Axes, *, grid: str) -> None:
    axes.grid(axis="x" if grid == "x" else "y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left" if grid == "x" else "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.spines["left"].set_color(GRID)
    axes.tick_params(length=0, labelcolor=INK, labelsize=8.5)


def _legend(place: Any, entries: list[str], *, outside: bool = False) -> None:
    marks = {
        "value": Line2D([], [], marker="o", color=BLUE, linestyle="none", markersize=5.5),
        "zero-shot": Line2D([], [], marker="o", color=BLUE, linestyle="none", markersize=5),
        "probe": Line2D([], [], marker="D", color=ORANGE, linestyle="none", markersize=4),
        "interval": Line2D([], [], color=BLUE, linewidth=1.4),
        "chance": Line2D([], [], marker="|", color=RED, linestyle="none", markersize=10, markeredgewidth=1.8),
        "mean": Line2D([], [], marker="o", color=BLUE, linestyle="none", markersize=5.5),
        "seed": Line2D([], [], marker="o", color=PALE, linestyle="none", markersize=4),
        "least": Line2D([], [], color=ORANGE, linewidth=3, solid_capstyle="butt"),
    }
    labels = {"interval": "95 % interval", "probe": "linear probe", "least": "least difference that stands"}
    place.legend(
        [marks[entry] for entry in entries],
        [labels.get(entry, entry) for entry in entries],
        loc="outside lower left" if outside else "lower left",
        bbox_to_anchor=None if outside else (-0.01, 1.0),
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

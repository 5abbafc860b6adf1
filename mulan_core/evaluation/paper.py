"""What the paper printed, Tables 4, 5 and 6, and the same tables with our rows beside them.

Every number that only a paper gives lives here and is shown as one (``Row.is_paper``). They come from data, playlists
and candidates that nobody else has (100,000 candidates in Table 5), so they give the scale of a metric, not a contest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Values = tuple[float | None, ...]

PROBE = "probe"
ZERO_SHOT = "zero-shot"


@dataclass(frozen=True)
class Printed:
    """A table of the paper."""

    heading: str
    columns: tuple[str, ...]
    rows: Mapping[str, Values]


_NONE = (None, None)

TABLE_4 = Printed(
    "Table 4: music tagging, ROC-AUC",
    ("Gen-25", "Mu-141", "MTAT Top-50", "MTAT All-188"),
    {
        "M-AST, zero-shot": (0.840, 0.909, 0.778, 0.776),
        "M-Resnet-50, zero-shot": (0.840, 0.899, 0.782, 0.772),
        "M-Resnet-50, ASET+SF+LF, zero-shot": (0.839, 0.907, 0.760, 0.756),
        "M-Resnet-50, ASET+SF, zero-shot": (0.839, 0.885, 0.754, 0.747),
        "M-Resnet-50, ASET, zero-shot": (0.886, 0.942, 0.753, 0.771),
        "M-Resnet-50, SF/LF unfiltered, zero-shot": (0.845, 0.908, 0.774, 0.766),
        "M-AST, probe": (0.906, 0.942, 0.925, 0.953),
        "M-Resnet-50, probe": (0.910, 0.940, 0.927, 0.954),
        "Hybrid, probe": (0.904, 0.920, 0.915, 0.941),
        "JukeBox, probe": (*_NONE, 0.915, None),
        "MuLaP, probe": (*_NONE, 0.893, None),
        "CLMR, probe": (*_NONE, 0.866, None),
        "AST, end to end": (0.888, 0.949, *_NONE),
        "SC-CNN, end to end": (*_NONE, 0.913, None),
    },
)
TABLE_5 = Printed(
    "Table 5: search by playlists",
    ("title AUC", "title mAP", "description AUC", "description mAP"),
    {
        "M-AST": (0.933, 0.110, 0.903, 0.090),
        "M-Resnet-50": (0.931, 0.104, 0.901, 0.084),
        "M-Resnet-50, ASET+SF+LF": (0.917, 0.101, 0.892, 0.077),
        "M-Resnet-50, ASET+SF": (0.913, 0.089, 0.867, 0.060),
        "M-Resnet-50, ASET": (0.626, 0.005, 0.688, 0.009),
        "M-Resnet-50, SF/LF unfiltered": (0.933, 0.111, 0.897, 0.081),
    },
)
TABLE_6 = Printed(
    "Table 6: text triplets, accuracy",
    ("playlist", "AudioSet"),
    {
        "M-AST": (0.959, 0.962),
        "M-Resnet-50": (0.945, 0.951),
        "M-Resnet-50, ASET+SF+LF": (0.935, 0.952),
        "M-Resnet-50, ASET+SF": (0.910, 0.938),
        "M-Resnet-50, ASET": (0.693, 0.818),
        "M-Resnet-50, SF/LF unfiltered": (0.949, 0.959),
        "SimCSE": (0.950, 0.938),
        "Sentence-BERT": (0.942, 0.889),
        "Universal Sentence Encoder": (0.918, 0.946),
        "BERT": (0.850, 0.847),
    },
)
TABLES = (TABLE_4, TABLE_5, TABLE_6)

MODEL = "M-Resnet-50"
"""The model that one number of the paper stands for: that of its ablations."""

ABLATION: dict[str, str] = {
    "aset": f"{MODEL}, ASET",
    "aset+sf": f"{MODEL}, ASET+SF",
    "aset+sf+lf": f"{MODEL}, ASET+SF+LF",
    "all": MODEL,
    "unfiltered": f"{MODEL}, SF/LF unfiltered",
}
"""Row of our ablation -> the paper's row."""

_TAGGING_SETS = {"audioset-gen25": 0, "audioset-mu141": 1, "magnatagatune-top50": 2, "magnatagatune-all188": 3}
"""Start of a set's name -> column of Table 4; both readings of Mu-141 and both splits of MagnaTagATune are its."""
_SEARCH = {"title": 0, "description": 2}
_TRIPLETS = {"playlist": 0, "ontology": 1}


@dataclass(frozen=True)
class Cell:
    """A value with its interval, where it has one."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """A model's line."""

    name: str
    cells: tuple[Cell | None, ...]
    is_paper: bool
    """Whether only the paper says so."""


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables with our rows first."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def paper_tables(reports: Sequence[Mapping[str, Any]]) -> list[PaperTable]:
    """Tables 4, 5 and 6 as far as some reports of one model fill them; a measure the paper lacks gets its own column.

    Columns that they fill come first, in the paper's order.

    Args:
        reports: of the suite, one a set. Where two claim a column (both splits of MagnaTagATune), the first has it.
    """
    return [table for number in range(len(TABLES)) if (table := _table(number, reports))]


def paper_value(report: Mapping[str, Any], metric: str) -> tuple[float, str] | None:
    """What the paper's M-Resnet-50 scored on a metric's protocol, on its own data, and in which column; else None.

    Genres of any set stand beside Gen-25, as in the ablation's tables.
    """
    position = _position(report["set"].get("name", ""), metric)
    if position is None:
        return None
    number, kind, column, own = position
    if number == 0 and column is None and own == "genre":
        column = 0
    if column is None:
        return None
    value = TABLES[number].rows[f"{MODEL}, {kind}" if kind else MODEL][column]
    return None if value is None else (value, TABLES[number].columns[column])


def _position(set_name: str, metric: str) -> tuple[int, str, int | None, str] | None:
    """Table, kind of row, the paper's column if it has one, and our own column's name; None for other metrics."""
    match metric.split("/"):
        case ["tagging" | "probe" as suite, facet, "roc_auc"]:
            column = next((c for start, c in _TAGGING_SETS.items() if set_name.startswith(start)), None)
            return 0, PROBE if suite == "probe" else ZERO_SHOT, column, facet
        case ["retrieval", kind, "auc" | "map" as measure]:
            column = _SEARCH[kind] + (measure == "map") if kind in _SEARCH else None
            return 1, "", column, f"{kind} {'mAP' if measure == 'map' else 'AUC'}"
        case ["triplets", name, "accuracy"]:
            return 2, "", _TRIPLETS.get(name), name
    return None


def _table(number: int, reports: Sequence[Mapping[str, Any]]) -> PaperTable | None:
    printed = TABLES[number]
    columns = list(printed.columns)
    ours: dict[str, dict[str, Cell]] = {}
    for report in reports:
        about = report["set"]
        for metric, value in report["metrics"].items():
            position = _position(about.get("name", ""), metric)
            if position is None or position[0] != number:
                continue
            _, kind, column, own = position
            row = f"{about.get('model', {}).get('name', 'this model')}{', ' if kind else ''}{kind}"
            name = printed.columns[column] if column is not None else own
            if name in ours.setdefault(row, {}) or (column is None and len(reports) > 1):
                name = f"{own}, {about.get('name', 'unnamed')}"
            if name not in columns:
                columns.append(name)
            interval = report["intervals"].get(metric)
            ours[row][name] = Cell(value, (interval[0], interval[1]) if interval else None)
    if not ours:
        return None
    # What we measured comes first: on a narrow screen the rest is scrolled to.
    columns.sort(key=lambda column: not any(column in cells for cells in ours.values()))
    rows = [Row(name, tuple(map(cells.get, columns)), False) for name, cells in ours.items()]
    for name, values in printed.rows.items():
        paper_cells = {c: Cell(v) for c, v in zip(printed.columns, values, strict=True) if v is not None}
        rows.append(Row(name, tuple(map(paper_cells.get, columns)), True))
    return PaperTable(printed.heading, tuple(columns), tuple(rows))

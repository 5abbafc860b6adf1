"""An evaluation report for readers: JSON, Markdown, one HTML page, and the paper's ablation tables.

A report is the dict of ``mulan_core.evaluation.suite.evaluate``; its fields are described in docs/evaluation.md.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.metric_labels import behaviour_lines, grouped_metrics
from mulan_core.evaluation.page import index_html, to_html
from mulan_core.evaluation.paper import ABLATION, TABLE_4, TABLE_5, TABLE_6, ZERO_SHOT, Cell, paper_tables

NO_VALUE = "-"

ROWS: dict[str, str] = {
    "aset": "ASET",
    "aset+sf": "ASET + SF",
    "aset+sf+lf": "ASET + SF + LF",
    "all": "all (ASET + SF + LF + PL)",
    "unfiltered": "all, SF/LF unfiltered",
}
"""Ablation rows as configured -> as printed."""

PAPER: dict[str, dict[str, float | None]] = {
    row: {
        "genre": TABLE_4.rows[f"{name}, {ZERO_SHOT}"][0],
        **dict(zip(("title_auc", "title_map", "description_auc", "description_map"), TABLE_5.rows[name], strict=True)),
        "triplets": TABLE_6.rows[name][0],
    }
    for row, name in ABLATION.items()
}
"""The paper's M-Resnet-50 rows: Table 4(b) Gen-25 AUC-ROC, Table 5, Table 6 (playlist)."""

TABLES: tuple[tuple[str, tuple[tuple[str, str, str | None], ...]], ...] = (
    (
        "Tagging (layout of Table 4(b); AUC-ROC)",
        (
            ("genre", "tagging/genre/roc_auc", "genre"),
            ("instrument", "tagging/instrument/roc_auc", None),
            ("mood", "tagging/mood/roc_auc", None),
            ("probe genre", "probe/genre/roc_auc", None),
            ("probe instrument", "probe/instrument/roc_auc", None),
        ),
    ),
    (
        "Playlist retrieval (layout of Table 5)",
        (
            ("title AUC", "retrieval/title/auc", "title_auc"),
            ("title mAP", "retrieval/title/map", "title_map"),
            ("descr. AUC", "retrieval/description/auc", "description_auc"),
            ("descr. mAP", "retrieval/description/map", "description_map"),
        ),
    ),
    ("Playlist triplets (layout of Table 6)", (("accuracy", "triplets/playlist/accuracy", "triplets"),)),
    ("Search by a track's own text", (("AUC", "retrieval/text/auc", None), ("mAP", "retrieval/text/map", None))),
)
"""Heading and columns (name, metric, the paper's column of the same protocol) of the ablation's tables."""

FACETS: tuple[tuple[str, str], ...] = (("tagging/", ""), ("probe/", "probe "))
"""Start of a facet's metric, start of its column's name; a catalogue's own facets follow the demo's."""


def to_json(report: Mapping[str, Any]) -> str:
    """The report as JSON; refuses NaN, which is not JSON."""
    return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(report: Mapping[str, Any], *, worst: int = 5) -> str:
    """The report as Markdown: what was measured, every metric beside chance and the paper, the classes, the queries.

    Args:
        report: an evaluation report.
        worst: how many of the weakest queries of each set to show; all classes are shown.
    """
    parts = ["# Evaluation", _set_lines(report), _metric_tables(report), _paper_tables(report), _class_table(report)]
    parts += [_query_table(report, name, worst) for name in ("title", "description")]
    if behaviour := behaviour_lines(report):
        parts.append("## Behaviour and cost\n\n" + "\n".join(f"- {what}: {sentence}" for what, sentence in behaviour))
    if report["notes"]:
        parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in report["notes"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def write_report(report: Mapping[str, Any], evidence: Evidence, folder: Path) -> list[Path]:
    """Write report.json, report.md, report.html and, where the paper has such a table, tables.json; returns the paths.

    Args:
        report: of the suite.
        evidence: what it was computed from.
        folder: made if need be; an older report in it is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = [table.to_dict() for table in paper_tables([report])]
    contents = {
        "report.json": to_json(report),
        "report.md": to_markdown(report),
        "report.html": to_html(report, evidence),
        "tables.json": to_json({"tables": tables}) if tables else "",
    }
    for name, content in contents.items():
        if content:
            (folder / name).write_text(content, encoding="utf-8")
        else:
            (folder / name).unlink(missing_ok=True)
    return [folder / name for name, content in contents.items() if content]


def write_evaluation(result: Mapping[str, Any], folder: Path) -> None:
    """Write one model's reports on several sets as evaluation.json and evaluation.html, which leads to their pages.

    Args:
        result: ``model``, ``sets`` (name -> report) and whatever else the caller says of them all.
        folder: the reports' own folders lie in it, named by the set, or by the set and the suites of a part.
    """
    pages = {}
    for name, report in result["sets"].items():
        for below in (f"{name}-{'-'.join(report['set']['suites'])}", name):
            if name not in pages and (folder / below / "report.html").exists():
                pages[name] = f"{below}/report.html"
    page = index_html(result["model"]["name"], result["sets"], pages)
    (folder / "evaluation.html").write_text(page, encoding="utf-8")
    (folder / "evaluation.json").write_text(to_json(result), encoding="utf-8")  # last: it stands for all of them


def ablation_columns(metrics: Collection[str]) -> list[tuple[str, list[tuple[str, str, str | None]]]]:
    """The headings and columns of ``TABLES`` that have a metric here, and those of a catalogue's own facets."""
    table_metrics = {metric for _, columns in TABLES for _, metric, _ in columns}
    own: list[tuple[str, str, str | None]] = [
        (name + parts[1], metric, None)
        for start, name in FACETS
        for metric in sorted(metrics)
        if metric.startswith(start) and metric not in table_metrics
        if len(parts := metric.split("/")) == 3 and parts[2] == "roc_auc"
    ]
    tables = []
    for number, (heading, columns) in enumerate(TABLES):
        present = [column for column in columns if column[1] in metrics] + (own if number == 0 else [])
        if present:
            tables.append((heading, present))
    return tables


def ablation_table(rows: Sequence[Mapping[str, Any]], *, brackets: str = "95 % bootstrap interval") -> str:
    """The ablation over text sources as Markdown, in the layout of the paper's Tables 4(b), 5 and 6.

    Args:
        rows: one mapping per run: ``name`` (a key of ``ROWS`` or free text), ``metrics`` and, if known,
            ``intervals`` as in a report. A missing metric is shown as missing.
        brackets: what the intervals are.

    The paper's values stand beside ours where it measured the same protocol; they come from other data, so what
    compares is the order of the rows, not the values. The best of our rows is bold.
    """
    blocks = []
    for heading, columns in ablation_columns({metric for row in rows for metric in row["metrics"]}):
        paper = [(name, key) for name, _, key in columns if key is not None]
        header = ["trained on", *(name for name, _, _ in columns), *(f"*paper: {_paper_name(n)}*" for n, _ in paper)]
        best = {metric: max(row["metrics"].get(metric, float("-inf")) for row in rows) for _, metric, _ in columns}
        body = []
        for row in rows:
            cells = [ROWS.get(row["name"], row["name"])]
            cells += [_ablation_cell(row, metric, best[metric]) for _, metric, _ in columns]
            values = PAPER.get(row["name"], {})
            cells += [f"*{values[key]:.3f}*" if key in values else NO_VALUE for _, key in paper]
            body.append(cells)
        blocks.append(f"### {heading}\n\n" + markdown_table(header, body))
    if not blocks:
        return "No row has a metric.\n"
    blocks.append(
        f"In brackets: {brackets}. Bold: best of our rows. Columns marked *paper* are values printed in "
        "the MuLan paper (M-Resnet-50) for the same protocol on its own data and candidates: compare the order of the "
        "rows, not the values. The paper has no probe, instrument or mood column for these rows."
    )
    return "\n\n".join(blocks) + "\n"


def _paper_name(name: str) -> str:
    return "Gen-25" if name == "genre" else name


def _ablation_cell(row: Mapping[str, Any], metric: str, best: float) -> str:
    value = row["metrics"].get(metric)
    if value is None:
        return NO_VALUE
    shown = f"**{value:.3f}**" if value == best else f"{value:.3f}"
    interval = row.get("intervals", {}).get(metric)
    return f"{shown} ({interval[0]:.3f}-{interval[1]:.3f})" if interval else shown


def _set_lines(report: Mapping[str, Any]) -> str:
    about = report["set"]
    fields = {key: value for key, value in about.items() if isinstance(value, (str, int, float)) and key != "hash"}
    lines = [f"- {key.replace('_', ' ')}: {value}" for key, value in fields.items()]
    lines.append(f"- set hash: `{about['hash'][:16]}`")
    lines.append("- counts: " + ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in about["counts"].items()))
    protocol = about["protocol"]
    lines.append(f"- label templates: {', '.join(f'`{template}`' for template in protocol['templates'])}")
    lines.append(f"- {protocol['window_policy']}")
    lines.append(f"- intervals: 95 %, {protocol['bootstrap']} bootstrap resamples, seed {protocol['seed']}")
    return "\n".join(lines)


def _metric_tables(report: Mapping[str, Any]) -> str:
    tables = []
    for heading, entries in grouped_metrics(report):
        rows = [
            [
                label,
                f"**{report['metrics'][name]:.3f}**",
                _interval(report["intervals"].get(name)),
                _number(report["chance"].get(name)),
            ]
            for label, name in entries
        ]
        tables.append(f"## {heading}\n\n" + markdown_table(["metric", "value", "95 % interval", "chance"], rows))
    return "\n\n".join(tables)


def _paper_tables(report: Mapping[str, Any]) -> str:
    blocks = []
    for table in paper_tables([report]):
        body = [
            [
                f"*{row.name}*" if row.is_paper else f"**{row.name}**",
                *(_paper_cell(cell, row.is_paper) for cell in row.cells),
            ]
            for row in table.rows
        ]
        blocks.append(f"### {table.heading}\n\n" + markdown_table(["", *table.columns], body))
    if not blocks:
        return ""
    intro = "Rows in italics are printed in the paper, for its own data and candidates: the scale, not a contest."
    return "\n\n".join(["## Beside the paper", intro, *blocks])


def _paper_cell(cell: Cell | None, is_paper: bool) -> str:
    if cell is None:
        return NO_VALUE
    if is_paper:
        return f"*{cell.value:.3f}*"
    return f"**{cell.value:.3f}**" + (f" ({cell.interval[0]:.3f}-{cell.interval[1]:.3f})" if cell.interval else "")


def _class_table(report: Mapping[str, Any]) -> str:
    rows = [row for row in report["per_class"] if row["tracks"] == "test"]
    # Of a model without a text side the probe alone was measured.
    rows.sort(key=lambda row: (row["facet"], -row.get("roc_auc", row.get("probe_roc_auc", 0.0))))
    if not rows:
        return ""
    body = [
        [
            row["facet"],
            row["text"],
            str(row["positives"]),
            _number(row.get("roc_auc")),
            _interval(row.get("roc_auc_interval")),
            _number(row.get("pr_auc")),
            f"{row['chance_pr_auc']:.3f}",
            _number(row.get("probe_roc_auc")),
        ]
        for row in rows
    ]
    header = ["facet", "class", "tracks", "ROC-AUC", "95 % interval", "PR-AUC", "chance PR-AUC", "probe ROC-AUC"]
    return "## Classes\n\nChance ROC-AUC is 0.5.\n\n" + markdown_table(header, body)


def _query_table(report: Mapping[str, Any], query_set: str, worst: int) -> str:
    rows = sorted((row for row in report["per_query"] if row["query_set"] == query_set), key=lambda row: row["ap"])
    if not rows:
        return ""
    body = [
        [
            row["query"],
            str(row["relevant"]),
            f"{row['auc']:.3f}",
            f"{row['ap']:.3f}",
            f"{row['best_rank']:g}",
            " ".join(f"**{hit['track_id']}**" if hit["relevant"] else hit["track_id"] for hit in row["top"]),
        ]
        for row in [*rows[:worst], *(rows[max(worst, len(rows) - worst) :])]
    ]
    header = ["query", "tracks", "AUC", "AP", "best rank", "first hits (right ones bold)"]
    shown = f"the {worst} weakest and the {worst} strongest of {len(rows)}" if len(rows) > 2 * worst else "all"
    return f"## Queries by {query_set} ({shown})\n\n" + markdown_table(header, body)


def _interval(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else NO_VALUE


def _number(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.3f}"


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table; texts of users cannot break its cells."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

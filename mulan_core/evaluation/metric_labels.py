"""How metrics are called and grouped where people read them; shared by tables, pages and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SECTIONS: tuple[tuple[str, str], ...] = (
    ("tagging/", "Zero-shot tagging"),
    ("tagging/held_out/", "Zero-shot tagging, held-out combinations alone"),
    ("probe/", "Linear probe on the frozen vectors"),
    ("retrieval/title/", "Search by playlist title"),
    ("retrieval/description/", "Search by playlist description"),
    ("retrieval/text/", "Search by a track's own text"),
    ("retrieval/caption/", "Search by caption"),
    ("triplets/", "Text triplets (text tower alone)"),
)
"""Start of a metric's name, heading, in order of appearance. The longest start that fits counts."""

_WORDS = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "auc": "ROC-AUC", "map": "mAP"}


def metric_label(name: str) -> str:
    """A metric's flat name as people write it.

    >>> metric_label("tagging/held_out/genre/roc_auc"), metric_label("retrieval/title/map")
    ('tagging, held out, genre ROC-AUC', 'retrieval, title mAP')
    """
    *path, metric = name.split("/")
    return f"{', '.join(path).replace('_', ' ')} {_WORDS.get(metric, metric.replace('_', ' '))}".strip()


def grouped_metrics(report: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headings, each with its metrics as (label, name); headings without a metric are left out."""
    grouped: dict[str, list[tuple[str, str]]] = {start: [] for start, _ in SECTIONS}
    for name in report["metrics"]:
        start = max((start for start in grouped if name.startswith(start)), key=len, default=None)
        if start is not None:
            grouped[start].append((metric_label(name.removeprefix(start)), name))
    return [(heading, grouped[start]) for start, heading in SECTIONS if grouped[start]]


def behaviour_lines(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Behaviour, cost and parts of the set as (what, sentence); those that were measured."""
    behaviour, cost, lines = report.get("behaviour") or {}, report.get("cost") or {}, []
    for clip in ("silence", "noise"):
        if intrusion := behaviour.get(clip):
            lines.append(
                (
                    f"{clip} among the hits",
                    f"in {100 * intrusion['share']:.1f} % of {intrusion['queries']:,} queries among the first "
                    f"{intrusion['first_hits']}; any clip by chance {100 * intrusion['chance']:.1f} %",
                )
            )
    if negation := behaviour.get("negation"):
        lines.append(
            (
                "negation",
                f"\u201cno X\u201d scores below \u201cX\u201d on {100 * negation['below']:.0f} % of the tracks of X; "
                f"as a query for tracks without X its ROC-AUC is {negation['roc_auc']:.3f} (chance 0.5)",
            )
        )
    for side, what in (("text", "one query"), ("clip", "10 s of audio")):
        if (took := cost.get(f"encode_ms_{side}")) is not None:
            lines.append((f"encoding {what}", f"{took:.1f} ms, the median of {cost['runs']} on {cost['machine']}"))
    if cost.get("parameters"):
        lines.append(("parameters", f"{cost['parameters']:,}"))
    for row in report.get("slices") or ():
        if row["kind"] in ("source", "dataset"):
            lines.append(
                (
                    f"{row['kind']} {row['name']}",
                    f"{row['metric'].replace('_', ' ')} {row['value']:.3f} ({row['items']:,})",
                )
            )
    return lines

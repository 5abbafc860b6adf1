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

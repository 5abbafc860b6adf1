"""A comparison of two models as files: Markdown, a page, and JSON."""

from __future__ import annotations

from pathlib import Path

from mulan_core.evaluation.comparison import Comparison, Difference
from mulan_core.evaluation.page.comparison import to_html
from mulan_core.evaluation.report import NO_VALUE, markdown_table, to_json


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write compare.md, compare.html and compare.json to a folder; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "compare.md": to_markdown(comparison),
        "compare.html": to_html(comparison),
        "compare.json": to_json(comparison.as_mapping()),
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def to_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown: the verdict, every metric, the classes and queries that moved most."""
    title = comparison.about.get("title") or comparison.about.get("name") or "an unnamed set"
    parts = [f"# {comparison.name_b} against {comparison.name_a} on {title}", comparison.verdict()]
    header = ["metric", comparison.name_a, comparison.name_b, "difference", "95 % interval", "stands"]
    for heading, entries in comparison.grouped():
        rows = [[label, *_cells(difference)] for label, difference in entries]
        parts.append(f"## {heading}\n\n" + markdown_table(header, rows))
    for word, classes in zip(("gained", "lost"), comparison.moved_classes(), strict=True):
        if classes:
            rows = [[change.difference.name, str(change.positives), *_cells(change.difference)] for change in classes]
            header = ["class", "tracks", comparison.name_a, comparison.name_b, "difference", "95 % interval", "stands"]
            parts.append(f"## Classes that {word} most (ROC-AUC)\n\n" + markdown_table(header, rows))
    header = ["query", "tracks", comparison.name_a, comparison.name_b, "difference"]
    for kind, moved in comparison.moved_queries().items():
        for word, queries in zip(("gained", "lost"), moved, strict=True):
            if queries:
                rows = [
                    [change.difference.name, str(change.relevant), *_cells(change.difference)[:3]] for change in queries
                ]
                parts.append(f"## Queries by {kind} that {word} most (AP)\n\n" + markdown_table(header, rows))
    parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in (comparison.method(), *comparison.notes)))
    return "\n\n".join(parts) + "\n"


def _cells(difference: Difference) -> list[str]:
    interval = f"{difference.interval[0]:+.3f} to {difference.interval[1]:+.3f}" if difference.interval else NO_VALUE
    stands = ("better" if difference.gain > 0 else "worse") if difference.stands else ""
    return [f"{difference.a:.3f}", f"{difference.b:.3f}", f"**{difference.value:+.3f}**", interval, stands]

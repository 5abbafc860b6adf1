"""A comparison of two models as files: Markdown, a page, and JSON."""

from __future__ import annotations

from pathlib import Path

from mulan_core.evaluation.comparison import Comparison, Difference
from mulan_core.evaluation.page.comparison import to_html
from mulan_core.evaluation.report import NO_VALUE, markdown_table, to_json


def write_comparison(found: Comparison, folder: Path) -> list[Path]:
    """Write compare.md, compare.html and compare.json to a folder; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "compare.md": to_markdown(found),
        "compare.html": to_html(found),
        "compare.json": to_json(found.as_mapping()),
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def to_markdown(found: Comparison) -> str:
    """The comparison as Markdown: the verdict, every metric, the classes and queries that moved most."""
    title = found.about.get("title") or found.about.get("name") or "an unnamed set"
    parts = [f"# {found.name_b} against {found.name_a} on {title}", found.verdict()]
    header = ["metric", found.name_a, found.name_b, "difference", "95 % interval", "stands"]
    for heading, of_heading in found.grouped():
        rows = [[label, *_cells(one)] for label, one in of_heading]
        parts.append(f"## {heading}\n\n" + markdown_table(header, rows))
    for word, classes in zip(("gained", "lost"), found.moved_classes(), strict=True):
        if classes:
            rows = [[one.difference.name, str(one.positives), *_cells(one.difference)] for one in classes]
            header = ["class", "tracks", found.name_a, found.name_b, "difference", "95 % interval", "stands"]
            parts.append(f"## Classes that {word} most (ROC-AUC)\n\n" + markdown_table(header, rows))
    header = ["query", "tracks", found.name_a, found.name_b, "difference"]
    for kind, moved in found.moved_queries().items():
        for word, queries in zip(("gained", "lost"), moved, strict=True):
            if queries:
                rows = [[one.difference.name, str(one.relevant), *_cells(one.difference)[:3]] for one in queries]
                parts.append(f"## Queries by {kind} that {word} most (AP)\n\n" + markdown_table(header, rows))
    parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in (found.method(), *found.notes)))
    return "\n\n".join(parts) + "\n"


def _cells(one: Difference) -> list[str]:
    interval = f"{one.interval[0]:+.3f} to {one.interval[1]:+.3f}" if one.interval else NO_VALUE
    stands = ("better" if one.gain > 0 else "worse") if one.stands else ""
    return [f"{one.a:.3f}", f"{one.b:.3f}", f"**{one.value:+.3f}**", interval, stands]

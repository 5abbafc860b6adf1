"""What the commands print: the evaluation beside chance, stages with their times, hits of a search."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

console = Console(file=sys.__stdout__)


def print_json(value: Any) -> None:
    """Print what a machine reads, and nothing else."""
    print(json.dumps(value, indent=1, default=str))  # noqa: T201


def show_evaluation(report: dict[str, Any]) -> None:
    """Print every metric of a report beside chance, with its 95 % interval."""
    test = report["set"]
    table = Table("metric", title=f"Evaluation: {test['name']}, {test['counts']['test_tracks']} tracks")
    for heading in ("value", "95 % interval", "chance"):
        table.add_column(heading, justify="right")
    for name, value in report["metrics"].items():
        low_high, chance = report["intervals"].get(name), report["chance"].get(name)
        table.add_row(
            name,
            f"{value:.3f}",
            f"{low_high[0]:.3f} - {low_high[1]:.3f}" if low_high else "",
            f"{chance:.3f}" if chance is not None else "",
        )
    console.print(table)
    for note in report["notes"]:
        console.print(f"note: {note}", highlight=False)


def show_stages(stages: dict[str, float]) -> None:
    """Print how long each stage took."""
    table = Table("stage", title="Time")
    table.add_column("seconds", justify="right")
    for stage, seconds in stages.items():
        table.add_row(stage, f"{seconds:.1f}")
    table.add_row("all", f"{sum(stages.values()):.1f}", style="bold")
    console.print(table)


def show_hits(query: str, answer: dict[str, Any]) -> None:
    """Print the hits of a search with the release that gave them and the time it took."""
    table = Table("", "track", "title", "labels", title=f'"{query}"')
    table.add_column("score", justify="right")
    for place, hit in enumerate(answer["hits"], start=1):
        labels = ", ".join(label.partition(":")[2] or label for label in hit["labels"])
        table.add_row(str(place), hit["track_id"], hit["title"], labels, f"{hit['score']:.3f}")
    console.print(table)
    timing, release = answer["timing_ms"], answer["release"]
    console.print(
        f"release {release['model_version']} ({release['collection']}), {timing['total']:.0f} ms "
        f"(encode {timing['encode']:.0f}, search {timing['search']:.0f})",
        highlight=False,
    )

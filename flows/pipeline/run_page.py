"""What a finished run of ``end_to_end`` leaves in Prefect to be read: a page with tables, curves and links."""

from __future__ import annotations

from typing import Any

from flows.pipeline.words import edits_words, recall_words
from flows.runtime.session import Session
from flows.runtime.tracking import tracking
from mulan_core.counts import counted

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 48
"""Points of a curve, and of the longest bar."""


def run_page(result: dict[str, Any], session: Session) -> str:
    """The page of a run in Markdown; Prefect shows nothing else, so its curves are drawn with letters."""
    lines = _headline(result) + _links(result, session)
    if "evaluate" in result:
        lines += _metrics(result["evaluate"])
    lines += _curves(result["train"]["run_id"], session) if "train" in result else []
    lines += _data(result["prepare"]) + _stages(session.stages)
    return "\n".join(lines)


def _headline(result: dict[str, Any]) -> list[str]:
    edits = [f"- {words}" for words in edits_words(result.get("serve", result.get("index", {})).get("edits"))]
    if "skipped" in result:
        return ["# Not trained", "", result["skipped"], *(["", *edits] if edits else []), ""]
    gate = result["register"]
    word = "passed" if gate["passed"] else "was refused by"
    lines = [f"# Version {gate['version']} {word} the gate", ""]
    lines += [f"- {reason}" for reason in (*gate["reasons"], *gate["notes"])]
    if "index" in result:
        built = result["index"]
        recall = f", recall@10 {recall_words(built)}" if "recall_at_10" in built else ""
        lines += [f"- {counted(built['count'], 'track')} in `{built['collection']}`{recall}"]
    return [*lines, *edits, ""]


def _links(result: dict[str, Any], session: Session) -> list[str]:
    uri = session.settings.mlflow_uri
    lines = []
    if "train" in result:
        run_id = result["train"]["run_id"]
        if uri.startswith("http"):
            with tracking(uri) as client:
                experiment = client.get_run(run_id).info.experiment_id
            run = f"{uri}/#/experiments/{experiment}/runs/{run_id}"
            lines.append(f"- MLflow: [run]({run}), [report]({run}/artifacts/evaluation/report.html)")
            version = f"{uri}/#/models/{session.registry.name}/versions/{result['register']['version']}"
            lines.append(f"- Release: [version {result['register']['version']}]({version})")
        else:
            lines.append(f"- MLflow run `{run_id}`: `mulan ui` shows it")
    if "serve" in result:
        url = result["serve"]["url"]
        lines.append(f"- Served: [search page]({url}/), [release]({url}/v1/release)")
    return ["## Where it is", "", *lines, ""] if lines else []


def _metrics(report: dict[str, Any]) -> list[str]:
    lines = ["## Quality", "", "| metric | value | 95 % interval | chance | |", "|---|---:|---|---:|---|"]
    for name, value in sorted(report["metrics"].items()):
        interval = report["intervals"].get(name)
        between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        chance = report["chance"].get(name)
        drawn = f"`{'█' * round(value * 20)}`" if chance is not None and 0 < value <= 1 else ""
        lines.append(
            f"| {name} | {value:.3f} | {between} | {'' if chance is None else format(chance, '.3f')} | {drawn} |"
        )
    return [*lines, ""]


def _curves(run_id: str, session: Session) -> list[str]:
    lines = ["## Training", "", "| | first | curve | last |", "|---|---:|---|---:|"]
    with tracking(session.settings.mlflow_uri) as client:
        for name in ("loss", "valid/loss", "tau", "clips_per_s"):
            points = sorted(client.get_metric_history(run_id, name), key=lambda point: point.step)
            values = [point.value for point in points]
            if values:
                lines.append(f"| {name} | {values[0]:.3g} | `{sparkline(values)}` | {values[-1]:.3g} |")
    return [*lines, ""]


def sparkline(values: list[float]) -> str:
    """A curve in one line of text, of at most ``WIDTH`` letters.

    >>> sparkline([3.0, 2.0, 1.0])
    '█▅▁'
    """
    count = min(len(values), WIDTH)
    shown = [values[round(i * (len(values) - 1) / max(1, count - 1))] for i in range(count)]
    low, span = min(shown), max(shown) - min(shown)
    return "".join(BLOCKS[round((value - low) / span * (len(BLOCKS) - 1)) if span else 0] for value in shown)


def _data(counts: dict[str, Any]) -> list[str]:
    splits = ", ".join(f"{number:,} {split}" for split, number in counts["splits"].items())
    changes = ", ".join(f"{number:,} {change}" for change, number in counts["changes"].items())
    quarantined = ", ".join(f"{number:,} {reason}" for reason, number in counts["quarantined"].items()) or "none"
    lines = ["## Data", "", f"- `{counts['data_hash']}`: {splits}", f"- since the run before: {changes}"]
    return [*lines, f"- in quarantine: {quarantined}", ""]


def _stages(stages: dict[str, float]) -> list[str]:
    longest = max(stages.values(), default=0.0) or 1.0
    lines = ["## Time", "", "| stage | seconds | |", "|---|---:|---|"]
    return lines + [
        f"| {name} | {seconds:.1f} | `{'█' * max(1, round(seconds / longest * 20))}` |"
        for name, seconds in stages.items()
    ]

"""The first screen: is the model good? Its main metrics beside chance and beside the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from mulan_core.evaluation.page.charts import bar
from mulan_core.evaluation.paper import MODEL, paper_value

Report = Mapping[str, Any]

_SEARCH = {
    "title": "Search by title",
    "description": "Search by description",
    "text": "Search by a track's text",
    "caption": "Search by caption",
}


@dataclass(frozen=True)
class Headline:
    """One main metric: a facet tagged, a kind of search, a set of triplets."""

    title: str
    metric: str
    unit: str
    beside: tuple[tuple[str, str], ...]
    """Further metrics of the same measure, (unit, metric)."""


def headlines(report: Report) -> list[Headline]:
    """The main metrics that a report has: ROC-AUC of every facet and search, accuracy of every set of triplets."""
    metrics = report["metrics"]
    measures = []
    for metric in metrics:
        match metric.split("/"):
            case ["tagging", facet, "roc_auc"]:
                beside = (("PR-AUC", f"tagging/{facet}/pr_auc"), ("linear probe", f"probe/{facet}/roc_auc"))
                measures.append(Headline(f"{facet.capitalize()} tagging", metric, "ROC-AUC", beside))
            case ["probe", facet, "roc_auc"] if f"tagging/{facet}/roc_auc" not in metrics:
                measures.append(
                    Headline(f"Linear probe, {facet}", metric, "ROC-AUC", (("PR-AUC", f"probe/{facet}/pr_auc"),))
                )
            case ["retrieval", kind, "auc"]:
                start = f"retrieval/{kind}"
                beside = (("mAP", f"{start}/map"), ("recall@10", f"{start}/recall_at_10"))
                measures.append(Headline(_SEARCH.get(kind, f"Search by {kind}"), metric, "ROC-AUC", beside))
            case ["triplets", name, "accuracy"]:
                measures.append(Headline(f"{name.capitalize()} triplets", metric, "accuracy", ()))
    return measures


def is_above_chance(report: Report, metric: str) -> bool:
    """Whether the whole interval of a metric (the value, where it has none) lies above chance."""
    interval = report["intervals"].get(metric)
    return bool((interval[0] if interval else report["metrics"][metric]) > report["chance"].get(metric, 0.5))


def verdict(report: Report) -> str:
    """One or two sentences: what beats chance, what is strongest and weakest."""
    measures = headlines(report)
    if not measures:
        return ""
    lost = [measure for measure in measures if not is_above_chance(report, measure.metric)]
    if not lost:
        all_of = {1: "The main measure is", 2: "Both main measures are"}.get(
            len(measures), f"All {len(measures)} main measures are"
        )
        text = f"{all_of} clearly above chance."
    else:
        names = ", ".join(measure.title for measure in lost)
        text = f"{len(measures) - len(lost)} of {len(measures)} main measures are clearly above chance; not: {names}."
    if len(measures) > 1:
        ranked = sorted(measures, key=lambda measure: -float(report["metrics"][measure.metric]))
        best, worst = ranked[0], ranked[-1]
        text += (
            f" Strongest: {best.title} ({report['metrics'][best.metric]:.3f}); "
            f"weakest: {worst.title} ({report['metrics'][worst.metric]:.3f})."
        )
    return text


def cards(report: Report) -> str:
    """A card for each main metric, and what the paper's ticks are."""
    measures = headlines(report)
    printed = [cell[1] for measure in measures if (cell := paper_value(report, measure.metric))]
    note = ""
    if printed:
        note = f"Paper: {MODEL} on the paper's own sets ({escape(', '.join(printed))}); for the scale. "
    about = f'<p class="about">{note}Chance: a random ranking.</p>' if measures else ""
    return f'<div class="cards">{"".join(_card(report, measure) for measure in measures)}</div>{about}'


def _card(report: Report, measure: Headline) -> str:
    value, chance = report["metrics"][measure.metric], report["chance"].get(measure.metric)
    interval, paper = report["intervals"].get(measure.metric), paper_value(report, measure.metric)
    facts = []
    if interval:
        facts.append(f"95\u00a0% interval {interval[0]:.3f} to {interval[1]:.3f}")
    marks = []
    if chance is not None:
        marks.append(f'<span class="key chance">chance {chance:.3f}</span>')
    if paper is not None:
        number, _ = paper
        marks.append(f'<span class="key paper">paper {number:.3f}</span>')
    for unit, metric in measure.beside:
        if metric in report["metrics"]:
            level = report["chance"].get(metric)
            beside = f" (chance {level:.3f})" if level is not None and unit != "linear probe" else ""
            facts.append(f"{unit} {report['metrics'][metric]:.3f}{beside}")
    weak = "" if is_above_chance(report, measure.metric) else ' <em class="weak">not above chance</em>'
    drawn = bar(value, interval=interval, chance=chance, paper=paper and paper[0], label=f"{measure.title} {value:.3f}")
    return (
        f'<article class="card"><h3>{escape(measure.title)}</h3>'
        f'<p class="number">{value:.3f} <small>{measure.unit}</small>{weak}</p>{drawn}'
        f'<p class="keys">{"".join(marks)}</p><p class="facts">{" · ".join(facts)}</p></article>'
    )

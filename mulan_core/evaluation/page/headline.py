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
    found = []
    for metric in metrics:
        match metric.split("/"):
            case ["tagging", facet, "roc_auc"]:
                beside = (("PR-AUC", f"tagging/{facet}/pr_auc"), ("linear probe", f"probe/{facet}/roc_auc"))
                found.append(Headline(f"{facet.capitalize()} tagging", metric, "ROC-AUC", beside))
            case ["probe", facet, "roc_auc"] if f"tagging/{facet}/roc_auc" not in metrics:
                found.append(
                    Headline(f"Linear probe, {facet}", metric, "ROC-AUC", (("PR-AUC", f"probe/{facet}/pr_auc"),))
                )
            case ["retrieval", kind, "auc"]:
                start = f"retrieval/{kind}"
                beside = (("mAP", f"{start}/map"), ("recall@10", f"{start}/recall_at_10"))
                found.append(Headline(_SEARCH.get(kind, f"Search by {kind}"), metric, "ROC-AUC", beside))
            case ["triplets", name, "accuracy"]:
                found.append(Headline(f"{name.capitalize()} triplets", metric, "accuracy", ()))
    return found


def is_above_chance(report: Report, metric: str) -> bool:
    """Whether the whole interval of a metric (the value, where it has none) lies above chance."""
    interval = report["intervals"].get(metric)
    return bool((interval[0] if interval else report["metrics"][metric]) > report["chance"].get(metric, 0.5))


def verdict(report: Report) -> str:
    """One or two sentences: what beats chance, what is strongest and weakest."""
    found = headlines(report)
    if not found:
        return ""
    lost = [one for one in found if not is_above_chance(report, one.metric)]
    if not lost:
        all_of = {1: "The main measure is", 2: "Both main measures are"}.get(
            len(found), f"All {len(found)} main measures are"
        )
        said = f"{all_of} clearly above chance."
    else:
        names = ", ".join(one.title for one in lost)
        said = f"{len(found) - len(lost)} of {len(found)} main measures are clearly above chance; not: {names}."
    beside = [report["metrics"][one.metric] >= p[0] for one in found if (p := paper_value(report, one.metric))]
    if beside:
        if len(beside) == 1:
            said += f" The paper's value, on its own set, is {'reached' if beside[0] else 'not reached'}."
        else:
            said += f" Of the paper's {len(beside)} values for them, on its own sets, {sum(beside)} are reached."
    if len(found) > 1:
        ranked = sorted(found, key=lambda one: -float(report["metrics"][one.metric]))
        best, worst = ranked[0], ranked[-1]
        said += (
            f" Strongest: {best.title} ({report['metrics'][best.metric]:.3f}); "
            f"weakest: {worst.title} ({report['metrics'][worst.metric]:.3f})."
        )
    return said


def cards(report: Report) -> str:
    """A card for each main metric, and what the paper's ticks are."""
    found = headlines(report)
    printed = [place[1] for one in found if (place := paper_value(report, one.metric))]
    said = ""
    if printed:
        said = f"Paper: {MODEL} on the paper's own sets ({escape(', '.join(printed))}); for the scale. "
    about = f'<p class="about">{said}Chance: a random ranking.</p>' if found else ""
    return f'<div class="cards">{"".join(_card(report, one) for one in found)}</div>{about}'


def _card(report: Report, one: Headline) -> str:
    value, chance = report["metrics"][one.metric], report["chance"].get(one.metric)
    interval, paper = report["intervals"].get(one.metric), paper_value(report, one.metric)
    facts = []
    if interval:
        facts.append(f"95\u00a0% interval {interval[0]:.3f} to {interval[1]:.3f}")
    marks = []
    if chance is not None:
        marks.append(f'<span class="key chance">chance {chance:.3f}</span>')
    if paper is not None:
        number, _ = paper
        marks.append(f'<span class="key paper">paper {number:.3f}</span>')
    for unit, metric in one.beside:
        if metric in report["metrics"]:
            level = report["chance"].get(metric)
            beside = f" (chance {level:.3f})" if level is not None and unit != "linear probe" else ""
            facts.append(f"{unit} {report['metrics'][metric]:.3f}{beside}")
    weak = "" if is_above_chance(report, one.metric) else ' <em class="weak">not above chance</em>'
    drawn = bar(value, interval=interval, chance=chance, paper=paper and paper[0], said=f"{one.title} {value:.3f}")
    return (
        f'<article class="card"><h3>{escape(one.title)}</h3>'
        f'<p class="number">{value:.3f} <small>{one.unit}</small>{weak}</p>{drawn}'
        f'<p class="keys">{"".join(marks)}</p><p class="facts">{" · ".join(facts)}</p></article>'
    )

"""One self-contained HTML page of an evaluation: no script, no request, light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.page import sections
from mulan_core.evaluation.page.headline import cards, verdict


def to_html(report: Mapping[str, Any], evidence: Evidence) -> str:
    """The page of a report.

    Args:
        report: of the suite.
        evidence: what it was computed from; the curves, histograms, the map and the labels of hits come from it.
    """
    about = report["set"]
    title = about.get("title") or about.get("name") or "an unnamed set"
    model = about.get("model", {}).get("name", "the model")
    counts = about["counts"]
    sizes = [
        f"{counts[key]:,} {words}"
        for key, words in (
            ("test_tracks", "test tracks"),
            ("classes", "classes"),
            ("playlists", "playlists"),
            ("triplets", "triplets"),
        )
        if counts.get(key)
    ]
    head = (
        f'<header><p class="kind">MuLan evaluation</p><h1>{escape(model)} <span>on</span> {escape(title)}</h1>'
        f'<p class="verdict">{escape(verdict(report))}</p><p class="about">{escape(" · ".join(sizes))}</p></header>'
    )
    body = [
        cards(report),
        sections.tables([report]),
        sections.classes(report),
        sections.precision(report, evidence),
        sections.scores(report, evidence),
        sections.queries(report, evidence),
        sections.maps(evidence),
        sections.metrics(report),
        sections.behaviour(report),
        sections.protocol(report),
    ]
    return document(f"{model} on {title}", head + "<main>" + "".join(body) + "</main>")


def index_html(model: str, reports: Mapping[str, Mapping[str, Any]], pages: Mapping[str, str]) -> str:
    """The page of one model on several sets: the main metrics of each, and the paper's tables over all of them.

    Args:
        model: its name.
        reports: name of a set -> its report.
        pages: name of a set -> the relative address of its page.
    """
    sets = []
    for name, report in reports.items():
        title = escape(report["set"].get("title") or name)
        linked = f'<a href="{escape(pages[name])}">{title}</a>' if name in pages else title
        about = escape(verdict(report))
        sets.append(f'<section><h2>{linked}</h2><p class="about">{about}</p>{cards(report)}</section>')
    head = (
        f'<header><p class="kind">MuLan evaluation</p><h1>{escape(model)} <span>on</span> {len(reports)} '
        f"{'set' if len(reports) == 1 else 'sets'}</h1></header>"
    )
    body = f"<main>{''.join(sets)}{sections.tables(list(reports.values()))}</main>"
    return document(f"{model}, evaluation", head + body)


def document(title: str, body: str) -> str:
    """An HTML document with the page's style; the body's texts must be escaped already."""
    style = files(__name__).joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body>{body}</body></html>\n"
    )

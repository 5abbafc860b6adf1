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
        sections.protocol(report),
    ]
    return document(f"{model} on {title}", head + "<main>" + "".join(body) + "</main>")


def document(title: str, body: str) -> str:
    """An HTML document with the page's style; the body's texts must be escaped already."""
    style = files(__name__).joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body>{body}</body></html>\n"
    )

"""The sections of the report's page; each gives its HTML, or nothing where there is nothing to show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.metric_labels import behaviour_lines, grouped_metrics
from mulan_core.evaluation.page import charts, numbers
from mulan_core.evaluation.paper import Cell, PaperTable, Row, paper_tables
from mulan_core.evaluation.tagging import split_label

Report = Mapping[str, Any]

SHOWN_CLASSES = 40
"""Classes of one facet that are open at first; the rest is folded away."""
SHOWN_QUERIES = 6
NAMED_LABELS = 4
"""Labels of a hit that are named."""
QUERY_SETS = {"title": "titles", "description": "descriptions", "text": "tracks' own texts", "caption": "captions"}


def section(heading: str, body: str, about: str = "") -> str:
    """A section; nothing without a body. Texts of users must be escaped already."""
    if not body:
        return ""
    introduction = f'<p class="about">{about}</p>' if about else ""
    return f"<section><h2>{heading}</h2>{introduction}{body}</section>"


def tables(reports: Sequence[Report]) -> str:
    """Tables 4, 5 and 6, our rows first."""
    body = "".join(_paper_table(table) for table in paper_tables(reports))
    about = (
        "Rows in italics are printed in the paper (some of them quote others) and were measured on its own data, "
        "playlists and candidates: they give the scale, not a contest. Our rows come first, with their 95 % intervals."
    )
    return section("Beside the paper", body, about)


def classes(report: Report) -> str:
    """ROC-AUC of every class, one list a facet, the weakest first."""
    rows = [row for row in report["per_class"] if row["tracks"] == "test"]
    measure = "roc_auc" if any("roc_auc" in row for row in rows) else "probe_roc_auc"
    rows = [row for row in rows if measure in row]
    if not rows:
        return ""
    lows = [min([row[measure], *(row.get(f"{measure}_interval") or [])]) for row in rows]
    low = max(0.0, min(0.4, min(lows) - 0.03))
    blocks = []
    for facet in dict.fromkeys(row["facet"] for row in rows):
        facet_rows = sorted((row for row in rows if row["facet"] == facet), key=lambda row: row[measure])
        lines = [_class_line(row, measure, low) for row in facet_rows]
        folded = ""
        if len(lines) > SHOWN_CLASSES:
            folded = f"<details><summary>{len(lines) - SHOWN_CLASSES} more</summary>{''.join(lines[SHOWN_CLASSES:])}"
            folded += "</details>"
        blocks.append(
            f'<div class="panel"><h3>{escape(facet)} <small>{len(lines)} classes</small></h3>'
            f"{''.join(lines[:SHOWN_CLASSES])}{folded}</div>"
        )
    probed = any("probe_roc_auc" in row for row in rows) and measure == "roc_auc"
    probe_key = '<span class="key probe">linear probe</span>' if probed else ""
    legend = (
        f'<p class="keys"><span class="key value">{"zero-shot" if measure == "roc_auc" else "linear probe"} ROC-AUC, '
        f'95 % interval</span><span class="key chance">chance 0.500</span>{probe_key}</p>'
    )
    about = f"In brackets: test tracks that have the class. The scale goes from {low:.2f} to 1; the weakest come first."
    return section("Classes", f'{legend}<div class="columns">{"".join(blocks)}</div>', about)


def precision(report: Report, evidence: Evidence) -> str:
    """Precision over recall, one plot a facet: every class, and their mean."""
    scores_NC = evidence.class_scores()
    figures = []
    for facet, columns in _facets(report, evidence).items():
        lines = []
        for c in columns:
            curve_K = numbers.interpolated_precision(scores_NC[:, c], evidence.positives_NC[:, c])
            lines.append((split_label(evidence.classes[c])[1], numbers.RECALLS, curve_K, "line"))
        mean_K = np.mean([curve_K for _, _, curve_K, _ in lines], axis=0)
        lines.append((f"mean of {len(columns)} classes", numbers.RECALLS, mean_K, "mean"))
        chance = report["chance"].get(f"tagging/{facet}/pr_auc")
        figures.append(_figure(facet, charts.curves(lines, chance)))
    legend = (
        '<p class="keys"><span class="key mean">mean of the classes</span><span class="key each">a class</span>'
        '<span class="key level">chance PR-AUC</span></p>'
    )
    about = "Interpolated: the best precision at this recall or beyond."
    return section("Precision and recall", _wrapped(legend, figures), about)


def scores(report: Report, evidence: Evidence) -> str:
    """How far apart the cosines of right and wrong pairs lie."""
    scores_NC = evidence.class_scores()
    counted = {
        f"tracks and their {facet}": numbers.class_histogram(scores_NC, evidence.positives_NC, columns)
        for facet, columns in _facets(report, evidence).items()
    }
    for name in dict.fromkeys(evidence.query_sets):
        counted[f"{QUERY_SETS.get(name, name)} and tracks"] = numbers.query_histogram(evidence, name)
    for name in dict.fromkeys(evidence.pair_sets):
        counted[f"{name}: names and descriptions"] = numbers.pair_histogram(evidence, name)
    figures = [
        _figure(
            name, charts.histograms(histogram), f"{histogram.num_right:,} right, {histogram.num_wrong:,} wrong pairs"
        )
        for name, histogram in counted.items()
        if histogram is not None
    ]
    legend = '<p class="keys"><span class="key right">right pairs</span><span class="key wrong">wrong pairs</span></p>'
    about = "Cosines of texts with what they describe and with what they do not; each colour adds up to 100\u00a0%."
    return section("Scores", _wrapped(legend, figures), about)


def queries(report: Report, evidence: Evidence) -> str:
    """The hardest queries of each kind with their first hits."""
    labels = _labels_of_tracks(evidence)
    blocks = []
    for name in dict.fromkeys(row["query_set"] for row in report["per_query"]):
        rows = sorted(
            (row for row in report["per_query"] if row["query_set"] == name), key=lambda row: (row["ap"], row["auc"])
        )
        hardest = "".join(_query(row, labels) for row in rows[:SHOWN_QUERIES])
        best = rows[max(SHOWN_QUERIES, len(rows) - SHOWN_QUERIES) :][::-1]
        strongest = "".join(_query(row, labels) for row in best)
        folded = f"<details><summary>the {len(best)} strongest</summary>{_grid(strongest)}</details>" if best else ""
        blocks.append(
            f"<h3>By {escape(QUERY_SETS.get(name, name))} <small>the {min(len(rows), SHOWN_QUERIES)} hardest of "
            f"{len(rows):,}</small></h3>{_grid(hardest)}{folded}"
        )
    about = "By average precision. Hits that answer the query are marked ✓; behind a track stand its labels."
    return section("Hardest queries", "".join(blocks), about)


def maps(evidence: Evidence) -> str:
    """The tracks on two principal components, once for each facet, coloured by its most frequent classes."""
    if len(evidence.track_ids) < 3 or not evidence.classes:
        return ""
    points_N2, share = numbers.principal_plane(evidence.tracks_ND)
    shown = numbers.evenly(np.arange(len(points_N2)), numbers.MAX_POINTS)
    labels = _labels_of_tracks(evidence)
    facets: dict[str, list[int]] = {}
    for c, label in enumerate(evidence.classes):
        facets.setdefault(split_label(label)[0], []).append(c)
    figures = []
    for facet, columns in facets.items():
        counts = evidence.positives_NC[:, columns].sum(axis=0)
        frequent = [columns[i] for i in np.argsort(-counts, kind="stable")[: charts.COLOURS] if counts[i]]
        if not frequent:
            continue
        positives = evidence.positives_NC[np.ix_(shown, frequent)]
        colours = [int(row.argmax()) if row.any() else None for row in positives]
        names = [f"{evidence.track_ids[n]}: {', '.join(labels[evidence.track_ids[n]]) or 'no label'}" for n in shown]
        keys = "".join(
            f'<span class="key c{i}">{escape(split_label(evidence.classes[c])[1])}</span>'
            for i, c in enumerate(frequent)
        )
        rest = '<span class="key other">others</span>' if None in colours else ""
        drawn = charts.scatter(points_N2[shown], colours, names)
        figures.append(_figure(facet, f'{drawn}<p class="keys">{keys}{rest}</p>'))
    extent = f"{len(shown):,} of {len(points_N2):,}" if len(shown) < len(points_N2) else f"All {len(shown):,}"
    about = (
        f"{extent} test tracks on the first two principal components of their vectors, which hold {100 * share:.0f} % "
        "of the variance. Tracks that sound alike to the model lie together. A track with several classes has the "
        "colour of the most frequent one."
    )
    return section("Map of the tracks", _wrapped("", figures), about)


def metrics(report: Report) -> str:
    """Every number of the report."""
    blocks = []
    for heading, entries in grouped_metrics(report):
        body = []
        for label, name in entries:
            interval, chance = report["intervals"].get(name), report["chance"].get(name)
            shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-"
            body.append(
                f"<tr><th>{escape(label)}</th><td><b>{report['metrics'][name]:.3f}</b></td><td>{shown}</td>"
                f"<td>{'-' if chance is None else f'{chance:.3f}'}</td></tr>"
            )
        head = "<tr><th>metric</th><td>value</td><td>95 % interval</td><td>chance</td></tr>"
        table = f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"
        blocks.append(f'<div class="panel"><h3>{escape(heading)}</h3><div class="wide">{table}</div></div>')
    return section("All metrics", f'<div class="columns two">{"".join(blocks)}</div>' if blocks else "")


def behaviour(report: Report) -> str:
    """How it behaves where nothing is to be found, what it costs, and how parts of the set fare."""
    rows = "".join(f"<dt>{escape(what)}</dt><dd>{escape(sentence)}</dd>" for what, sentence in behaviour_lines(report))
    return section("Behaviour and cost", f'<div class="panel"><dl>{rows}</dl></div>' if rows else "")


def protocol(report: Report) -> str:
    """What was measured, on what, how; and what was left out."""
    about, how = report["set"], report["set"]["protocol"]
    model = about.get("model", {})
    facts: list[tuple[str, Any]] = [
        ("set", " · ".join(str(about[key]) for key in ("name", "title") if about.get(key))),
        ("split", about.get("split")),
        ("class list", about.get("class_list")),
        ("suites", ", ".join(about.get("suites", ()))),
        ("counts", ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in about["counts"].items())),
        ("skipped classes", "; ".join(f"{name} ({why})" for name, why in about.get("skipped_classes", {}).items())),
        ("templates", ", ".join(how.get("templates", ()))),
        ("windows", how.get("window_policy") if about["counts"].get("test_tracks") else None),
        ("intervals", f"95 %, {how.get('bootstrap')} bootstrap resamples, seed {how.get('seed')}"),
        ("probe strength", how.get("probe_strength")),
        ("triplets", how.get("triplets")),
        ("model", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in model.items() if key[:4] != "has_")),
        ("data hash", about.get("data_hash")),
        ("audio hash", about.get("audio_hash")),
        ("set hash", about["hash"]),
    ]
    rows = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts if value not in (None, ""))
    notes = "".join(f"<li>{escape(note)}</li>" for note in report["notes"])
    notes_block = f'<h3>Notes</h3><ul class="notes">{notes}</ul>' if notes else ""
    return section("How it was measured", f'<div class="panel"><dl>{rows}</dl>{notes_block}</div>')


def _paper_table(table: PaperTable) -> str:
    head = "".join(f"<td>{escape(name)}</td>" for name in table.columns)
    body = "".join(_paper_row(row) for row in table.rows)
    return (
        f'<div class="panel"><h3>{escape(table.heading)}</h3><div class="wide"><table class="paper">'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _paper_row(row: Row) -> str:
    cells = "".join(f"<td>{_cell(cell)}</td>" for cell in row.cells)
    return f'<tr class="{"printed" if row.is_paper else "ours"}"><th>{escape(row.name)}</th>{cells}</tr>'


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return '<span class="none">-</span>'
    if cell.interval is None:
        return f"{cell.value:.3f}"
    return f"{cell.value:.3f}<small>{cell.interval[0]:.3f} to {cell.interval[1]:.3f}</small>"


def _class_line(row: Mapping[str, Any], measure: str, low: float) -> str:
    value, interval = row[measure], row.get(f"{measure}_interval")
    probe = row.get("probe_roc_auc") if measure == "roc_auc" else None
    shown = f", {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    probed = f", probe {probe:.3f}" if probe is not None else ""
    drawn = charts.bar(
        value,
        interval=interval,
        chance=0.5,
        probe=probe,
        low=low,
        label=f"{row['text']}: {value:.3f}{shown}{probed}",
    )
    return (
        f'<div class="line" title="{escape(row["text"])}: {value:.3f}{shown}{probed}"><span class="label">'
        f"{escape(row['text'])} <small>({row['positives']:,})</small></span>{drawn}<b>{value:.3f}</b></div>"
    )


def _facets(report: Report, evidence: Evidence) -> dict[str, list[int]]:
    """Facet -> columns of the classes that zero-shot tagging measured."""
    measured = {row["label"] for row in report["per_class"] if row["tracks"] == "test" and "roc_auc" in row}
    facets: dict[str, list[int]] = {}
    for c, label in enumerate(evidence.classes):
        if label in measured:
            facets.setdefault(split_label(label)[0], []).append(c)
    return facets


def _labels_of_tracks(evidence: Evidence) -> dict[str, list[str]]:
    texts = [split_label(label)[1] for label in evidence.classes]
    return {
        track_id: [texts[c] for c in np.flatnonzero(positives_C)]
        for track_id, positives_C in zip(evidence.track_ids, evidence.positives_NC, strict=True)
    }


def _query(row: Mapping[str, Any], labels: Mapping[str, Sequence[str]]) -> str:
    hits = []
    for hit in row["top"]:
        hit_labels = labels.get(hit["track_id"], ())
        more = f" +{len(hit_labels) - NAMED_LABELS}" if len(hit_labels) > NAMED_LABELS else ""
        hits.append(
            f'<li class="{"hit" if hit["relevant"] else "miss"}"><span>{escape(hit["track_id"])}'
            f"<small>{escape(', '.join(hit_labels[:NAMED_LABELS]))}{more}</small></span>"
            f"<span>{hit['score']:.3f}</span></li>"
        )
    answers = f"{row['relevant']:,} right {'track' if row['relevant'] == 1 else 'tracks'}"
    return (
        f'<article class="query"><h4>{escape(row["query"])}</h4><p class="facts">AP {row["ap"]:.3f} · ROC-AUC '
        f"{row['auc']:.3f} · {answers}, the first at rank {row['best_rank']:g}</p><ol>{''.join(hits)}</ol></article>"
    )


def _grid(articles: str) -> str:
    return f'<div class="queries">{articles}</div>'


def _figure(name: str, drawn: str, facts: str = "") -> str:
    detail = f" <small>{facts}</small>" if facts else ""
    return f'<figure class="panel"><figcaption>{escape(name)}{detail}</figcaption>{drawn}</figure>'


def _wrapped(legend: str, figures: Iterable[str]) -> str:
    joined = "".join(figures)
    return f'{legend}<div class="figures">{joined}</div>' if joined else ""

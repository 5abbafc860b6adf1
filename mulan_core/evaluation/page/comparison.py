"""The page of a comparison: the verdict, every difference as a dot with its interval, what moved most."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mulan_core.evaluation.comparison import ClassChange, Comparison, Difference, QueryChange
from mulan_core.evaluation.page import charts, document
from mulan_core.evaluation.page.sections import QUERY_SETS, section
from mulan_core.evaluation.tagging import split_label


def to_html(comparison: Comparison) -> str:
    """The page, self-contained."""
    title = comparison.about.get("title") or comparison.about.get("name") or "an unnamed set"
    counts = comparison.about.get("counts", {})
    sizes = [
        f"{counts[key]:,} {words}"
        for key, words in (("test_tracks", "test tracks"), ("classes", "classes"), ("triplets", "triplets"))
        if counts.get(key)
    ]
    head = (
        f'<header><p class="kind">MuLan comparison</p><h1>{escape(comparison.name_b)} <span>against</span> '
        f"{escape(comparison.name_a)} <span>on</span> {escape(title)}</h1>"
        f'<p class="verdict">{escape(comparison.verdict())}</p>'
        f'<p class="about">{escape(" · ".join(sizes))}</p></header>'
    )
    body = [
        _differences(comparison),
        _classes(comparison),
        _queries(comparison),
        _metrics(comparison),
        _method(comparison),
    ]
    return document(
        f"{comparison.name_b} against {comparison.name_a} on {title}", f"{head}<main>{''.join(body)}</main>"
    )


def _differences(comparison: Comparison) -> str:
    shares = [difference for difference in comparison.metrics if not difference.lower_is_better]
    reach = _reach(shares) if shares else 1.0
    panels, ranks = [], []
    for heading, entries in comparison.grouped():
        panels.append(_panel(heading, [row for row in entries if not row[1].lower_is_better], reach))
        ranks += [(heading, difference) for _, difference in entries if difference.lower_is_better]
    panels.append(
        _panel("Median rank", ranks, _reach([difference for _, difference in ranks]) if ranks else 1.0, unit="ranks")
    )
    legend = (
        f'<p class="keys"><span class="key won">{escape(comparison.name_b)} is better</span><span class="key lost">'
        f'{escape(comparison.name_a)} is better</span><span class="key open">the difference does not stand</span></p>'
    )
    about = (
        f"Right of the middle {escape(comparison.name_b)} is better. A line is the paired 95\u00a0% interval. All have "
        "one scale but the median ranks."
    )
    joined = "".join(panels)
    return section("Differences", f'{legend}<div class="columns">{joined}</div>' if joined else "", about)


def _panel(heading: str, rows: Sequence[tuple[str, Difference]], reach: float, *, unit: str = "") -> str:
    if not rows:
        return ""
    digits = 1 if unit else 3
    lines = "".join(_line(label, difference, reach, digits=digits) for label, difference in rows)
    return f'<div class="panel"><h3>{escape(heading)} <small>±{reach:.{digits}f} {unit}</small></h3>{lines}</div>'


def _line(label: str, difference: Difference, reach: float, *, facts: str = "", digits: int = 3) -> str:
    interval = difference.gain_interval
    kind = "open" if not difference.stands else "won" if difference.gain > 0 else "lost"
    text = f"{label}: {difference.a:.3f} to {difference.b:.3f}"
    if difference.interval:
        text += f", difference {difference.value:+.3f}, {difference.interval[0]:+.3f} to {difference.interval[1]:+.3f}"
    drawn = charts.difference(difference.gain, interval=interval, reach=reach, kind=kind, label=text)
    beside = f" <small>{escape(facts)}</small>" if facts else ""
    return (
        f'<div class="line" title="{escape(text)}"><span class="label">{escape(label)}{beside}</span>{drawn}'
        f"<b>{difference.value:+.{digits}f}</b></div>"
    )


def _reach(differences: Sequence[Difference]) -> float:
    ends = [abs(end) for difference in differences for end in (difference.value, *(difference.interval or ()))]
    return max(ends) or 1e-3


def _classes(comparison: Comparison) -> str:
    moved = comparison.moved_classes()
    reach = _reach([change.difference for side in moved for change in side]) if any(moved) else 1.0
    blocks = [_class_panel(word, side, reach) for word, side in zip(("gained", "lost"), moved, strict=True) if side]
    about = "By the difference in ROC-AUC; in brackets: test tracks that have the class."
    return section("Classes that moved most", f'<div class="columns">{"".join(blocks)}</div>' if blocks else "", about)


def _class_panel(word: str, side: Sequence[ClassChange], reach: float) -> str:
    lines = "".join(
        _line(split_label(change.difference.name)[1], change.difference, reach, facts=f"({change.positives:,})")
        for change in side
    )
    return f'<div class="panel"><h3>{word} <small>±{reach:.3f}</small></h3>{lines}</div>'


def _queries(comparison: Comparison) -> str:
    blocks = []
    for kind, moved in comparison.moved_queries().items():
        sides = [
            _query_panel(word, side, comparison) for word, side in zip(("gained", "lost"), moved, strict=True) if side
        ]
        if sides:
            total = sum(change.query_set == kind for change in comparison.queries)
            heading = f"<h3>By {escape(QUERY_SETS.get(kind, kind))} <small>of {total:,}</small></h3>"
            blocks.append(f'{heading}<div class="columns two">{"".join(sides)}</div>')
    about = "By the difference in average precision. A single query has no interval: much of this is luck."
    return section("Queries that moved most", "".join(blocks), about)


def _query_panel(word: str, side: Sequence[QueryChange], comparison: Comparison) -> str:
    body = "".join(
        f"<tr><th>{escape(change.difference.name)} <small>({change.relevant:,})</small></th>"
        f"<td>{change.difference.a:.3f}</td><td>{change.difference.b:.3f}</td><td><b>{change.difference.value:+.3f}</b></td></tr>"
        for change in side
    )
    head = f"<tr><th>query</th><td>{escape(comparison.name_a)}</td><td>{escape(comparison.name_b)}</td><td>AP</td></tr>"
    table = f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
    return f'<div class="panel"><h3>{word}</h3>{table}</div>'


def _metrics(comparison: Comparison) -> str:
    names = f"<td>{escape(comparison.name_a)}</td><td>{escape(comparison.name_b)}</td>"
    head = f"<tr><th>metric</th>{names}<td>difference</td><td>95\u00a0% interval</td><td>stands</td></tr>"
    blocks = []
    for heading, entries in comparison.grouped():
        body = "".join(_row(label, difference) for label, difference in entries)
        table = f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
        blocks.append(f'<div class="panel"><h3>{escape(heading)}</h3>{table}</div>')
    return section("All metrics", f'<div class="columns two">{"".join(blocks)}</div>' if blocks else "")


def _row(label: str, difference: Difference) -> str:
    interval = f"{difference.interval[0]:+.3f} to {difference.interval[1]:+.3f}" if difference.interval else "-"
    stands = ("better" if difference.gain > 0 else "worse") if difference.stands else ""
    return (
        f"<tr><th>{escape(label)}</th><td>{difference.a:.3f}</td><td>{difference.b:.3f}</td>"
        f"<td><b>{difference.value:+.3f}</b></td><td>{interval}</td><td>{stands}</td></tr>"
    )


def _method(comparison: Comparison) -> str:
    models = [
        (name, ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in model.items() if key[:4] != "has_"))
        for name, model in zip((comparison.name_a, comparison.name_b), comparison.models, strict=True)
    ]
    facts = [*models, ("set hash", str(comparison.about.get("hash", "")))]
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    notes = "".join(f"<li>{escape(note)}</li>" for note in (comparison.method(), *comparison.notes))
    body = f'<div class="panel"><dl>{rows}</dl><h3>Notes</h3><ul class="notes">{notes}</ul></div>'
    return section("How it was measured", body)

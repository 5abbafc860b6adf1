"""The page of a comparison: the verdict, every difference as a dot with its interval, what moved most."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mulan_core.evaluation.comparison import Comparison, Difference, OfClass, OfQuery
from mulan_core.evaluation.page import document
from mulan_core.evaluation.page.charts import difference
from mulan_core.evaluation.page.sections import QUERY_SETS, section
from mulan_core.evaluation.tagging import split_label


def to_html(found: Comparison) -> str:
    """The page, self-contained."""
    title = found.about.get("title") or found.about.get("name") or "an unnamed set"
    counts = found.about.get("counts", {})
    sizes = [
        f"{counts[key]:,} {words}"
        for key, words in (("test_tracks", "test tracks"), ("classes", "classes"), ("triplets", "triplets"))
        if counts.get(key)
    ]
    head = (
        f'<header><p class="kind">MuLan comparison</p><h1>{escape(found.name_b)} <span>against</span> '
        f"{escape(found.name_a)} <span>on</span> {escape(title)}</h1>"
        f'<p class="verdict">{escape(found.verdict())}</p><p class="about">{escape(" · ".join(sizes))}</p></header>'
    )
    body = [_differences(found), _classes(found), _queries(found), _metrics(found), _method(found)]
    return document(f"{found.name_b} against {found.name_a} on {title}", f"{head}<main>{''.join(body)}</main>")


def _differences(found: Comparison) -> str:
    shares = [one for one in found.metrics if not one.lower_is_better]
    reach = _reach(shares) if shares else 1.0
    panels, ranks = [], []
    for heading, of_heading in found.grouped():
        panels.append(_panel(heading, [row for row in of_heading if not row[1].lower_is_better], reach))
        ranks += [(heading, one) for _, one in of_heading if one.lower_is_better]
    panels.append(_panel("Median rank", ranks, _reach([one for _, one in ranks]) if ranks else 1.0, unit="ranks"))
    legend = (
        f'<p class="keys"><span class="key won">{escape(found.name_b)} is better</span><span class="key lost">'
        f'{escape(found.name_a)} is better</span><span class="key open">the difference does not stand</span></p>'
    )
    about = (
        f"Right of the middle {escape(found.name_b)} is better. A line is the paired 95\u00a0% interval. All have "
        "one scale but the median ranks."
    )
    joined = "".join(panels)
    return section("Differences", f'{legend}<div class="columns">{joined}</div>' if joined else "", about)


def _panel(heading: str, rows: Sequence[tuple[str, Difference]], reach: float, *, unit: str = "") -> str:
    if not rows:
        return ""
    digits = 1 if unit else 3
    lines = "".join(_line(label, one, reach, digits=digits) for label, one in rows)
    return f'<div class="panel"><h3>{escape(heading)} <small>±{reach:.{digits}f} {unit}</small></h3>{lines}</div>'


def _line(label: str, one: Difference, reach: float, *, facts: str = "", digits: int = 3) -> str:
    interval = one.gain_interval
    kind = "open" if not one.stands else "won" if one.gain > 0 else "lost"
    said = f"{label}: {one.a:.3f} to {one.b:.3f}"
    if one.interval:
        said += f", difference {one.value:+.3f}, {one.interval[0]:+.3f} to {one.interval[1]:+.3f}"
    drawn = difference(one.gain, interval=interval, reach=reach, kind=kind, said=said)
    beside = f" <small>{escape(facts)}</small>" if facts else ""
    return (
        f'<div class="line" title="{escape(said)}"><span class="label">{escape(label)}{beside}</span>{drawn}'
        f"<b>{one.value:+.{digits}f}</b></div>"
    )


def _reach(found: Sequence[Difference]) -> float:
    ends = [abs(end) for one in found for end in (one.value, *(one.interval or ()))]
    return max(ends) or 1e-3


def _classes(found: Comparison) -> str:
    moved = found.moved_classes()
    reach = _reach([one.difference for side in moved for one in side]) if any(moved) else 1.0
    blocks = [_of_classes(word, side, reach) for word, side in zip(("gained", "lost"), moved, strict=True) if side]
    about = "By the difference in ROC-AUC; in brackets: test tracks that have the class."
    return section("Classes that moved most", f'<div class="columns">{"".join(blocks)}</div>' if blocks else "", about)


def _of_classes(word: str, side: Sequence[OfClass], reach: float) -> str:
    lines = "".join(
        _line(split_label(one.difference.name)[1], one.difference, reach, facts=f"({one.positives:,})") for one in side
    )
    return f'<div class="panel"><h3>{word} <small>±{reach:.3f}</small></h3>{lines}</div>'


def _queries(found: Comparison) -> str:
    blocks = []
    for kind, moved in found.moved_queries().items():
        sides = [_of_queries(word, side, found) for word, side in zip(("gained", "lost"), moved, strict=True) if side]
        if sides:
            total = sum(one.query_set == kind for one in found.queries)
            heading = f"<h3>By {escape(QUERY_SETS.get(kind, kind))} <small>of {total:,}</small></h3>"
            blocks.append(f'{heading}<div class="columns two">{"".join(sides)}</div>')
    about = "By the difference in average precision. A single query has no interval: much of this is luck."
    return section("Queries that moved most", "".join(blocks), about)


def _of_queries(word: str, side: Sequence[OfQuery], found: Comparison) -> str:
    body = "".join(
        f"<tr><th>{escape(one.difference.name)} <small>({one.relevant:,})</small></th><td>{one.difference.a:.3f}</td>"
        f"<td>{one.difference.b:.3f}</td><td><b>{one.difference.value:+.3f}</b></td></tr>"
        for one in side
    )
    head = f"<tr><th>query</th><td>{escape(found.name_a)}</td><td>{escape(found.name_b)}</td><td>AP</td></tr>"
    table = f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
    return f'<div class="panel"><h3>{word}</h3>{table}</div>'


def _metrics(found: Comparison) -> str:
    names = f"<td>{escape(found.name_a)}</td><td>{escape(found.name_b)}</td>"
    head = f"<tr><th>metric</th>{names}<td>difference</td><td>95\u00a0% interval</td><td>stands</td></tr>"
    blocks = []
    for heading, of_heading in found.grouped():
        body = "".join(_row(label, one) for label, one in of_heading)
        table = f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
        blocks.append(f'<div class="panel"><h3>{escape(heading)}</h3>{table}</div>')
    return section("All metrics", f'<div class="columns two">{"".join(blocks)}</div>' if blocks else "")


def _row(label: str, one: Difference) -> str:
    interval = f"{one.interval[0]:+.3f} to {one.interval[1]:+.3f}" if one.interval else "-"
    stands = ("better" if one.gain > 0 else "worse") if one.stands else ""
    return (
        f"<tr><th>{escape(label)}</th><td>{one.a:.3f}</td><td>{one.b:.3f}</td><td><b>{one.value:+.3f}</b></td>"
        f"<td>{interval}</td><td>{stands}</td></tr>"
    )


def _method(found: Comparison) -> str:
    models = [
        (name, ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in model.items() if key[:4] != "has_"))
        for name, model in zip((found.name_a, found.name_b), found.models, strict=True)
    ]
    facts = [*models, ("set hash", str(found.about.get("hash", "")))]
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    notes = "".join(f"<li>{escape(note)}</li>" for note in (found.method(), *found.notes))
    body = f'<div class="panel"><dl>{rows}</dl><h3>Notes</h3><ul class="notes">{notes}</ul></div>'
    return section("How it was measured", body)

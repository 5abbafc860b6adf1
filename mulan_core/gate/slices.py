"""Is it not worse for some: facets, kinds of query, sources, datasets or classes, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mulan_core.config import GateConfig
from mulan_core.gate.check import GateCheck, GateChecks, is_number, look, problem


def check_slices(candidate: Any, champion: Any, rules: GateConfig) -> GateChecks:
    """No slice of the judged kinds may be more than the margin below the champion's; small ones are told alone."""
    if rules.slice_margin is None:
        return
    candidate_slices, champion_slices = _of_kinds(candidate, rules), _of_kinds(champion, rules)
    for who, slices in (("candidate", candidate_slices), ("champion", champion_slices)):
        if slices is None:
            text = f"the {who}'s report has no slices; `mulan evaluate {who}` measures them"
            yield GateCheck("slice_margin", False, text)
    if candidate_slices is None or champion_slices is None:
        return
    if not candidate_slices and not champion_slices:
        yield GateCheck("slice_margin", False, f"neither report has a slice of the kinds {', '.join(rules.slices)}")
    for key in dict.fromkeys((*candidate_slices, *champion_slices)):
        yield _judge(" ".join(key), candidate_slices.get(key), champion_slices.get(key), rules)


def _judge(name: str, candidate: Any, champion: Any, rules: GateConfig) -> GateCheck:
    values = look(candidate, "value"), look(champion, "value")
    for who, value in zip(("candidate", "champion"), values, strict=True):
        if lack := problem(value):
            return GateCheck("slice_margin", False, f"{name} of the {who} is {lack}")
    items = look(candidate, "items")
    text = f"{name} is {values[0]:.4f}, champion {values[1]:.4f}"
    if not is_number(items):
        return GateCheck("slice_margin", False, f"{name}: the report does not say on how many items it was measured")
    if items < rules.min_slice_items:
        return GateCheck(
            "slice_margin", None, f"{text}; not judged, {items} items are fewer than {rules.min_slice_items}"
        )
    if rules.slice_margin is not None and values[0] >= values[1] - rules.slice_margin:
        return GateCheck("slice_margin", True, f"{text}, margin {rules.slice_margin}")
    return GateCheck("slice_margin", False, f"{text}: it fell by more than {rules.slice_margin} ({items} items)")


def _of_kinds(report: Any, rules: GateConfig) -> dict[tuple[str, str], Any] | None:
    slices = look(report, "slices")
    if not isinstance(slices, list) or not all(isinstance(row, Mapping) for row in slices):
        return None
    rows = [row for row in slices if row.get("kind") in rules.slices]
    return {(f"{row.get('kind')} {row.get('name')}", str(row.get("metric"))): row for row in rows}

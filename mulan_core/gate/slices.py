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
    ours, theirs = _of_kinds(candidate, rules), _of_kinds(champion, rules)
    for who, of_model in (("candidate", ours), ("champion", theirs)):
        if of_model is None:
            said = f"the {who}'s report has no slices; `mulan evaluate {who}` measures them"
            yield GateCheck("slice_margin", False, said)
    if ours is None or theirs is None:
        return
    if not ours and not theirs:
        yield GateCheck("slice_margin", False, f"neither report has a slice of the kinds {', '.join(rules.slices)}")
    for key in dict.fromkeys((*ours, *theirs)):
        yield _judge(" ".join(key), ours.get(key), theirs.get(key), rules)


def _judge(name: str, ours: Any, theirs: Any, rules: GateConfig) -> GateCheck:
    values = look(ours, "value"), look(theirs, "value")
    for who, value in zip(("candidate", "champion"), values, strict=True):
        if said := problem(value):
            return GateCheck("slice_margin", False, f"{name} of the {who} is {said}")
    items = look(ours, "items")
    said = f"{name} is {values[0]:.4f}, champion {values[1]:.4f}"
    if not is_number(items):
        return GateCheck("slice_margin", False, f"{name}: the report does not say on how many items it was measured")
    if items < rules.min_slice_items:
        return GateCheck(
            "slice_margin", None, f"{said}; not judged, {items} items are fewer than {rules.min_slice_items}"
        )
    if rules.slice_margin is not None and values[0] >= values[1] - rules.slice_margin:
        return GateCheck("slice_margin", True, f"{said}, margin {rules.slice_margin}")
    return GateCheck("slice_margin", False, f"{said}: it fell by more than {rules.slice_margin} ({items} items)")


def _of_kinds(report: Any, rules: GateConfig) -> dict[tuple[str, str], Any] | None:
    slices = look(report, "slices")
    if not isinstance(slices, list) or not all(isinstance(row, Mapping) for row in slices):
        return None
    rows = [row for row in slices if row.get("kind") in rules.slices]
    return {(f"{row.get('kind')} {row.get('name')}", str(row.get("metric"))): row for row in rows}

"""What a comparison of two models found, in numbers and words; ``compare`` makes it, ``compare_report`` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mulan_core.evaluation.metric_labels import grouped_metrics, metric_label

Report = Mapping[str, Any]

SHOWN = 8
"""Classes, and queries of each kind, that gained most; as many that lost most."""
MAX_NAMED = 5
"""Metrics that the verdict names each way; the tables have all."""


@dataclass(frozen=True)
class Difference:
    """One number of both models."""

    name: str
    """A metric, a class's label, or a query."""
    a: float
    b: float
    interval: tuple[float, float] | None = None
    """95 % percentile interval of ``value`` over common resamples; None for a single query, or too few items."""
    lower_is_better: bool = False

    @property
    def value(self) -> float:
        """How much b is above a."""
        return self.b - self.a

    @property
    def gain(self) -> float:
        """How much better b is; negative where it is worse."""
        return -self.value if self.lower_is_better else self.value

    @property
    def gain_interval(self) -> tuple[float, float] | None:
        """The interval of ``gain``."""
        if self.interval is None or not self.lower_is_better:
            return self.interval
        return -self.interval[1], -self.interval[0]

    @property
    def stands(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)

    def as_mapping(self) -> dict[str, Any]:
        """Its fields, fit for JSON."""
        better = None if self.gain == 0 else "b" if self.gain > 0 else "a"
        interval = list(self.interval) if self.interval else None
        shown = {"a": self.a, "b": self.b, "difference": self.value, "interval": interval}
        return shown | {"stands": self.stands, "better": better}


@dataclass(frozen=True)
class ClassChange:
    """One class under both models."""

    difference: Difference
    """ROC-AUC of zero-shot tagging, else of the probe; its name is the label."""
    positives: int
    """Tracks that have it."""


@dataclass(frozen=True)
class QueryChange:
    """One query under both models."""

    difference: Difference
    """Average precision; its name is the query's text."""
    query_set: str
    query_id: str
    relevant: int
    """Right tracks."""


Moved = TypeVar("Moved", ClassChange, QueryChange)


@dataclass(frozen=True)
class Comparison:
    """What two models differ in, on one set; ``b`` is held against ``a``."""

    name_a: str
    name_b: str
    about: Report
    """The set, as the report of b describes it."""
    models: tuple[Report, Report]
    """Both models as their reports describe them."""
    resamples: int
    seed: int
    metrics: tuple[Difference, ...]
    classes: tuple[ClassChange, ...]
    queries: tuple[QueryChange, ...]
    notes: tuple[str, ...]

    def verdict(self) -> str:
        """In words: which differences stand, how many of how many, and how many would by chance."""
        stand = [difference for difference in self.metrics if difference.stands]
        judged = sum(difference.interval is not None for difference in self.metrics)
        by_chance = f"{0.05 * judged:.1f}".removesuffix(".0")
        sentences = [
            f"{len(stand)} of {judged} differences stand: their paired 95 % interval leaves zero out. Were the models "
            f"equal, about {by_chance} of {judged} would all the same."
        ]
        for word, differences in (
            ("better", [d for d in stand if d.gain > 0]),
            ("worse", [d for d in stand if d.gain < 0]),
        ):
            if differences:
                # The largest first; ranks are on another scale, and come last.
                differences.sort(key=lambda difference: (difference.lower_is_better, -abs(difference.gain)))
                each = "; ".join(f"{metric_label(d.name)} {d.a:.3f} to {d.b:.3f}" for d in differences[:MAX_NAMED])
                more = f"; and {len(differences) - MAX_NAMED} more" if len(differences) > MAX_NAMED else ""
                sentences.append(f"{self.name_b} is {word} than {self.name_a} in {each}{more}.")
        return " ".join(sentences)

    def grouped(self) -> list[tuple[str, list[tuple[str, Difference]]]]:
        """Headings, each with its metrics as (label, difference)."""
        by_name = {difference.name: difference for difference in self.metrics}
        return [
            (heading, [(label, by_name[name]) for label, name in entries])
            for heading, entries in grouped_metrics({"metrics": by_name})
        ]

    def moved_classes(self) -> tuple[list[ClassChange], list[ClassChange]]:
        """The classes that gained most, and those that lost most."""
        return _moved(self.classes)

    def moved_queries(self) -> dict[str, tuple[list[QueryChange], list[QueryChange]]]:
        """Of each kind of query those that gained most, and those that lost most."""
        kinds = dict.fromkeys(change.query_set for change in self.queries)
        return {kind: _moved([change for change in self.queries if change.query_set == kind]) for kind in kinds}

    def method(self) -> str:
        """What the intervals are, and what they do not cover."""
        return (
            f"Intervals are paired: {self.resamples} resamples (seed {self.seed}) of tracks, queries or anchors, both "
            "models on each. They say how far the difference would move with another test set of this kind and size, "
            "and do not cover the luck of training. Median rank is better when lower, all else when higher."
        )

    def as_mapping(self) -> dict[str, Any]:
        """Everything, fit for JSON; classes and queries all of them, those that gained most first."""
        return {
            "set": {key: self.about[key] for key in ("name", "title", "hash", "counts") if key in self.about},
            "a": {"name": self.name_a, "model": dict(self.models[0])},
            "b": {"name": self.name_b, "model": dict(self.models[1])},
            "resamples": self.resamples,
            "seed": self.seed,
            "verdict": self.verdict(),
            "metrics": {difference.name: difference.as_mapping() for difference in self.metrics},
            "per_class": [
                {"label": change.difference.name, "positives": change.positives, **change.difference.as_mapping()}
                for change in _by_gain(self.classes)
            ],
            "per_query": [
                {
                    "query_set": change.query_set,
                    "query_id": change.query_id or None,
                    "query": change.difference.name,
                    "relevant": change.relevant,
                    **{key: value for key, value in change.difference.as_mapping().items() if key != "interval"},
                }
                for change in _by_gain(self.queries)
            ],
            "notes": list(self.notes),
        }


def _by_gain(changes: Iterable[Moved]) -> list[Moved]:
    return sorted(changes, key=lambda change: -change.difference.gain)


def _moved(changes: Sequence[Moved]) -> tuple[list[Moved], list[Moved]]:
    ordered = _by_gain(changes)
    won = [change for change in ordered if change.difference.gain > 0][:SHOWN]
    return won, [change for change in reversed(ordered) if change.difference.gain < 0][:SHOWN]

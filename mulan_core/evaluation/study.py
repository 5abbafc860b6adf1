"""A study: rows trained with several seeds each; their means, and which differences stand.

Every row was trained with the same seeds and measured on the same set, so a metric is a table of R rows by S seeds, and
each seed is a block: what it does to all rows alike (an easy order of the data) is no difference between rows. The
analysis is that of a randomised block design, which for two rows is the paired t-test.

Shape letters: R rows, S seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mulan_core.errors import UserError
from mulan_core.evaluation.metric_labels import metric_label
from mulan_core.evaluation.report import ROWS, ablation_columns, ablation_table, markdown_table

Floats = NDArray[np.floating]

LEVEL = 0.95
"""Of a mean's interval, and of all differences' intervals together."""


@dataclass(frozen=True)
class Difference:
    """How much the second of two rows is above the first on one metric, over the seeds of both."""

    metric: str
    first: str
    second: str
    value: float
    interval: tuple[float, float]
    """Of all differences of a study at once; see ``least_difference``."""

    def as_mapping(self) -> dict[str, Any]:
        """Its fields, fit for JSON."""
        return dataclasses.asdict(self) | {"interval": list(self.interval), "stands": self.stands}

    @property
    def stands(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.interval[0] > 0 or self.interval[1] < 0


@dataclass(frozen=True)
class Study:
    """What the trials of a study measured."""

    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Mapping[str, Floats]
    """Metric -> values_RS; metrics that every trial has."""
    test_intervals: Mapping[str, Sequence[Sequence[float] | None]]
    """Metric -> for each row the test set's interval of its first seed."""
    missing: tuple[str, ...]
    """Metrics that only some trials have: not in ``values``."""

    @classmethod
    def of_trials(cls, trials: Sequence[Mapping[str, Any]]) -> Study:
        """Gather trials, each with ``row``, ``seed``, ``metrics`` and ``intervals`` as in a report.

        Raises:
            UserError: if a row lacks a seed that another has.
        """
        rows = tuple(dict.fromkeys(trial["row"] for trial in trials))
        seeds = tuple(dict.fromkeys(trial["seed"] for trial in trials))
        by_run = {(trial["row"], trial["seed"]): trial for trial in trials}
        for row in rows:
            for seed in seeds:
                if (row, seed) not in by_run:
                    raise UserError(f"row {row} was not trained with seed {seed}: the rows cannot be compared by seed")
        everywhere = [name for name in trials[0]["metrics"] if all(name in trial["metrics"] for trial in trials)]
        return cls(
            rows,
            seeds,
            {n: np.array([[by_run[row, seed]["metrics"][n] for seed in seeds] for row in rows]) for n in everywhere},
            {n: [by_run[row, seeds[0]].get("intervals", {}).get(n) for row in rows] for n in everywhere},
            tuple(sorted({name for trial in trials for name in trial["metrics"]} - set(everywhere))),
        )

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Heading, short name and metric of what the tables show, in their order; only these are compared."""
        return [
            (heading, name, metric) for heading, columns in ablation_columns(self.values) for name, metric, _ in columns
        ]

    def summary(self) -> list[dict[str, Any]]:
        """For each row ``name``, ``metrics`` (means over seeds) and ``intervals``; with one seed the test set's."""
        rows = []
        for r, row in enumerate(self.rows):
            intervals = {
                name: mean_interval(values_RS[r]) if len(self.seeds) > 1 else self.test_intervals[name][r]
                for name, values_RS in self.values.items()
            }
            rows.append(
                {
                    "name": row,
                    "metrics": {name: float(values_RS[r].mean()) for name, values_RS in self.values.items()},
                    "intervals": {name: list(interval) for name, interval in intervals.items() if interval},
                }
            )
        return rows

    def least_differences(self) -> dict[str, float]:
        """How large a difference must be to stand, metric by metric; empty with one seed or one row."""
        if len(self.seeds) < 2 or len(self.rows) < 2:
            return {}
        metrics = [metric for _, _, metric in self.columns]
        comparisons = len(metrics) * math.comb(len(self.rows), 2)
        return {metric: least_difference(self.values[metric], comparisons) for metric in metrics}

    def differences(self) -> list[Difference]:
        """Every pair of rows on every metric of the tables; their intervals hold together (``least_difference``)."""
        differences = []
        for metric, half in self.least_differences().items():
            for first, second in combinations(range(len(self.rows)), 2):
                value = float((self.values[metric][second] - self.values[metric][first]).mean())
                interval = (value - half, value + half)
                differences.append(Difference(metric, self.rows[first], self.rows[second], value, interval))
        return differences


def mean_interval(values_S: Floats) -> tuple[float, float] | None:
    """Student's t interval of the mean over seeds, at 95 %, cut to the metrics' range 0 to 1; None for one seed.

    It says how far the mean would move with other seeds, for the same data and the same test set.
    """
    if len(values_S) < 2:
        return None
    half = _t_quantile((1 + LEVEL) / 2, len(values_S) - 1) * float(values_S.std(ddof=1)) / math.sqrt(len(values_S))
    mean = float(values_S.mean())
    return max(0.0, mean - half), min(1.0, mean + half)


def spread(values_RS: Floats) -> float:
    """Standard deviation of what neither row nor seed explains, (R-1)(S-1) degrees of freedom."""
    rest_RS = values_RS - values_RS.mean(axis=1, keepdims=True) - values_RS.mean(axis=0) + values_RS.mean()
    return math.sqrt(float(np.square(rest_RS).sum()) / ((len(values_RS) - 1) * (values_RS.shape[1] - 1)))


def least_difference(values_RS: Floats, comparisons: int) -> float:
    """How large a difference of two rows' means must be to stand, as one of ``comparisons``.

    Bonferroni: each interval is at 1 - 0.05 / comparisons, so that all of them hold together with 95 %. Student's t,
    with the ``spread`` of all rows pooled: three seeds of two rows alone would leave two degrees of freedom.
    """
    rows, seeds = values_RS.shape
    quantile = _t_quantile(1 - (1 - LEVEL) / (2 * comparisons), (rows - 1) * (seeds - 1))
    return quantile * spread(values_RS) * math.sqrt(2 / seeds)


def to_markdown(study: Study, title: str, *, notes: Sequence[str] = ()) -> str:
    """The study's page: which differences stand, in words; what could have stood; the tables."""
    differences = study.differences()
    parts = [f"# {title}", "## Which differences stand", in_words(study, differences)]
    if differences:
        parts += ["## How large a difference must be", _least_table(study)]
    parts += ["## Tables", ablation_table(study.summary(), brackets=interval_words(study))]
    remarks = [*notes, *([f"not every run has {', '.join(study.missing)}: not compared"] if study.missing else [])]
    if remarks:
        parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in remarks))
    return "\n\n".join(parts) + "\n"


def interval_words(study: Study) -> str:
    """What the intervals of ``Study.summary`` are."""
    if len(study.seeds) == 1:
        return f"95 % bootstrap interval over the test set (one seed, {study.seeds[0]})"
    return f"95 % t interval of the mean over {len(study.seeds)} seeds ({', '.join(map(str, study.seeds))})"


def in_words(study: Study, differences: Sequence[Difference]) -> str:
    """Which differences stand, pair by pair, as Markdown sentences."""
    if len(study.rows) < 2:
        return "There is one row: nothing to compare."
    if not differences:
        return (
            "One seed cannot tell a difference between rows from the luck of its training, so none is claimed: run "
            "with --seeds 3 or more. The intervals below are over the test set alone."
        )
    lines = []
    for first, second in combinations(study.rows, 2):
        pair = [d for d in differences if (d.first, d.second) == (first, second)]
        lines.append(f"- **{_title(second)}** against **{_title(first)}**: {_pair_words(pair)}")
    count = len(study.seeds)
    stand = sum(d.stands for d in differences)
    how = (
        f"{stand} of {len(differences)} differences stand. Each is the mean over {count} seeds of the second row less "
        f"the first, paired by seed; it stands where its interval leaves zero out. The intervals are Student's t with "
        f"the spread that neither row nor seed explains, pooled over the rows, and by Bonferroni's correction all "
        f"{len(differences)} hold together with 95 %. They cover the luck of training on this data and this test set, "
        f"not another test set."
    )
    return how + "\n\n" + "\n".join(lines)


def _pair_words(pair: Sequence[Difference]) -> str:
    clauses = []
    for word, differences in (
        ("higher", [d for d in pair if d.stands and d.value > 0]),
        ("lower", [d for d in pair if d.stands and d.value < 0]),
    ):
        if differences:
            each = [f"{_name(d)} by {abs(d.value):.3f} ({_bounds(d)})" for d in differences]
            clauses.append(f"{word} in {', '.join(each)}")
    fallen = [d for d in pair if not d.stands]
    if not clauses:
        largest = max(fallen, key=lambda d: abs(d.value))
        return f"no difference stands; the largest, {largest.value:+.3f} in {_name(largest)}, does not."
    if fallen:
        clauses.append(
            "in the other one none stands" if len(fallen) == 1 else f"in the other {len(fallen)} none stands"
        )
    return "; ".join(clauses) + "."


def _name(difference: Difference) -> str:
    return metric_label(difference.metric).replace(",", "")


def _bounds(difference: Difference) -> str:
    low, high = sorted(abs(bound) for bound in difference.interval)
    return f"{low:.3f} to {high:.3f}"


def _least_table(study: Study) -> str:
    least = study.least_differences()
    body = [
        [heading, name, f"{spread(study.values[metric]):.4f}", f"{least[metric]:.3f}" if least[metric] < 1 else "none"]
        for heading, name, metric in study.columns
    ]
    header = ["table", "metric", "spread over seeds", "least difference that stands"]
    return markdown_table(header, body)


def _title(row: str) -> str:
    return ROWS.get(row, row)


def _t_quantile(probability: float, freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(probability, freedom))

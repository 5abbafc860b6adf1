"""The search for hyper-parameters: which trials there are, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from flows.steps.study import Trial
from mulan_core.config import Config, from_mapping, to_mapping
from mulan_core.errors import UserError
from mulan_core.evaluation.report import markdown_table

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

DEFAULT = "as configured"
"""The trial with the numbers as they are."""
DIGITS = 3
"""Significant digits of a drawn number: it should be copied into params.yaml by hand."""


def trials_of(config: Config) -> list[Trial]:
    """The trials of a search: the numbers as they are, then points of the space.

    Every range is cut into as many strips of equal width as there are points and every strip has one (a Latin
    hypercube), so that few points still cover each range.

    Raises:
        UserError: for a key that does not exist, or a value that the configuration refuses.
    """
    count = config.tune.trials - 1
    rng = np.random.default_rng(config.tune.seed)
    draws = {
        key: [_value(config, key, float(share)) for share in (rng.permutation(count) + rng.random(count)) / count]
        for key in config.tune.space
    }
    points = [{key: drawn[number] for key, drawn in draws.items()} for number in range(count)]
    return [Trial(DEFAULT, with_values(config, {}))] + [
        Trial(f"trial {number}: {in_words(values)}", with_values(config, values), values=values)
        for number, values in enumerate(points, start=1)
    ]


def with_values(config: Config, values: Mapping[str, float]) -> Config:
    """A configuration with some numbers changed, and the budget of a trial: the same number of pairs for all.

    Raises:
        UserError: for a value that the configuration refuses.
    """
    plain = to_mapping(config)
    for key, value in values.items():
        section, name = _place(plain, key)
        section[name] = value
    changed = from_mapping(Config, plain)
    steps = max(1, round(config.tune.steps * config.train.batch_size / changed.train.batch_size))
    every = max(1, -(-steps // 4)) if config.tune.asha else changed.train.checkpoint_every
    return replace(changed, train=replace(changed.train, steps=steps, checkpoint_every=every))


def _value(config: Config, key: str, share: float) -> float:
    """The point of a range that lies at this share of it, of the type that the configuration wants."""
    space = config.tune.space[key]
    if space.among:
        value = space.among[int(share * len(space.among))]
    elif space.log:
        value = space.low * (space.high / space.low) ** share
    else:
        value = space.low + (space.high - space.low) * share
    section, name = _place(to_mapping(config), key)
    if isinstance(section[name], int) and not isinstance(section[name], bool):
        return round(value)
    return float(f"{value:.{DIGITS}g}")


def _place(plain: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    *path, name = key.split(".")
    section: Any = plain
    for part in path:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or name not in section:
        raise UserError(f"tune.space: there is no key {key!r}")
    return section, name


def scheduler_of(config: Config) -> TrialScheduler | None:
    """What cuts trials short (asynchronous successive halving), if the configuration wants it."""
    if not config.tune.asha:
        return None
    from ray.tune.schedulers import ASHAScheduler

    pairs = config.tune.steps * config.train.batch_size
    return ASHAScheduler(
        time_attr="pairs", metric="score", mode="max", max_t=pairs, grace_period=pairs // 4, reduction_factor=2
    )


def snippet(config: Config, values: Mapping[str, float]) -> str:
    """The part of params.yaml that sets a trial's numbers; with another batch size also the steps that go with it."""
    if "train.batch_size" in values:
        steps = round(config.train.steps * config.train.batch_size / values["train.batch_size"])
        values = {**values, "train.steps": steps}
    found: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        section = found
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    return yaml.safe_dump(found, sort_keys=False)


def in_words(values: Mapping[str, float]) -> str:
    """A trial's numbers in a line."""
    return ", ".join(f"{key.rpartition('.')[2]} {value:g}" for key, value in values.items()) or DEFAULT


def outcome(config: Config, trials: Sequence[Trial], reported: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What came of a search.

    Args:
        config: the numbers as they are.
        trials: of the search, the first as configured.
        reported: what each reported last (``steps/trial.py``).

    Returns:
        ``metric``; ``trials``, the best first, each with name, values, run_id, score, interval, steps and whether it
        was cut short (``cut``: its score is that of its last checkpoint, and it cannot be the best); ``best``,
        ``default``: the first and the one as configured; ``gain``: how much the best is above the default;
        ``params``: the best's numbers as YAML; ``verdict``: what it says, in words.
    """
    rows: list[dict[str, Any]] = [
        {
            "name": trial.name,
            "values": dict(trial.values),
            "run_id": found.get("run_id"),
            "score": float(found["score"]),
            "interval": (found.get("intervals") or {}).get(config.tune.metric),
            "steps": int(found["step"]),
            "cut": "metrics" not in found,
        }
        for trial, found in zip(trials, reported, strict=True)
    ]
    default = rows[0]
    ranked = sorted(rows, key=lambda row: (row["cut"], -row["score"]))
    best = ranked[0]
    found = {
        "metric": config.tune.metric,
        "trials": ranked,
        "best": best,
        "default": default,
        "gain": best["score"] - default["score"],
        "params": snippet(config, best["values"]) if best["values"] else "",
    }
    return found | {"verdict": verdict(found)}


def to_markdown(found: Mapping[str, Any]) -> str:
    """The search's page."""
    body = [
        [
            row["name"],
            f"{row['score']:.3f}",
            "{:.3f} to {:.3f}".format(*row["interval"]) if row["interval"] else "-",
            f"{row['steps']:,}" + (", cut short" if row["cut"] else ""),
        ]
        for row in found["trials"]
    ]
    table = markdown_table(["trial", found["metric"], "95 % interval over the split", "steps"], body)
    numbers = f"\n```yaml\n{found['params']}```\n" if found["params"] else ""
    return f"# Search for hyper-parameters\n\n{found['verdict']}\n{numbers}\n## Trials\n\n{table}\n"


def verdict(found: Mapping[str, Any]) -> str:
    """What the search says, and how little that is."""
    best, default = found["best"], found["default"]
    if best is default:
        return f"No trial beats the numbers as configured ({found['metric']} {default['score']:.3f})."
    return (
        f"{best['name']} has {found['metric']} {best['score']:.3f} on the validation split, {found['gain']:.3f} above "
        f"the numbers as configured ({default['score']:.3f}). It is the best of {len(found['trials'])}, each trained "
        "once, so part of that is luck: train it and evaluate it on the test split before you believe it."
    )

"""The stage ``tune``: a small search for hyper-parameters, judged on the validation split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlflow
import numpy as np
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from flows.pipeline.page import log_page
from flows.pipeline.trials import StudyRun, Trial, check_metric, run_trials, study_run
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.project import code_version
from flows.runtime.session import open_session
from flows.runtime.tracking import lineage_tags
from mulan_core.config import Config, from_mapping, to_mapping
from mulan_core.counts import counted
from mulan_core.errors import UserError
from mulan_core.evaluation.report import markdown_table
from mulan_core.yaml_file import format_yaml

DEFAULT = "as configured"
"""The trial with the numbers as they are."""
THIRD = 3
"""A round has this many times the steps of the one before, and its points are this many times fewer."""
DIGITS = 3
"""Significant digits of a drawn number: it should be copied into params.yaml by hand."""


@flow(
    name="tune",
    description="Training runs over a space of hyper-parameters; the best on the validation split.",
    **FAILURE_HOOKS,
)
def tune(manifest: str | None = None, playlists: str | None = None, params: str | None = None) -> dict[str, Any]:
    """Search the configuration's ``tune.space``, or go on with a search that was cut off; see ``prepare``.

    Returns:
        ``run_id`` of the search's run, ``page`` as Markdown, and what ``outcome`` gives.
    """
    with open_session(manifest, playlists, params) as session, session.stage("tune"):
        workspace, uri = session.workspace, session.settings.mlflow_uri
        config = workspace.config
        points: Mapping[str, Mapping[str, float]] = points_of(config)
        rounds: list[list[dict[str, Any]]] = []
        first = trials_of(config, points, 0)  # a value that the configuration refuses is said now
        metric = config.tune.metric
        check_metric(workspace, metric)
        tags = lineage_tags(code_version(), runtime.flow_run.id)
        with study_run("tune", first[0].config, workspace.data_hash, mlflow_uri=uri, tags=tags) as run_id:
            study = StudyRun.of(session, "tune", run_id, max_concurrent=config.tune.max_concurrent)
            for number in range(config.tune.rounds):
                trials = trials_of(config, points, number)
                reports = run_trials(trials, study, shown=lambda metrics: f"{metric} {metrics[f'valid/{metric}']:.3f}")
                rounds.append(scores_of(config, points, trials, reports))
                points = best_third(points, rounds[-1])
            result = {"run_id": run_id} | outcome(config, rounds)
            page = to_markdown(result)
            log_page("search", page)
            mlflow.log_dict(result, "search.json")
            mlflow.log_metrics({f"best/{metric}": result["best"]["score"], f"gain/{metric}": result["gain"]})
        create_markdown_artifact(page, key="search", description="Hyper-parameters on the validation split")
        return result | {"page": page}


def points_of(config: Config) -> dict[str, dict[str, float]]:
    """Name -> the numbers that a trial changes: first none, then points of the space.

    Every range is cut into as many strips of equal width as there are points and every strip has one (a Latin
    hypercube), so that few points still cover each range.

    Raises:
        UserError: for a key that does not exist.
    """
    count = config.tune.trials - 1
    rng = np.random.default_rng(config.tune.seed)
    draws = {
        key: [_value(config, key, float(share)) for share in (rng.permutation(count) + rng.random(count)) / count]
        for key in config.tune.space
    }
    points = [{key: drawn[number] for key, drawn in draws.items()} for number in range(count)]
    return {DEFAULT: {}} | {f"point {n}: {in_words(values)}": values for n, values in enumerate(points, start=1)}


def trials_of(config: Config, points: Mapping[str, Mapping[str, float]], number: int) -> list[Trial]:
    """The trials of a round, counted from 0.

    Raises:
        UserError: for a value that the configuration refuses.
    """
    steps = config.tune.steps // THIRD ** (config.tune.rounds - 1 - number)
    trials = []
    for name, values in points.items():
        changed = with_values(config, values, steps)
        suffix = f", {counted(changed.train.steps, 'step')}" if config.tune.rounds > 1 else ""
        trials.append(Trial(name + suffix, changed))
    return trials


def with_values(config: Config, values: Mapping[str, float], steps: int) -> Config:
    """A configuration with some numbers changed, and with as many steps as see the pairs of so many unchanged ones.

    Raises:
        UserError: for a value that the configuration refuses.
    """
    plain = to_mapping(config)
    for key, value in values.items():
        section, name = _place(plain, key)
        section[name] = value
    changed = from_mapping(Config, plain)
    steps = max(1, round(steps * config.train.batch_size / changed.train.batch_size))
    return replace(changed, train=replace(changed.train, steps=steps))


def _value(config: Config, key: str, share: float) -> float:
    """The point of a range that lies at this share of it, of the type that the configuration wants."""
    space = config.tune.space[key]
    if space.choices:
        value = space.choices[int(share * len(space.choices))]
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


def snippet(config: Config, values: Mapping[str, float]) -> str:
    """The part of params.yaml that sets a trial's numbers; with another batch size also the steps that go with it."""
    if "train.batch_size" in values:
        steps = round(config.train.steps * config.train.batch_size / values["train.batch_size"])
        values = {**values, "train.steps": steps}
    sections: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        section = sections
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    return format_yaml(sections)


def in_words(values: Mapping[str, float]) -> str:
    """A trial's numbers in a line."""
    return ", ".join(f"{key.rpartition('.')[2]} {value:g}" for key, value in values.items()) or DEFAULT


def scores_of(
    config: Config,
    points: Mapping[str, Mapping[str, float]],
    trials: Sequence[Trial],
    reports: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """For each point of a round its name, values, run_id, score, interval and steps."""
    metric = config.tune.metric
    return [
        {
            "name": name,
            "values": dict(values),
            "run_id": report["run_id"],
            "score": float(report["metrics"][metric]),
            "interval": report["intervals"].get(metric),
            "steps": trial.config.train.steps,
        }
        for (name, values), trial, report in zip(points.items(), trials, reports, strict=True)
    ]


def best_third(
    points: Mapping[str, Mapping[str, float]], scores: Sequence[Mapping[str, Any]]
) -> dict[str, Mapping[str, float]]:
    """The points that go into the next round: the numbers as configured, and the best third of the others."""
    others = sorted((row for row in scores if row["name"] != DEFAULT), key=lambda row: -row["score"])
    kept = {DEFAULT, *(row["name"] for row in others[: -(-len(others) // THIRD)])}
    return {name: values for name, values in points.items() if name in kept}


def outcome(config: Config, rounds: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What came of a search.

    Args:
        config: the numbers as they are.
        rounds: the scores of each.

    Returns:
        ``metric``; ``trials``, each point once, as of its last round, the best of the last round first; ``best``,
        ``default``: that first one and the one as configured; ``gain``: how much the best is above the default;
        ``params``: the best's numbers as YAML; ``verdict``: what it says, in words.
    """
    ranked: list[dict[str, Any]] = []
    for number, scores in reversed(list(enumerate(rounds, start=1))):
        seen = {row["name"] for row in ranked}
        new = [{**row, "round": number} for row in scores if row["name"] not in seen]
        ranked += sorted(new, key=lambda row: -row["score"])
    best, default = ranked[0], next(row for row in ranked if row["name"] == DEFAULT)
    result = {
        "metric": config.tune.metric,
        "trials": ranked,
        "best": best,
        "default": default,
        "gain": best["score"] - default["score"],
        "params": snippet(config, best["values"]) if best["values"] else "",
    }
    return result | {"verdict": verdict(result)}


def to_markdown(result: Mapping[str, Any]) -> str:
    """The search's page."""
    body = [
        [
            row["name"],
            f"{row['score']:.3f}",
            "{:.3f} to {:.3f}".format(*row["interval"]) if row["interval"] else "-",
            str(row["round"]),
            f"{row['steps']:,}",
        ]
        for row in result["trials"]
    ]
    table = markdown_table(["numbers", result["metric"], "95 % interval over the split", "round", "steps"], body)
    numbers = f"\n```yaml\n{result['params']}```\n" if result["params"] else ""
    return f"# Search for hyper-parameters\n\n{result['verdict']}\n{numbers}\n## Trials\n\n{table}\n"


def verdict(result: Mapping[str, Any]) -> str:
    """What the search says, and how little that is."""
    best, default = result["best"], result["default"]
    if best is default:
        return f"No trial beats the numbers as configured ({result['metric']} {default['score']:.3f})."
    return (
        f"{best['name']} has {result['metric']} {best['score']:.3f} on the validation split, {result['gain']:.3f} "
        f"above the numbers as configured ({default['score']:.3f}). It is the best of {len(result['trials'])}, each "
        "trained once, so part of that is luck: train it and evaluate it on the test split before you believe it."
    )

"""A model card: what a trained model is, what it was made from, how good it is and where it fails, on one page.

Everything in it comes from the report, the numbers and the gate; what a person should add has a line that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mulan_core.config import Config
from mulan_core.evaluation.metric_labels import behaviour_lines, grouped_metrics
from mulan_core.gate import Decision

LONGEST = 4_900
"""Characters; what MLflow takes as a version's description on every database is 5,000."""
CUT = "\n\n... (cut here; the run's report has all)\n"
UNSAID = "Nobody has said yet for whom this model is and which licences its data has: set `about` in the params."
MEANS = ("roc_auc", "auc", "map", "accuracy")
"""Last parts of the metrics that a card shows; the report has all."""


def model_card(report: Mapping[str, Any], config: Config, decision: Decision, *, made_by: Mapping[str, str]) -> str:
    """The card as Markdown, at most ``LONGEST`` characters long.

    Args:
        report: of the evaluation on the model's own test split.
        config: its numbers; ``about`` is what people say of it.
        decision: the gate's.
        made_by: name -> value of what it can be traced to: MLflow run, data hash, commit.
    """
    model, train = config.model, config.train
    audio = model.audio.pretrained or f"new weights ({model.audio.kind})"
    sources = " : ".join(f"{name} {weight:g}" for name, weight in train.source_weights.items() if weight)
    counts = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in report["set"]["counts"].items())
    word = "passed" if decision.promote else "was refused by"
    parts = [
        "Two towers, audio and text, in one space of "
        f"{model.embedding_dim} dimensions: the cosine of a clip's and a text's vector says how well they fit "
        "(MuLan, ISMIR 2022).",
        "## Made from\n\n"
        + "\n".join(
            [
                f"- audio tower: {model.audio.kind}, from {audio}; text tower from {model.text.pretrained}",
                f"- {model.frontend.window_s:g} s windows, {model.frontend.num_mels} mel bands, 16 kHz",
                f"- {train.steps:,} steps of {train.batch_size:,} pairs; loss `{train.loss}`; sources {sources}",
                *(f"- {name}: `{value}`" for name, value in made_by.items()),
            ]
        ),
        f"## How good\n\nMeasured on: {counts}. In brackets: 95 % intervals.\n\n{_table(report)}\n\n"
        f"It {word} the gate:\n\n" + "\n".join(f"- {reason}" for reason in decision.reasons),
        f"## For whom\n\n{config.about.strip() or UNSAID}",
        "## Where it fails\n\n" + "\n".join(f"- {line}" for line in _limits(report)),
    ]
    card = "\n\n".join(parts) + "\n"
    if len(card) <= LONGEST:
        return card
    return card[: LONGEST - len(CUT)].rsplit("\n", 1)[0] + CUT


def _table(report: Mapping[str, Any]) -> str:
    lines = ["| metric | value | chance |", "|---|---|---|"]
    for heading, metrics in grouped_metrics(report):
        for label, name in metrics:
            if name.rsplit("/", 1)[-1] not in MEANS:
                continue
            value, interval = report["metrics"][name], report["intervals"].get(name)
            shown = f"{value:.3f}" + (f" ({interval[0]:.3f}-{interval[1]:.3f})" if interval else "")
            chance = report["chance"].get(name)
            lines.append(f"| {heading}: {label} | {shown} | {'' if chance is None else format(chance, '.3f')} |")
    return "\n".join(lines)


def _limits(report: Mapping[str, Any]) -> list[str]:
    """The weakest classes and slices, what silence, noise and negation do, and what was not measured."""
    weakest = sorted((row for row in report["per_class"] if row["tracks"] == "test"), key=lambda row: row["roc_auc"])[
        :3
    ]
    lines = [f"{row['label']}: ROC-AUC {row['roc_auc']:.3f} of {row['positives']} tracks" for row in weakest]
    lines += [f"{what}: {sentence}" for what, sentence in behaviour_lines(report)]
    lines += [str(note) for note in report["notes"]]
    return lines or ["nothing was measured of this"]

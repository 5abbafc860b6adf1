"""Fine-tune the classifier of LF text on labelled lines, calibrate it, and choose its threshold.

Shape letters: N held-out lines, K distinct probabilities.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from mulan_core.config import TextClassifierConfig, to_mapping
from mulan_core.errors import UserError
from mulan_core.evaluation.metrics import average_precision
from mulan_core.text.classifier import TextClassifier
from mulan_core.text.filters import duplicate_key

MIN_OF_EACH = 20
"""Lines of each label below which nothing can be said about precision."""

TEMPERATURES = np.geomspace(0.1, 10.0, 401)
"""Tried in calibration."""


def train_classifier(
    labels: Mapping[str, bool], config: TextClassifierConfig, *, progress: Callable[[int, int, str], None] | None = None
) -> tuple[TextClassifier, dict[str, Any]]:
    """Train on labelled lines; the same lines, numbers and threads give the same weights.

    Args:
        labels: line -> whether it describes music. Of lines with one ``duplicate_key`` the last counts.
        config: the numbers.
        progress: called with (steps done, steps in all, a word on the last pass).

    Returns:
        The classifier, and its report for ``save_pretrained``: losses of each pass, and precision, recall and the
        curve on the held-out part. Pass, temperature and threshold are chosen on that part, so its figures flatter
        a little; docs/data.md has some on other lines.

    Raises:
        UserError: if there are too few lines of a label, or no threshold reaches the precision asked for.
    """
    lines = list({duplicate_key(text): (text, describes) for text, describes in labels.items()}.values())
    train, held_out = _split(lines, config)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(config.seed)
        classifier = TextClassifier.from_weights(config.pretrained, max_tokens=config.max_tokens)
        classifier.network.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
        passes = _fit(classifier, train, held_out, config, progress)
    classifier.network.eval()
    measured, curve = _calibrate(classifier, held_out, config)
    report = {
        "lines": len(lines),
        "descriptions": sum(describes for _, describes in lines),
        "labels_hash": hashlib.sha256(json.dumps(sorted(lines)).encode()).hexdigest()[:12],
        "config": to_mapping(config),
        "held_out": measured,
        "passes": passes,
        "curve": curve,
    }
    return classifier, report


def fit_temperature(logits_N: np.ndarray, wanted_N: np.ndarray) -> float:
    """The temperature under which the logits fit the labels best (Guo et al. 2017).

    The labels are softened as Platt (1999) does, by one line of each kind that nobody saw: without it, the best
    temperature on a part without a mistake would be 0, and every probability 0 or 1.
    """
    positives, negatives = wanted_N.sum(), (~wanted_N).sum()
    targets_N = np.where(wanted_N, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    return float(min(TEMPERATURES, key=lambda t: log_loss(logits_N / t, targets_N)))


def precision_recall(probabilities_N: np.ndarray, wanted_N: np.ndarray) -> list[dict[str, float]]:
    """Precision and recall at each distinct probability taken as threshold, from the highest down: K points."""
    order = np.argsort(-probabilities_N, kind="stable")
    ordered, hits_N = probabilities_N[order], np.cumsum(wanted_N[order])
    last_K = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    return [
        {
            "threshold": float(ordered[k]),
            "precision": float(hits_N[k] / (k + 1)),
            "recall": float(hits_N[k] / hits_N[-1]),
        }
        for k in last_K
    ]


def choose_threshold(curve: list[dict[str, float]], precision: float) -> dict[str, float]:
    """The point of a curve with the highest recall at this precision; of several with that recall the most precise.

    Where the classifier tells both kinds apart without a mistake, the lowest threshold of that precision would let in
    one other line for every nineteen descriptions for nothing. The threshold is moved half-way to the next probability
    below, so that a difference in the last digit, as other batch-mates make it, changes no verdict.

    Raises:
        UserError: if no point reaches the precision.
    """
    reaching = [k for k, point in enumerate(curve) if point["precision"] >= precision and point["recall"] > 0]
    if not reaching:
        best = max(curve, key=lambda point: point["precision"])
        raise UserError(
            f"no threshold reaches precision {precision:g} on the held-out lines (best: {best['precision']:.3f} at "
            f"recall {best['recall']:.3f}); label more lines, or lower text_classifier.precision"
        )
    k = max(reaching, key=lambda k: (curve[k]["recall"], curve[k]["precision"]))
    below = curve[k + 1]["threshold"] if k + 1 < len(curve) else 0.0
    return curve[k] | {"threshold": (curve[k]["threshold"] + below) / 2}


def log_loss(logits_N: np.ndarray, targets_N: np.ndarray) -> float:
    """Mean cross-entropy of the labels, or of probabilities in their place, nats."""
    return float((np.logaddexp(0, logits_N) - targets_N * logits_N).mean())


Lines = list[tuple[str, bool]]


def _split(lines: Lines, config: TextClassifierConfig) -> tuple[Lines, Lines]:
    """Train and held-out part, the same share of each label; which line goes where depends on its text and the seed."""
    train: Lines = []
    held_out: Lines = []
    for label in (True, False):
        label_lines = [line for line in lines if line[1] == label]
        if len(label_lines) < MIN_OF_EACH:
            counts = {wanted: sum(line[1] == wanted for line in lines) for wanted in (True, False)}
            raise UserError(
                f"there are {counts[True]} lines labelled as descriptions and {counts[False]} as others; "
                f"label at least {MIN_OF_EACH} of each (`mulan text label`)"
            )
        label_lines.sort(key=lambda line: hashlib.sha256(f"{config.seed} {duplicate_key(line[0])}".encode()).digest())
        cut = max(1, round(config.held_out * len(label_lines)))
        held_out += label_lines[:cut]
        train += label_lines[cut:]
    return train, held_out


def _fit(
    classifier: TextClassifier,
    train: Lines,
    held_out: Lines,
    config: TextClassifierConfig,
    progress: Callable[[int, int, str], None] | None,
) -> list[dict[str, float]]:
    """Train until the held-out loss rises, and leave the best pass's weights in the network."""
    network = classifier.network
    steps = math.ceil(len(train) / config.batch_size)
    total = steps * config.epochs
    optimizer = torch.optim.AdamW(_parameter_groups(network, config.weight_decay), lr=config.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total))
    generator = torch.Generator().manual_seed(config.seed)
    wanted_N = np.array([describes for _, describes in held_out])
    passes: list[dict[str, float]] = []
    best: dict[str, Any] = {}
    note = ""
    for epoch in range(config.epochs):
        network.train()
        order, losses = torch.randperm(len(train), generator=generator).tolist(), []
        for step in range(steps):
            batch = [train[i] for i in order[step * config.batch_size : (step + 1) * config.batch_size]]
            logits_B = classifier.forward([text for text, _ in batch])
            labels_B = torch.tensor([float(describes) for _, describes in batch], device=logits_B.device)
            loss = binary_cross_entropy_with_logits(logits_B, labels_B)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if progress:
                progress(epoch * steps + step + 1, total, note)
        held_out_loss = log_loss(classifier.logits([text for text, _ in held_out]), wanted_N)
        if not passes or held_out_loss < min(past["held_out_loss"] for past in passes):
            best = copy.deepcopy(network.state_dict())
        passes.append({"train_loss": float(np.mean(losses)), "held_out_loss": held_out_loss})
        note = f"held-out loss {held_out_loss:.3f}"
        if _since_best(passes) >= config.patience:
            break
    network.load_state_dict(best)
    return passes


def _calibrate(
    classifier: TextClassifier, held_out: Lines, config: TextClassifierConfig
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Set temperature and threshold; returns what was measured, and the curve."""
    texts, wanted_N = [text for text, _ in held_out], np.array([describes for _, describes in held_out])
    logits_N = classifier.logits(texts, batch_size=config.batch_size)
    classifier.temperature = fit_temperature(logits_N, wanted_N)
    probabilities_N = classifier.predict(texts, batch_size=config.batch_size)
    curve = precision_recall(probabilities_N, wanted_N)
    point = choose_threshold(curve, config.precision)
    classifier.threshold = point["threshold"]
    measured = {
        "lines": len(held_out),
        "descriptions": int(wanted_N.sum()),
        **point,
        "average_precision": average_precision(probabilities_N, wanted_N),
        "loss": log_loss(logits_N, wanted_N),
        "calibrated_loss": log_loss(logits_N / classifier.temperature, wanted_N),
    }
    return measured, curve


def _since_best(passes: list[dict[str, float]]) -> int:
    losses = [past["held_out_loss"] for past in passes]
    return len(losses) - 1 - losses.index(min(losses))


def _rate(step: int, total: int) -> float:
    warmup = max(1, total // 10)
    return min((step + 1) / warmup, max(0.0, (total - step) / max(1, total - warmup)))


def _parameter_groups(network: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]

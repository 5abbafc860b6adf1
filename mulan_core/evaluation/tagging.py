"""Zero-shot tagging: rank the tracks by the cosine of their vector and a label's text (paper, section 4.2).

Shape letters: N tracks, C classes, D embedding size, B resamples.

A class is a label, ``facet:Name`` or plain ``Name``; its text is the part after the first colon, put into the
templates. The metric of a facet is the unweighted mean over its classes (the paper's class-balanced AUC); where some of
them are negations ("no vocals"), they and the others are averaged apart as well. A class without a positive or without
a negative among the tracks has no metric: it is skipped, counted and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mulan_core.errors import UserError
from mulan_core.evaluation.bootstrap import bootstrap_weights, percentile_interval
from mulan_core.evaluation.metrics import expected_average_precision, weighted_curves

_CLASSES_AT_ONCE = 16
PLAIN_FACET = "tag"
"""Facet of a label that names none."""


def split_label(label: str) -> tuple[str, str]:
    """Facet and text of a label.

    >>> split_label("genre:Drum and bass"), split_label("calm")
    (('genre', 'Drum and bass'), ('tag', 'calm'))
    """
    facet, colon, name = label.partition(":")
    return (facet, name.strip()) if colon else (PLAIN_FACET, label)


def label_texts(label: str, templates: Sequence[str]) -> tuple[str, ...]:
    """The texts that are embedded for a label, one a template.

    >>> label_texts("genre:Rock", ["{}", "{} music"])
    ('Rock', 'Rock music')
    """
    return tuple(template.replace("{}", split_label(label)[1]) for template in templates)


def is_negation(label: str) -> bool:
    """Whether a label says what is not there: its text begins with no, not, non or without.

    MagnaTagATune has 17 of them among its 188 tags, 3 among its Top-50 (section 4.2.1: text towers place "not rock"
    near "rock"). "No wave" is a genre.

    >>> [is_negation(label) for label in ("no vocals", "tag:not rock", "without drums", "nocturne", "genre:No wave")]
    [True, True, True, False, False]
    """
    words = split_label(label)[1].lower().replace("-", " ").split()
    return bool(words) and words[0] in ("no", "not", "non", "without") and words != ["no", "wave"]


def positives_of(track_ids: Sequence[str], labels: Mapping[str, Sequence[str]], classes: Sequence[str]) -> NDArray:
    """Which track has which class: bool positives_NC."""
    column = {label: c for c, label in enumerate(classes)}
    positives_NC = np.zeros((len(track_ids), len(classes)), dtype=bool)
    for n, track_id in enumerate(track_ids):
        for label in labels.get(track_id) or ():
            if label in column:
                positives_NC[n, column[label]] = True
    return positives_NC


def zero_shot_scores(tracks_ND: NDArray[np.floating], text_CD: NDArray[np.floating]) -> Iterator[NDArray[np.floating]]:
    """Per class the cosines of all tracks with its text, (N,) each; a few classes are in memory at a time."""
    for first in range(0, len(text_CD), _CLASSES_AT_ONCE):
        yield from np.ascontiguousarray(text_CD[first : first + _CLASSES_AT_ONCE] @ tracks_ND.T)


@dataclass(frozen=True)
class ClassScore:
    """Metrics of one class on one set of tracks."""

    label: str
    positives: int
    tracks: int
    roc_auc: float
    pr_auc: float
    roc_auc_interval: tuple[float, float] | None
    pr_auc_interval: tuple[float, float] | None

    @property
    def facet(self) -> str:
        """Facet of the label."""
        return split_label(self.label)[0]

    @property
    def chance_pr_auc(self) -> float:
        """Expected average precision of a random order of these tracks."""
        return expected_average_precision(self.positives, self.tracks)


@dataclass(frozen=True)
class TaggingResult:
    """Metrics per class and per facet."""

    classes: tuple[ClassScore, ...]
    """Classes with a metric, in the order of the labels."""
    skipped: tuple[tuple[str, str], ...]
    """(label, reason) of those without."""
    metrics: dict[str, float]
    """``<facet>/roc_auc`` and ``<facet>/pr_auc``: means over the facet's classes. With negations among them also
    ``<facet>/negations/...`` and ``<facet>/without_negations/...``."""
    intervals: dict[str, tuple[float, float]]
    """The same names -> 95 % percentile interval over resampled tracks."""
    chance: dict[str, float]
    """The same names -> level of a random ranking."""


def score_classes(
    scores_CN: Iterable[NDArray[np.floating]],
    positives_NC: NDArray[np.bool_],
    classes: Sequence[str],
    *,
    resamples: int,
    seed: int,
    overall: bool = False,
) -> TaggingResult:
    """Score the ranking of the tracks for each class, and average over each facet.

    Every class sees the same resampled tracks, so the interval of a facet's mean keeps the correlation of its
    classes. In a resample a class that lost all its positives is left out of the mean.

    Args:
        scores_CN: per class the scores of the tracks, higher means more likely, finite; read one after the other, so
            they need not all be in memory.
        positives_NC: which track has which class.
        classes: label of each column.
        resamples: bootstrap resamples of the tracks; 0 gives no intervals.
        seed: seed of the resamples.
        overall: also average over the classes of all facets, as ``all/...``, where there are several.
    """
    num_tracks = len(positives_NC)
    # Row 0 is the sample itself.
    weights_BN = np.ones((1 + resamples, num_tracks), np.uint16)
    if num_tracks:
        weights_BN[1:] = bootstrap_weights(num_tracks, resamples=resamples, seed=seed)
    scored, skipped, auc_CB, ap_CB = [], [], [], []
    for c, (label, scores_N) in enumerate(zip(classes, scores_CN, strict=True)):
        if not np.isfinite(scores_N).all():
            raise UserError(f"tagging scores of {label} are not finite: the model gave NaN or infinite vectors")
        count = int(positives_NC[:, c].sum())
        if not 0 < count < num_tracks:
            skipped.append((label, "no track has it" if count == 0 else "every track has it"))
            continue
        auc_B, ap_B = weighted_curves(scores_N, positives_NC[:, c], weights_BN)
        auc_CB.append(auc_B)
        ap_CB.append(ap_B)
        scored.append(
            ClassScore(
                label=label,
                positives=count,
                tracks=num_tracks,
                roc_auc=float(auc_B[0]),
                pr_auc=float(ap_B[0]),
                roc_auc_interval=percentile_interval(auc_B[1:], centre=auc_B[0]),
                pr_auc_interval=percentile_interval(ap_B[1:], centre=ap_B[0]),
            )
        )
    groups = class_groups([score.label for score in scored], overall=overall)
    metrics, intervals, chance = _group_means(scored, groups, {"roc_auc": auc_CB, "pr_auc": ap_CB})
    return TaggingResult(tuple(scored), tuple(skipped), metrics, intervals, chance)


def _group_means(
    scored: Sequence[ClassScore],
    groups: Mapping[str, Sequence[int]],
    values: Mapping[str, list[NDArray[np.float64]]],
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, float]]:
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    chance: dict[str, float] = {}
    for group, rows in groups.items():
        for metric, per_class in values.items():
            values_CB = np.stack([per_class[i] for i in rows])
            known_CB = ~np.isnan(values_CB)
            known_B = known_CB.sum(axis=0)
            means_B = np.where(known_CB, values_CB, 0.0).sum(axis=0) / np.where(known_B, known_B, np.nan)
            name = f"{group}/{metric}"
            metrics[name] = float(means_B[0])
            interval = percentile_interval(means_B[1:], centre=means_B[0])
            if interval is not None:
                intervals[name] = interval
        chance[f"{group}/roc_auc"] = 0.5
        chance[f"{group}/pr_auc"] = float(np.mean([scored[i].chance_pr_auc for i in rows]))
    return metrics, intervals, chance


def class_groups(labels: Sequence[str], *, overall: bool) -> dict[str, list[int]]:
    """Name -> the classes that are averaged under it: each facet, its negations apart, ``all`` where it is asked for.

    >>> class_groups(["genre:Rock", "genre:Jazz", "mood:Calm"], overall=True)
    {'genre': [0, 1], 'mood': [2], 'all': [0, 1, 2]}
    """
    facets = [split_label(label)[0] for label in labels]
    groups: dict[str, list[int]] = {}
    for facet in dict.fromkeys(facets):
        rows = [i for i, name in enumerate(facets) if name == facet]
        negations = [i for i in rows if is_negation(labels[i])]
        groups[facet] = rows
        if negations:
            groups[f"{facet}/negations"] = negations
        if 0 < len(negations) < len(rows):
            groups[f"{facet}/without_negations"] = [i for i in rows if i not in negations]
    if overall and len(set(facets)) > 1:
        groups["all"] = list(range(len(labels)))
    return groups

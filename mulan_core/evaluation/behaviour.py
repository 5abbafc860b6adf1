"""How a model behaves where its metrics do not look: silence and noise among the hits, labels that are negated.

Shape letters: N tracks, Q queries, M made-up clips, C classes, D embedding size.

A catalogue has clips with nothing in them, and users write "no drums". A model may score well on the test set and still
answer every query with a silent file, or "no drums" with drums; nothing in a ranking of real tracks shows it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mulan_core.evaluation.encoder import Encoder
from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.metrics import roc_auc
from mulan_core.evaluation.tagging import is_negation, split_label

TOP = 10
"""The first hits: as many as a search shows."""
SAMPLE_RATE_HZ, CLIP_S = 16_000, 10.0
NOISES = 8
"""Clips of white noise, each another draw; silence is one."""
MAX_QUERIES = 1_000
"""Queries that are asked, evenly drawn from all."""
FORMS = ("no", "not")
"""Words put before a label to negate it."""
_AT_ONCE = 64


def measure_behaviour(encoder: Encoder, evidence: Evidence) -> dict[str, Any]:
    """What the report holds as ``behaviour``; empty for a model without both sides, or vectors from elsewhere.

    Args:
        encoder: the model.
        evidence: of its evaluation: tracks, queries, classes.

    Returns:
        ``silence`` and ``noise``: ``share`` of (query, clip) in which the clip would be among the first ``TOP`` hits,
        its ``chance``, counts. ``negation``: ``below``, how much of a label's tracks scores lower with the negated
        label than with the label, mean over labels; ``roc_auc`` of the negated label as a query for the tracks without
        the label (0.5 by chance; a tower that overlooks the negation is far below), counts. Each is missing where
        there is nothing to measure it on.
    """
    if encoder.model is None or not (encoder.has_audio and encoder.has_text) or not evidence.track_ids:
        return {}
    return {**_intrusion(encoder, evidence), **_negation(encoder, evidence)}


def made_clips() -> dict[str, list[NDArray[np.float32]]]:
    """Clips with nothing in them, mono at ``SAMPLE_RATE_HZ``; the same at every call."""
    samples = round(CLIP_S * SAMPLE_RATE_HZ)
    generator = np.random.default_rng(0)
    noises = [(0.1 * generator.standard_normal(samples)).astype(np.float32) for _ in range(NOISES)]
    return {"silence": [np.zeros(samples, np.float32)], "noise": noises}


def _intrusion(encoder: Encoder, evidence: Evidence) -> dict[str, Any]:
    rows = np.unique(evidence.query_text_Q) if len(evidence.query_text_Q) else np.unique(evidence.class_text_C)
    rows = rows[rows >= 0]
    if not len(rows):
        return {}
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_QUERIES)).astype(np.int64)]
    top = min(TOP, len(evidence.track_ids))
    intrusion: dict[str, Any] = {}
    for name, waves in made_clips().items():
        ids = [f"{name} {m}" for m in range(len(waves))]
        clips_MD = encoder.embed_tracks(ids, waves, sampling_rate=SAMPLE_RATE_HZ)
        if not np.isfinite(clips_MD).all():
            continue
        inside = sum(
            _inside(evidence.texts_TD[rows[first : first + _AT_ONCE]], evidence.tracks_ND, clips_MD, top)
            for first in range(0, len(rows), _AT_ONCE)
        )
        share, chance = inside / (len(rows) * len(waves)), top / (len(evidence.track_ids) + 1)
        intrusion[name] = {
            "share": share,
            "chance": chance,
            "queries": len(rows),
            "clips": len(waves),
            "first_hits": top,
        }
    return intrusion


def _inside(
    queries_qD: NDArray[np.floating], tracks_ND: NDArray[np.floating], clips_MD: NDArray[np.floating], top: int
) -> int:
    """Pairs of query and clip in which fewer than ``top`` tracks score above the clip."""
    scores_qN = queries_qD @ tracks_ND.T
    last_q = np.partition(scores_qN, -top, axis=1)[:, -top]
    return int(np.count_nonzero(queries_qD @ clips_MD.T >= last_q[:, None]))


def _negation(encoder: Encoder, evidence: Evidence) -> dict[str, Any]:
    columns = [
        c
        for c, label in enumerate(evidence.classes)
        if 0 < evidence.positives_NC[:, c].sum() < len(evidence.track_ids) and not is_negation(label)
    ]
    names = [split_label(evidence.classes[c])[1] for c in columns]
    asked = [text for name in names for text in (name, *(f"{form} {name}" for form in FORMS))]
    if not asked or encoder.unknown_texts(asked):
        return {}
    vectors = dict(zip(dict.fromkeys(asked), encoder.embed_texts(list(dict.fromkeys(asked))), strict=True))
    below, aucs = [], []
    for c, name in zip(columns, names, strict=True):
        has_N = evidence.positives_NC[:, c]
        plain_N = evidence.tracks_ND @ vectors[name]
        for form in FORMS:
            negated_N = evidence.tracks_ND @ vectors[f"{form} {name}"]
            below.append(float(np.mean(negated_N[has_N] < plain_N[has_N])))
            aucs.append(roc_auc(negated_N, ~has_N))
    negation = {"below": float(np.mean(below)), "roc_auc": float(np.mean(aucs)), "chance": 0.5, "classes": len(columns)}
    return {"negation": negation} if np.isfinite(negation["roc_auc"]) else {}

"""The whole evaluation of one model on one test set: vectors and texts in, a JSON-able report out.

Shape letters: N tracks, C classes, D embedding size, Q queries.

The suite knows no model: it takes track vectors and a function that embeds texts. What cannot be measured (no
playlists, no training split, a class without positives) is left out of ``metrics`` and said in ``notes``; the report
never holds NaN.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mulan_core.config import EvaluateConfig
from mulan_core.errors import UserError
from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.probe import Probe, linear_probe
from mulan_core.evaluation.retrieval import RECALL_AT, retrieve
from mulan_core.evaluation.tagging import TaggingResult, label_text, positives_of, score_classes, split_label
from mulan_core.evaluation.triplets import triplet_accuracy

Split = tuple[Sequence[str], NDArray[np.floating]]
"""Track ids and their unit vectors_ND."""
Embed = Callable[[list[str]], NDArray[np.floating]]
"""Texts to unit vectors."""

WINDOW_POLICY = "windows spread evenly over the clip; a track is the re-normalised mean of its unit window vectors"


def evaluate(
    audio: Mapping[str, Split],
    *,
    labels: Mapping[str, Sequence[str]],
    playlists: Sequence[Mapping[str, Any]],
    embed_texts: Embed,
    config: EvaluateConfig,
    held_out: Collection[str] = (),
    own_texts: Mapping[str, str] | None = None,
    set_info: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Evidence]:
    """Measure tagging, probe, retrieval and triplets on the test split.

    Args:
        audio: split -> (track ids, vectors_ND); ``test`` is needed, ``train`` and ``valid`` serve the probe.
        labels: track id -> labels ``facet:Name``.
        playlists: rows with playlist_id, title, description, track_ids and optionally split; only those of the
            test split count, and only their tracks in the test split.
        embed_texts: texts -> unit vectors; called once, with distinct texts.
        config: template, probe strengths, number of triplets and of resamples, seed.
        held_out: tracks whose combination of attributes was kept out of training; tagged apart as well.
        own_texts: track id -> one text of the track itself, a query for it; the one retrieval that a catalogue
            without labels and playlists allows. Tracks with the same text answer each other's query.
        set_info: what else names the set and the model (name, data hash, model version); copied into ``set``.

    Returns:
        The report, its fields described in docs/evaluation.md; and what it was computed from.

    Raises:
        UserError: if there is no test track, or the model gave vectors that are not finite.
    """
    _check(audio)
    test_ids = audio["test"][0]
    classes = sorted({label for track_id in test_ids for label in labels.get(track_id) or ()})
    queries = _test_playlists(playlists, set(test_ids))
    query_sets = {field: [row for row in queries if row[field]] for field in ("title", "description")}
    query_sets["text"] = _own_text_queries(own_texts or {}, test_ids)
    vectors = _embed_once(
        [label_text(label, config.template) for label in classes]
        + [row[field] for field, rows in query_sets.items() for row in rows],
        embed_texts,
    )
    described = _describe_set(audio, labels, queries, held_out=held_out, own_texts=own_texts or {}, config=config)
    report: dict[str, Any] = {
        "set": {**(set_info or {}), **described},
        "metrics": {},
        "intervals": {},
        "chance": {},
        "per_class": [],
        "per_query": [],
        "notes": [],
    }
    probe = _add_tagging(
        report, audio, labels=labels, classes=classes, vectors=vectors, held_out=held_out, config=config
    )
    _add_retrieval(report, audio["test"], query_sets, vectors, config)
    _add_triplets(report, queries, vectors, config)
    dropped = sum(row.get("split", "test") == "test" for row in playlists) - len(queries)
    if dropped:
        report["notes"].append(f"{dropped} playlists left out: none of their tracks is in the test split.")
    evidence = _evidence(
        audio["test"],
        positives_NC=positives_of(test_ids, labels, classes),
        classes=classes,
        vectors=vectors,
        query_sets=query_sets,
        held_out=held_out,
        probe=probe,
        config=config,
    )
    return report, evidence


def _add_tagging(
    report: dict[str, Any],
    audio: Mapping[str, Split],
    *,
    labels: Mapping[str, Sequence[str]],
    classes: list[str],
    vectors: Mapping[str, NDArray[np.floating]],
    held_out: Collection[str],
    config: EvaluateConfig,
) -> Probe | None:
    """Zero-shot tagging on all test tracks and on the held-out ones alone; the probe on all."""
    test_ids, test_ND = audio["test"]
    if not classes:
        report["notes"].append("No test track has a label: tagging and the linear probe are not measured.")
        return None
    positives_NC = positives_of(test_ids, labels, classes)
    text_CD = np.stack([vectors[label_text(label, config.template)] for label in classes])
    scores_NC = test_ND @ text_CD.T
    tagging = score_classes(scores_NC, positives_NC, classes, resamples=config.bootstrap, seed=config.seed)
    _add_scores(report, "tagging", tagging)
    rows = _class_rows("test", tagging)

    apart_ids = set(held_out)
    held_out_N = np.array([track_id in apart_ids for track_id in test_ids])
    apart = None
    if held_out_N.any():
        apart = score_classes(
            scores_NC[held_out_N], positives_NC[held_out_N], classes, resamples=config.bootstrap, seed=config.seed
        )
        _add_scores(report, "tagging/held_out", apart)

    probe, probed = _probe(report, audio, labels, classes, config)
    if probed is not None:
        _add_scores(report, "probe", probed)
        by_label = {score.label: score for score in probed.classes}
        for row in rows:
            if row["label"] in by_label:
                row["probe_roc_auc"] = by_label[row["label"]].roc_auc
                row["probe_pr_auc"] = by_label[row["label"]].pr_auc
    report["per_class"] = rows + (_class_rows("held_out", apart) if apart else [])
    report["set"]["counts"]["classes"] = len(tagging.classes)
    report["set"]["counts"]["skipped_classes"] = len(tagging.skipped)
    for label, reason in tagging.skipped:
        report["notes"].append(f"Class {label} skipped: {reason}.")
    if apart and apart.skipped:
        names = ", ".join(label for label, _ in apart.skipped)
        report["notes"].append(f"{len(apart.skipped)} classes skipped on the held-out tracks: {names}.")
    return probe


def _probe(
    report: dict[str, Any],
    audio: Mapping[str, Split],
    labels: Mapping[str, Sequence[str]],
    classes: list[str],
    config: EvaluateConfig,
) -> tuple[Probe, TaggingResult] | tuple[None, None]:
    test_ids, test_ND = audio["test"]
    train_ids, train_ND = audio.get("train", ((), test_ND[:0]))
    valid_ids, valid_ND = audio.get("valid", ((), test_ND[:0]))
    if not len(train_ids):
        report["notes"].append("No training tracks were given: the linear probe is not measured.")
        return None, None
    probe = linear_probe(
        (train_ND, positives_of(train_ids, labels, classes)),
        (valid_ND, positives_of(valid_ids, labels, classes)),
        test_ND,
        strengths=config.probe_l2,
    )
    report["set"]["protocol"]["probe_strength"] = probe.strength
    if not probe.valid_auc:
        report["notes"].append(f"No validation labels: the probe uses strength {probe.strength:g}, not a chosen one.")
    trained = [label for label, known in zip(classes, probe.trained, strict=True) if known]
    untrained = [label for label, known in zip(classes, probe.trained, strict=True) if not known]
    if untrained:
        report["notes"].append(
            f"{len(untrained)} classes without training examples not probed: {', '.join(untrained)}."
        )
    probed = score_classes(
        probe.scores[:, probe.trained],
        positives_of(test_ids, labels, trained),
        trained,
        resamples=config.bootstrap,
        seed=config.seed,
    )
    return probe, probed


def _add_retrieval(
    report: dict[str, Any],
    test: Split,
    query_sets: Mapping[str, list[dict[str, Any]]],
    vectors: Mapping[str, NDArray[np.floating]],
    config: EvaluateConfig,
) -> None:
    test_ids, test_ND = test
    index = {track_id: n for n, track_id in enumerate(test_ids)}
    for field, rows in query_sets.items():
        report["set"]["counts"][f"{field}_queries"] = len(rows)
        if not rows:
            if field != "text":
                report["notes"].append(f"No test playlist has a {field}: retrieval by {field} is not measured.")
            continue
        relevant = [np.array([index[track_id] for track_id in row["track_ids"]], dtype=np.int64) for row in rows]
        queries_QD = np.stack([vectors[row[field]] for row in rows])
        result = retrieve(queries_QD, test_ND, relevant, resamples=config.bootstrap, seed=config.seed)
        for name, value in result.metrics.items():
            report["metrics"][f"retrieval/{field}/{name}"] = value
            report["chance"][f"retrieval/{field}/{name}"] = result.chance[name]
            if name in result.intervals:
                report["intervals"][f"retrieval/{field}/{name}"] = list(result.intervals[name])
        if result.ranking.num_skipped:
            report["notes"].append(f"{result.ranking.num_skipped} {field} queries skipped: every track answers them.")
        for q, row in enumerate(rows):
            if result.ranking.skipped[q]:
                continue
            wanted = set(relevant[q].tolist())
            report["per_query"].append(
                {
                    "query_set": field,
                    "playlist_id": row["playlist_id"],
                    "query": row[field],
                    "relevant": int(result.ranking.num_relevant[q]),
                    "auc": float(result.ranking.auc[q]),
                    "ap": float(result.ranking.ap[q]),
                    f"recall_at_{RECALL_AT}": float(result.ranking.recall_at_k[RECALL_AT][q]),
                    "best_rank": float(result.ranking.best_rank[q]),
                    "top": [
                        {"track_id": test_ids[n], "score": round(float(score), 6), "relevant": int(n) in wanted}
                        for n, score in zip(result.top[q], result.top_scores[q], strict=True)
                    ],
                }
            )


def _add_triplets(
    report: dict[str, Any],
    queries: list[dict[str, Any]],
    vectors: Mapping[str, NDArray[np.floating]],
    config: EvaluateConfig,
) -> None:
    pairs = [row for row in queries if row["title"] and row["description"]]
    if len(pairs) < 2:
        report["notes"].append("Fewer than two test playlists have title and description: triplets are not measured.")
        return
    result = triplet_accuracy(
        np.stack([vectors[row["title"]] for row in pairs]),
        np.stack([vectors[row["description"]] for row in pairs]),
        num_triplets=config.num_triplets,
        seed=config.seed,
    )
    name = "triplets/playlist/accuracy"
    report["metrics"][name] = result.accuracy
    report["chance"][name] = 0.5
    report["set"]["counts"] |= {"triplets": result.num_triplets, "triplet_anchors": len(pairs)}
    report["set"]["protocol"]["triplets"] = "all" if result.exhaustive else "a seeded sample"
    interval = result.interval(resamples=config.bootstrap, seed=config.seed)
    if interval is not None:
        report["intervals"][name] = list(interval)


def _add_scores(report: dict[str, Any], prefix: str, result: TaggingResult) -> None:
    for name, value in result.metrics.items():
        report["metrics"][f"{prefix}/{name}"] = value
        report["chance"][f"{prefix}/{name}"] = result.chance[name]
        if name in result.intervals:
            report["intervals"][f"{prefix}/{name}"] = list(result.intervals[name])


def _class_rows(tracks: str, result: TaggingResult) -> list[dict[str, Any]]:
    return [
        {
            "label": score.label,
            "facet": score.facet,
            "text": split_label(score.label)[1],
            "tracks": tracks,
            "positives": score.positives,
            "negatives": score.tracks - score.positives,
            "roc_auc": score.roc_auc,
            "roc_auc_interval": list(score.roc_auc_interval) if score.roc_auc_interval else None,
            "pr_auc": score.pr_auc,
            "pr_auc_interval": list(score.pr_auc_interval) if score.pr_auc_interval else None,
            "chance_pr_auc": score.chance_pr_auc,
        }
        for score in result.classes
    ]


def _test_playlists(playlists: Sequence[Mapping[str, Any]], test_ids: set[str]) -> list[dict[str, Any]]:
    """Playlists of the test split, reduced to their distinct test tracks; those left empty are dropped."""
    rows = []
    for playlist in playlists:
        if playlist.get("split", "test") != "test":
            continue
        track_ids = [track_id for track_id in dict.fromkeys(playlist["track_ids"]) if track_id in test_ids]
        if track_ids:
            texts = {field: (playlist.get(field) or "").strip() for field in ("title", "description")}
            rows.append({"playlist_id": playlist["playlist_id"], "track_ids": track_ids, **texts})
    return rows


def _own_text_queries(own_texts: Mapping[str, str], test_ids: Sequence[str]) -> list[dict[str, Any]]:
    """One query for each distinct text of a test track; all tracks that carry it are its answers."""
    answers: dict[str, list[str]] = {}
    for track_id in test_ids:
        if own_texts.get(track_id):
            answers.setdefault(own_texts[track_id], []).append(track_id)
    return [{"playlist_id": None, "text": text, "track_ids": ids} for text, ids in answers.items()]


def _embed_once(texts: Sequence[str], embed_texts: Embed) -> dict[str, NDArray[np.floating]]:
    """Text -> vector, each distinct text embedded once, so that equal texts tie exactly."""
    distinct = [text for text in dict.fromkeys(texts) if text]
    if not distinct:
        return {}
    vectors_ND = embed_texts(distinct)
    if not np.isfinite(vectors_ND).all():
        raise UserError("the model gave text vectors that are not finite; its weights are unusable")
    return dict(zip(distinct, vectors_ND, strict=True))


def _evidence(
    test: Split,
    *,
    positives_NC: NDArray[np.bool_],
    classes: Sequence[str],
    vectors: Mapping[str, NDArray[np.floating]],
    query_sets: Mapping[str, list[dict[str, Any]]],
    held_out: Collection[str],
    probe: Probe | None,
    config: EvaluateConfig,
) -> Evidence:
    test_ids, test_ND = test
    track = {track_id: n for n, track_id in enumerate(test_ids)}
    row_of = {text: t for t, text in enumerate(vectors)}
    queries = [(name, row) for name, rows in query_sets.items() for row in rows]
    pairs = [row for row in query_sets["title"] if row["description"]]
    apart = set(held_out)
    return Evidence(
        track_ids=tuple(test_ids),
        tracks_ND=np.asarray(test_ND, dtype=np.float32),
        classes=tuple(classes),
        positives_NC=positives_NC,
        held_out_N=np.array([track_id in apart for track_id in test_ids], dtype=bool),
        probe_NC=(probe.scores if probe else np.zeros((len(test_ids), 0))).astype(np.float32),
        texts=tuple(vectors),
        texts_TD=np.array(list(vectors.values()), dtype=np.float32).reshape(len(vectors), test_ND.shape[1]),
        class_text_C=np.array([row_of[label_text(label, config.template)] for label in classes], dtype=np.int64),
        query_sets=tuple(name for name, _ in queries),
        query_ids=tuple(str(row["playlist_id"] or "") for _, row in queries),
        query_text_Q=np.array([row_of[row[name]] for name, row in queries], dtype=np.int64),
        relevant=tuple(np.array([track[track_id] for track_id in row["track_ids"]], np.int64) for _, row in queries),
        pair_sets=("playlist",) * len(pairs),
        pair_anchor_P=np.array([row_of[row["title"]] for row in pairs], dtype=np.int64),
        pair_description_P=np.array([row_of[row["description"]] for row in pairs], dtype=np.int64),
    )


def _describe_set(
    audio: Mapping[str, Split],
    labels: Mapping[str, Sequence[str]],
    queries: list[dict[str, Any]],
    *,
    held_out: Collection[str],
    own_texts: Mapping[str, str],
    config: EvaluateConfig,
) -> dict[str, Any]:
    """What was measured on: counts, protocol, and a hash of everything that makes two reports comparable.

    The hash covers the test tracks, their labels, the held-out ones, the playlists and the protocol; it does not
    cover training data or the model, so that a model retrained on more data still compares with its predecessor.
    """
    test_ids = audio["test"][0]
    apart = sorted(set(held_out) & set(test_ids))
    protocol = {
        "template": config.template,
        "window_policy": WINDOW_POLICY,
        "num_triplets": config.num_triplets,
        "seed": config.seed,
    }
    content = {
        "tracks": {track_id: sorted(labels.get(track_id) or ()) for track_id in sorted(test_ids)},
        "held_out": apart,
        "playlists": sorted(queries, key=lambda row: str(row["playlist_id"])),
        "own_texts": dict(own_texts),
        "protocol": protocol,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    counts = {f"{split}_tracks": len(ids) for split, (ids, _) in audio.items()}
    return {
        "hash": digest,
        "protocol": {**protocol, "bootstrap": config.bootstrap},
        "counts": {**counts, "held_out_tracks": len(apart), "playlists": len(queries)},
    }


def _check(audio: Mapping[str, Split]) -> None:
    if "test" not in audio or not len(audio["test"][0]):
        raise UserError("the test split has no tracks: nothing can be evaluated; give some tracks split = test")
    for split, (ids, vectors_ND) in audio.items():
        if len(ids) != len(vectors_ND):
            raise UserError(f"split {split}: {len(ids)} track ids but {len(vectors_ND)} vectors")
        bad = ~np.isfinite(vectors_ND).all(axis=1)
        if bad.any():
            raise UserError(
                f"the model gave vectors that are not finite for {int(bad.sum())} {split} tracks, first "
                f"{ids[int(np.argmax(bad))]}; its weights are unusable"
            )

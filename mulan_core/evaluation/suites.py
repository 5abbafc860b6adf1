"""The measures of the suite: each fills its share of a report from vectors that are there already.

Shape letters: N tracks, C classes, D embedding size, Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mulan_core.config import EvaluateConfig
from mulan_core.evaluation.probe import linear_probe
from mulan_core.evaluation.retrieval import RECALL_AT, RetrievalResult, retrieve
from mulan_core.evaluation.sets.content import Content
from mulan_core.evaluation.sets.definition import QUERY_SETS
from mulan_core.evaluation.tagging import (
    ClassScore,
    TaggingResult,
    label_texts,
    score_classes,
    split_label,
    zero_shot_scores,
)
from mulan_core.evaluation.triplets import triplet_accuracy

Split = tuple[Sequence[str], NDArray[np.floating]]
"""Track ids and their unit vectors_ND."""
Vectors = Mapping[str, NDArray[np.floating]]
"""Text or label -> its vector."""
Report = dict[str, Any]


def prompts_of(label: str, content: Content, config: EvaluateConfig) -> tuple[str, ...]:
    """The texts that are embedded for a class."""
    return label_texts(content.class_texts.get(label, label), config.templates)


def class_vectors(prompts: Mapping[str, Sequence[str]], texts: Vectors) -> dict[str, NDArray[np.floating]]:
    """Label -> unit vector: that of its text, or the re-normalised mean of its prompts' vectors."""
    vectors = {}
    for label, class_prompts in prompts.items():
        vectors[label] = texts[class_prompts[0]]
        if len(class_prompts) > 1:
            mean_D = np.mean([texts[text] for text in class_prompts], axis=0)
            vectors[label] = mean_D / np.linalg.norm(mean_D)
    return vectors


def add_tagging(
    report: Report,
    test: Split,
    positives_NC: NDArray[np.bool_],
    classes: Sequence[str],
    *,
    class_vectors: Vectors,
    content: Content,
    config: EvaluateConfig,
) -> None:
    """Zero-shot tagging on all test tracks, and on the held-out ones alone; classes without a vector are left out."""
    test_ids, test_ND = test
    columns = [c for c, label in enumerate(classes) if label in class_vectors]
    classes = [classes[c] for c in columns]
    positives_NC = positives_NC[:, columns]
    text_CD = np.stack([class_vectors[label] for label in classes])
    options = _scoring(content, config)
    tagging = score_classes(zero_shot_scores(test_ND, text_CD), positives_NC, classes, **options)
    _add_scores(report, "tagging", tagging)
    report["per_class"] += _class_rows("test", tagging)
    report["set"]["counts"] |= {"classes": len(tagging.classes), "skipped_classes": len(tagging.skipped)}
    report["set"]["skipped_classes"] = dict(tagging.skipped)
    for reason in dict.fromkeys(reason for _, reason in tagging.skipped):
        names = [label for label, why in tagging.skipped if why == reason]
        report["notes"].append(f"Classes skipped, {reason}: {', '.join(names)}.")
    apart = set(content.held_out)
    held_out_N = np.array([track_id in apart for track_id in test_ids])
    if held_out_N.any():
        held_out_scores = zero_shot_scores(test_ND[held_out_N], text_CD)
        alone = score_classes(held_out_scores, positives_NC[held_out_N], classes, **options)
        _add_scores(report, "tagging/held_out", alone)
        report["per_class"] += _class_rows("held_out", alone)
        if alone.skipped:
            names = [label for label, _ in alone.skipped]
            report["notes"].append(f"{len(names)} classes skipped on the held-out tracks: {', '.join(names)}.")


def add_probe(
    report: Report,
    audio: Mapping[str, Split],
    positives: Mapping[str, NDArray[np.bool_]],
    classes: Sequence[str],
    *,
    content: Content,
    config: EvaluateConfig,
) -> NDArray[np.floating] | None:
    """The linear probe on all test tracks; its decision values_NC, or None where there is nothing to train on."""
    if "train" not in audio:
        report["notes"].append("No training tracks were given: the linear probe is not measured.")
        return None
    test_ND = audio["test"][1]
    nothing = (test_ND[:0], positives["test"][:0])
    probe = linear_probe(
        (audio["train"][1], positives["train"]),
        (audio["valid"][1], positives["valid"]) if "valid" in audio else nothing,
        test_ND,
        strengths=config.probe_c,
    )
    report["set"]["protocol"]["probe_strength"] = probe.strength
    if not probe.valid_auc:
        report["notes"].append(f"No validation labels: the probe uses strength {probe.strength:g}, not a chosen one.")
    trained = [label for label, is_trained in zip(classes, probe.trained, strict=True) if is_trained]
    untrained = [label for label in classes if label not in set(trained)]
    if untrained:
        report["notes"].append(
            f"{len(untrained)} classes without training examples not probed: {', '.join(untrained)}."
        )
    trained_scores = probe.scores[:, probe.trained].T
    probed = score_classes(trained_scores, positives["test"][:, probe.trained], trained, **_scoring(content, config))
    _add_scores(report, "probe", probed)
    rows = {row["label"]: row for row in report["per_class"] if row["tracks"] == "test"}
    for score in probed.classes:
        if score.label not in rows:  # the probe alone was measured
            rows[score.label] = _class_facts("test", score)
            report["per_class"].append(rows[score.label])
        rows[score.label] |= {"probe_roc_auc": score.roc_auc, "probe_pr_auc": score.pr_auc}
    return probe.scores


def add_retrieval(report: Report, test: Split, content: Content, texts: Vectors, config: EvaluateConfig) -> None:
    """Each kind of query against all test tracks."""
    test_ids, test_ND = test
    index = {track_id: n for n, track_id in enumerate(test_ids)}
    for kind, queries in content.queries.items():
        report["set"]["counts"][f"{kind}_queries"] = len(queries)
        if not queries:
            report["notes"].append(f"The test split has no {QUERY_SETS[kind]}: retrieval by {kind} is not measured.")
            continue
        relevant = [np.array([index[track_id] for track_id in query.track_ids], np.int64) for query in queries]
        queries_QD = np.stack([texts[query.text] for query in queries])
        result = retrieve(queries_QD, test_ND, relevant, resamples=config.bootstrap, seed=config.seed)
        _add_scores(report, f"retrieval/{kind}", result)
        if result.ranking.num_skipped:
            report["notes"].append(f"{result.ranking.num_skipped} {kind} queries skipped: every track answers them.")
        for q in range(len(queries)):
            if result.ranking.skipped[q]:
                continue
            wanted = set(relevant[q].tolist())
            report["per_query"].append(
                {
                    "query_set": kind,
                    "playlist_id": queries[q].id,
                    "query": queries[q].text,
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


def add_triplets(report: Report, content: Content, texts: Vectors, config: EvaluateConfig) -> None:
    """Each set of pairs, by the text tower alone."""
    for name, pairs in content.pairs.items():
        if len(pairs) < 2:
            report["notes"].append(
                f"Fewer than two test {name}s have title and description: triplets are not measured."
                if name == "playlist"
                else f"Fewer than two pairs of {name}: its triplets are not measured."
            )
            continue
        result = triplet_accuracy(
            np.stack([texts[anchor] for anchor, _ in pairs]),
            np.stack([texts[description] for _, description in pairs]),
            num_triplets=None if content.all_triplets else config.num_triplets,
            seed=config.seed,
        )
        metric = f"triplets/{name}/accuracy"
        report["metrics"][metric] = result.accuracy
        report["chance"][metric] = 0.5
        report["set"]["counts"] |= {"triplets": result.num_triplets, "triplet_anchors": len(pairs)}
        report["set"]["protocol"]["triplets"] = "all" if result.exhaustive else "a seeded sample"
        interval = result.interval(resamples=config.bootstrap, seed=config.seed)
        if interval is not None:
            report["intervals"][metric] = list(interval)


def _scoring(content: Content, config: EvaluateConfig) -> dict[str, Any]:
    """How classes are scored; a class list is one task, whatever facets its labels have."""
    return {"resamples": config.bootstrap, "seed": config.seed, "overall": content.classes is not None}


def _add_scores(report: Report, prefix: str, result: TaggingResult | RetrievalResult) -> None:
    for name, value in result.metrics.items():
        report["metrics"][f"{prefix}/{name}"] = value
        if name in result.chance:
            report["chance"][f"{prefix}/{name}"] = result.chance[name]
        if name in result.intervals:
            report["intervals"][f"{prefix}/{name}"] = list(result.intervals[name])


def _class_rows(tracks: str, result: TaggingResult) -> list[dict[str, Any]]:
    return [
        {
            **_class_facts(tracks, score),
            "roc_auc": score.roc_auc,
            "roc_auc_interval": list(score.roc_auc_interval) if score.roc_auc_interval else None,
            "pr_auc": score.pr_auc,
            "pr_auc_interval": list(score.pr_auc_interval) if score.pr_auc_interval else None,
        }
        for score in result.classes
    ]


def _class_facts(tracks: str, score: ClassScore) -> dict[str, Any]:
    return {
        "label": score.label,
        "facet": score.facet,
        "text": split_label(score.label)[1],
        "tracks": tracks,
        "positives": score.positives,
        "negatives": score.tracks - score.positives,
        "chance_pr_auc": score.chance_pr_auc,
    }

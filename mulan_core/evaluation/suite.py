"""The whole evaluation of one model on one set: vectors and texts in, a JSON-able report and its evidence out.

Shape letters: N tracks, C classes, T texts, D embedding size.

The suite knows no model: it takes track vectors and a function that embeds texts. What cannot be measured (no
playlists, no training split, a class without positives, a model without a text side) is left out of ``metrics`` and
said in ``notes``; the report never holds NaN.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mulan_core.config import EvaluateConfig
from mulan_core.errors import UserError
from mulan_core.evaluation import suites as by_suite
from mulan_core.evaluation.evidence import Evidence, gather
from mulan_core.evaluation.sets.content import Content
from mulan_core.evaluation.sets.definition import SUITES, check_suites
from mulan_core.evaluation.slices import slices_of
from mulan_core.evaluation.suites import Split
from mulan_core.evaluation.tagging import positives_of

Embed = Callable[[list[str]], NDArray[np.floating]]
"""Texts to unit vectors."""
Vectors = dict[str, NDArray[np.floating]]
"""Text -> its vector."""

WINDOW_POLICY = "windows spread evenly over the clip; a track is the re-normalised mean of its unit window vectors"

FORMAT = 2
"""Of reports and their evidence; a report of another one is made anew. 2: slices, behaviour, cost."""

NEEDS = {"tagging": ("audio", "text"), "probe": ("audio",), "retrieval": ("audio", "text"), "triplets": ("text",)}
"""Suite -> the sides of the model that it measures."""


def evaluate(
    content: Content,
    vectors: Mapping[str, Split],
    *,
    embed_texts: Embed | None,
    config: EvaluateConfig,
    suites: Sequence[str] = SUITES,
    unknown_texts: Callable[[list[str]], list[str]] | None = None,
    class_prompts: Callable[[str, tuple[str, ...]], tuple[str, ...]] | None = None,
    set_info: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Evidence]:
    """Measure what the suites name on the test split.

    Args:
        content: the set.
        vectors: split -> (track ids, vectors_ND); may hold more tracks than the set. Empty for a model without an
            audio side, or a set of texts alone.
        embed_texts: texts -> unit vectors; called once, with distinct texts. None for a model without a text side.
        config: templates, probe strengths, number of triplets and of resamples, seed.
        suites: what to measure, of ``SUITES``.
        unknown_texts: those of some texts that the model has no vector for; what needs them is left out and said.
        class_prompts: a label and its texts -> what the model embeds instead of them (``Encoder.class_prompts``).
        set_info: what else names the set (name, split, class list, data hash); copied into ``set``.

    Returns:
        The report, its fields described in docs/evaluation.md; and what it was computed from.

    Raises:
        UserError: if the set has no test track, a track has no vector, vectors are not finite or of two lengths, or
            nothing at all can be measured.
    """
    asked = check_suites(suites)
    audio = _select(content, vectors)
    described = {**(set_info or {}), **_describe(content, audio, config), "suites": list(asked)}
    report = _empty_report(described, list(content.notes))
    suites = _possible(asked, content, has_audio=bool(audio), has_text=embed_texts is not None, notes=report["notes"])
    content, classes, prompts = _wanted(content, suites, config, class_prompts, report["notes"])
    if unknown_texts:
        content, prompts = _without(set(unknown_texts(_texts(content, prompts))), content, prompts, report["notes"])
    texts = _embed_once(_texts(content, prompts), embed_texts, audio)
    class_vectors = by_suite.class_vectors(prompts, texts)
    positives_NC, probe_NC = _measure_classes(
        report, audio, classes, class_vectors, content=content, config=config, has_probe="probe" in suites
    )
    if audio:
        by_suite.add_retrieval(report, audio["test"], content, texts, config)
    by_suite.add_triplets(report, content, texts, config)
    _check_measured(report)
    evidence = gather(
        content,
        audio.get("test", ((), np.zeros((0, 0)))),
        classes=classes,
        positives_NC=positives_NC,
        class_vectors=class_vectors,
        prompts=prompts,
        texts=texts,
        probe_NC=probe_NC,
    )
    report["slices"] = slices_of(report, content, evidence)
    return report, evidence


def _empty_report(described: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    measured: dict[str, Any] = {"metrics": {}, "intervals": {}, "chance": {}, "per_class": [], "per_query": []}
    return {"set": described, **measured, "notes": notes}


def _check_measured(report: Mapping[str, Any]) -> None:
    if not report["metrics"]:
        name, notes = report["set"].get("name", "this set"), " ".join(report["notes"])
        raise UserError(f"nothing can be measured on {name}: {notes or 'it has nothing for these suites.'}")


def _measure_classes(
    report: dict[str, Any],
    audio: Mapping[str, Split],
    classes: list[str],
    class_vectors: Vectors,
    *,
    content: Content,
    config: EvaluateConfig,
    has_probe: bool,
) -> tuple[NDArray[np.bool_] | None, NDArray[np.floating] | None]:
    """Tagging where classes have vectors, the probe where it is asked for; the truth of the test split (N, C), and the
    probe's decision values (N, C).
    """
    positives = {split: positives_of(ids, content.labels, classes) for split, (ids, _) in audio.items()}
    if class_vectors:
        test = audio["test"], positives["test"], classes
        by_suite.add_tagging(report, *test, class_vectors=class_vectors, content=content, config=config)
    if not has_probe or not classes:
        return positives.get("test"), None
    return positives["test"], by_suite.add_probe(report, audio, positives, classes, content=content, config=config)


def _wanted(
    content: Content,
    suites: Sequence[str],
    config: EvaluateConfig,
    class_prompts: Callable[[str, tuple[str, ...]], tuple[str, ...]] | None,
    notes: list[str],
) -> tuple[Content, list[str], dict[str, tuple[str, ...]]]:
    """What of a set the suites ask for; its classes; and the texts that stand for each of them in tagging."""
    labelled = {"tagging", "probe"} & set(suites)
    classes = _classes(content) if labelled else []
    if labelled and not classes:
        notes.append("No test track has a label: tagging and the linear probe are not measured.")
    prompts = {label: by_suite.prompts_of(label, content, config) for label in classes} if "tagging" in suites else {}
    if class_prompts is not None:
        prompts = {label: class_prompts(label, texts) for label, texts in prompts.items()}
    queries = content.queries if "retrieval" in suites else {}
    pairs = content.pairs if "triplets" in suites else {}
    return replace(content, queries=queries, pairs=pairs), classes, prompts


def _select(content: Content, vectors: Mapping[str, Split]) -> dict[str, Split]:
    """The set's own tracks with their vectors, split by split; empty where the model or the set has no audio."""
    if content.tracks and not content.tracks.get("test"):
        raise UserError("the test split has no tracks: nothing can be evaluated; give some tracks split = test")
    selected: dict[str, Split] = {}
    for split, ids in content.tracks.items() if vectors else ():
        had_ids, had_ND = vectors.get(split, ((), np.zeros((0, 0))))
        if len(had_ids) != len(had_ND):
            raise UserError(f"split {split}: {len(had_ids)} track ids but {len(had_ND)} vectors")
        row_of = {track_id: n for n, track_id in enumerate(had_ids)}
        lost = [track_id for track_id in ids if track_id not in row_of]
        if lost:
            raise UserError(f"split {split}: {len(lost)} of {len(ids)} tracks have no vector, first {lost[0]}")
        if not ids:
            continue
        split_ND = had_ND[[row_of[track_id] for track_id in ids]]
        bad = ~np.isfinite(split_ND).all(axis=1)
        if bad.any():
            raise UserError(
                f"the model gave vectors that are not finite for {int(bad.sum())} {split} tracks, first "
                f"{ids[int(np.argmax(bad))]}; its weights are unusable"
            )
        selected[split] = (ids, split_ND)
    return selected


def _possible(
    suites: Sequence[str], content: Content, *, has_audio: bool, has_text: bool, notes: list[str]
) -> tuple[str, ...]:
    """The suites whose sides are there; a note about the others."""
    sides = {"audio": has_audio, "text": has_text}
    for side, is_there in sides.items():
        lost = [suite for suite in suites if side in NEEDS[suite] and not is_there]
        if lost:
            lacking = "model has no audio side" if content.tracks else "set has no audio"
            lacking = lacking if side == "audio" else "model has no text side"
            notes.append(f"The {lacking}: {', '.join(lost)} not measured.")
    return tuple(suite for suite in suites if all(sides[side] for side in NEEDS[suite]))


def _classes(content: Content) -> list[str]:
    if content.classes is not None:
        return list(content.classes)
    return sorted({label for track_id in content.tracks["test"] for label in content.labels.get(track_id) or ()})


def _texts(content: Content, prompts: Mapping[str, Sequence[str]]) -> list[str]:
    """Everything that has to be embedded, each text once, so that equal texts tie exactly."""
    texts = [text for class_prompts in prompts.values() for text in class_prompts]
    texts += [query.text for queries in content.queries.values() for query in queries]
    texts += [text for pairs in content.pairs.values() for pair in pairs for text in pair]
    return list(dict.fromkeys(texts))


def _without(
    unknown: set[str], content: Content, prompts: Mapping[str, tuple[str, ...]], notes: list[str]
) -> tuple[Content, dict[str, tuple[str, ...]]]:
    """What is left to measure where some texts have no vector."""
    if unknown:
        left_out = "the classes, queries and pairs that need them are left out"
        notes.append(f"{len(unknown):,} texts have no vector; {left_out}.")
    queries = {
        kind: [query for query in kind_queries if query.text not in unknown]
        for kind, kind_queries in content.queries.items()
    }
    pairs = {
        name: [pair for pair in set_pairs if unknown.isdisjoint(pair)] for name, set_pairs in content.pairs.items()
    }
    kept = {label: class_prompts for label, class_prompts in prompts.items() if unknown.isdisjoint(class_prompts)}
    return replace(content, queries=queries, pairs=pairs), kept


def _embed_once(texts: list[str], embed_texts: Embed | None, audio: Mapping[str, Split]) -> Vectors:
    if not texts or embed_texts is None:
        return {}
    vectors_TD = embed_texts(texts)
    if not np.isfinite(vectors_TD).all():
        raise UserError("the model gave text vectors that are not finite; its weights are unusable")
    for ids, tracks_ND in audio.values():
        if tracks_ND.shape[1] != vectors_TD.shape[1]:
            raise UserError(
                f"the text vectors have {vectors_TD.shape[1]} dimensions, those of the {len(ids)} tracks "
                f"{tracks_ND.shape[1]}: they are not of one model"
            )
    return dict(zip(texts, vectors_TD, strict=True))


def _describe(content: Content, audio: Mapping[str, Split], config: EvaluateConfig) -> dict[str, Any]:
    """What was measured on: counts, protocol, and a hash of everything that makes two reports comparable.

    The hash covers the test tracks, their labels, the held-out ones, class list, queries, pairs and the protocol; it
    does not cover training data or the model, so that a model retrained on more data still compares with its
    predecessor.
    """
    test_ids = content.tracks.get("test", ())
    apart = sorted(set(content.held_out) & set(test_ids))
    protocol = {
        "templates": list(config.templates),
        "window_policy": WINDOW_POLICY,
        "num_triplets": None if content.all_triplets else config.num_triplets,
        "seed": config.seed,
    }
    covered = {
        "tracks": {track_id: sorted(content.labels.get(track_id) or ()) for track_id in sorted(test_ids)},
        "classes": content.classes,
        "class_texts": dict(sorted(content.class_texts.items())),
        "held_out": apart,
        "queries": {
            kind: sorted((query.id or "", query.text, sorted(query.track_ids)) for query in queries)
            for kind, queries in content.queries.items()
        },
        "pairs": {name: sorted(pairs) for name, pairs in content.pairs.items()},
        "protocol": protocol,
    }
    digest = hashlib.sha256(json.dumps(covered, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    counts = {f"{split}_tracks": len(ids) for split, (ids, _) in audio.items()}
    return {
        "hash": digest,
        "protocol": {**protocol, "bootstrap": config.bootstrap},
        "counts": {**counts, "held_out_tracks": len(apart), **content.counts},
    }

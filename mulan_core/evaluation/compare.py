"""Two models on one set: every metric of both, their difference, and its interval on the same resamples.

Shape letters: N tracks, C classes, Q queries, P pairs, B resamples.

Two models that are measured on the same tracks rise and fall together when other tracks are drawn, so the intervals of
their reports say little about their difference. Here each resample of tracks (tagging, probe), queries (retrieval) or
anchors (triplets) is drawn once and both models are measured on it; the interval is that of the difference. It covers
the luck of this test set, not that of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mulan_core.errors import UserError
from mulan_core.evaluation.bootstrap import bootstrap_weights, percentile_interval
from mulan_core.evaluation.comparison import ClassChange, Comparison, Difference, QueryChange
from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.metrics import is_better_lower, ranking_metrics, weighted_curves
from mulan_core.evaluation.retrieval import CUTOFFS
from mulan_core.evaluation.tagging import class_groups
from mulan_core.evaluation.triplets import triplet_accuracy

Report = Mapping[str, Any]
Floats = NDArray[np.float64]

RESAMPLES = 200
"""Where the reports were made without intervals."""


def compare(
    a: tuple[Report, Evidence], b: tuple[Report, Evidence], *, names: tuple[str, str] = ("a", "b")
) -> Comparison:
    """Measure both models again, on what both were measured on, and on common resamples.

    Args:
        a: report and evidence of the model that stands.
        b: those of the one that is held against it, on the same set.
        names: what to call them.

    Raises:
        UserError: if the sets are not the same, or the two have no measure in common.
    """
    (report_a, evidence_a), (report_b, evidence_b) = a, b
    _check_same_set(report_a, report_b)
    for report, evidence in (a, b):
        _check_evidence(report, evidence)
    protocols = [report["set"]["protocol"] for report in (report_a, report_b)]
    pair = _Pair(
        evidence_a,
        evidence_b,
        names=[name for name in report_b["metrics"] if name in report_a["metrics"]],
        resamples=max(protocol["bootstrap"] for protocol in protocols) or RESAMPLES,
        seed=protocols[1]["seed"],
        num_triplets=protocols[1]["num_triplets"],
    )
    if not pair.names:
        raise UserError("the two reports have no metric in common: nothing can be compared")
    classes, queries = pair.measure()
    differences = pair.differences
    lost = [name for name in dict.fromkeys([*report_a["metrics"], *report_b["metrics"]]) if name not in differences]
    notes = [*pair.notes, *([f"Not of both models, so not compared: {', '.join(lost)}."] if lost else [])]
    return Comparison(
        name_a=names[0],
        name_b=names[1],
        about=report_b["set"],
        models=(report_a["set"].get("model", {}), report_b["set"].get("model", {})),
        resamples=pair.resamples,
        seed=pair.seed,
        metrics=tuple(differences[name] for name in pair.names if name in differences),
        classes=tuple(classes),
        queries=tuple(queries),
        notes=tuple(notes),
    )


def _check_same_set(report_a: Report, report_b: Report) -> None:
    hashes = [report["set"].get("hash") for report in (report_a, report_b)]
    if not all(hashes) or hashes[0] != hashes[1]:
        names = [report["set"].get("name") or "an unnamed set" for report in (report_a, report_b)]
        shown = [f"{name} ({str(hashed)[:12]})" for name, hashed in zip(names, hashes, strict=True)]
        raise UserError(
            f"the two were not measured on the same set: {shown[0]} and {shown[1]}; evaluate both on one set"
        )


def _check_evidence(report: Report, evidence: Evidence) -> None:
    """A report and evidence of two evaluations would be compared without a sign of it."""
    tracks = report["set"]["counts"].get("test_tracks", 0)
    if len(evidence.track_ids) != tracks:
        raise UserError(
            f"the evidence holds {len(evidence.track_ids):,} tracks, its report {tracks:,}: they are not of one "
            "evaluation; evaluate the model again"
        )


class _Pair:
    """Both evidences, cut to what is in both and in the same order, and what was found so far."""

    def __init__(
        self, a: Evidence, b: Evidence, *, names: list[str], resamples: int, seed: int, num_triplets: int | None
    ) -> None:
        self.a, self.b = a, b
        self.names, self.resamples, self.seed, self.num_triplets = names, resamples, seed, num_triplets
        self.differences: dict[str, Difference] = {}
        self.notes: list[str] = []
        row_of = {track_id: n for n, track_id in enumerate(b.track_ids)}
        self.has_tracks = bool(a.track_ids and b.track_ids)  # a model without an audio side has none
        if self.has_tracks and row_of.keys() != set(a.track_ids):
            raise UserError("the two evidences are of other tracks, though the sets' hashes are equal; evaluate again")
        self.rows_b = np.array([row_of[track_id] for track_id in a.track_ids if self.has_tracks], dtype=np.int64)

    def measure(self) -> tuple[list[ClassChange], list[QueryChange]]:
        """Everything; gives what was found for single classes and single queries."""
        for name in dict.fromkeys(self.a.pair_sets):
            self._triplets(name)
        if not self.has_tracks:
            return [], []
        tagging_classes = self._classes("tagging", self.a.class_scores(), self.b.class_scores()[self.rows_b])
        apart_N = self.a.held_out_N
        if apart_N.any():
            scores = self.a.class_scores()[apart_N], self.b.class_scores()[self.rows_b][apart_N]
            self._classes("tagging/held_out", *scores, mask_N=apart_N)
        probe_classes = []
        if self.a.probe_NC.shape[1] and self.b.probe_NC.shape[1]:
            probe_classes = self._classes("probe", self.a.probe_NC, self.b.probe_NC[self.rows_b])
        queries = [query for name in dict.fromkeys(self.a.query_sets) for query in self._queries(name)]
        return tagging_classes or probe_classes, queries

    def _add(self, name: str, values_aB: Floats, values_bB: Floats, *, centred: bool = False) -> None:
        """Add a metric from its values, of the sample itself and then of each resample."""
        a, b = float(values_aB[0]), float(values_bB[0])
        interval = _interval(values_bB - values_aB, centred=centred)
        if name in self.names:
            self.differences[name] = Difference(name, a, b, interval, is_better_lower(name))

    def _weights(self, items: int) -> NDArray[np.uint16]:
        """Of the sample itself, and of each resample."""
        drawn_BN = bootstrap_weights(items, resamples=self.resamples, seed=self.seed)
        return np.concatenate([np.ones((1, items), np.uint16), drawn_BN])

    def _classes(
        self,
        start: str,
        scores_a: NDArray[np.floating],
        scores_b: NDArray[np.floating],
        *,
        mask_N: NDArray[np.bool_] | None = None,
    ) -> list[ClassChange]:
        """Metrics of the facets, averaged over the classes that both models have a number for."""
        if not any(name.startswith(f"{start}/") for name in self.names):
            return []
        positives_NC = self.a.positives_NC if mask_N is None else self.a.positives_NC[mask_N]
        column_b = {label: c for c, label in enumerate(self.b.classes)}
        weights_BN = self._weights(len(positives_NC))
        labels, values, singles, alone = [], [], [], 0
        for c, label in enumerate(self.a.classes):
            positives_N, other = positives_NC[:, c], column_b.get(label)
            has_a = np.isfinite(scores_a[:, c]).all()
            has_b = other is not None and bool(np.isfinite(scores_b[:, other]).all())
            if not 0 < positives_N.sum() < len(positives_N):
                continue
            alone += has_a != has_b
            if not (has_a and has_b):
                continue
            labels.append(label)
            curves_a = weighted_curves(scores_a[:, c], positives_N, weights_BN)
            curves_b = weighted_curves(scores_b[:, other], positives_N, weights_BN)
            values.append((curves_a, curves_b))
            (auc_a, _), (auc_b, _) = curves_a, curves_b
            interval = _interval(auc_b - auc_a, centred=True)
            difference = Difference(label, float(auc_a[0]), float(auc_b[0]), interval)
            singles.append(ClassChange(difference, int(positives_N.sum())))
        if alone:
            self.notes.append(f"{start}: {alone} classes have a number of one model alone; the means leave them out.")
        # A class list is one task, whatever facets its labels have; its reports say so.
        overall = f"{start}/all/roc_auc" in self.names
        for group, rows in class_groups(labels, overall=overall).items():
            for which, metric in enumerate(("roc_auc", "pr_auc")):
                means = [_mean_of_known(np.stack([values[row][model][which] for row in rows])) for model in range(2)]
                self._add(f"{start}/{group}/{metric}", *means, centred=True)
        return singles

    def _queries(self, name: str) -> list[QueryChange]:
        """Retrieval by one kind of query, over the queries that both models have a vector for."""
        if f"retrieval/{name}/auc" not in self.names:
            return []
        query_b = {self._query_key(self.b, q): q for q in self.b.queries_of(name)}
        queries_a = [q for q in self.a.queries_of(name) if self._query_key(self.a, q) in query_b]
        queries_b = [query_b[self._query_key(self.a, q)] for q in queries_a]
        if alone := len(self.a.queries_of(name)) + len(query_b) - 2 * len(queries_a):
            self.notes.append(f"retrieval/{name}: {alone} queries have a number of one model alone and are left out.")
        if not queries_a:
            return []
        relevant = [self.a.relevant[q] for q in queries_a]
        rankings = [
            ranking_metrics(texts_QD, tracks_ND, relevant, ks=CUTOFFS)
            for texts_QD, tracks_ND in (
                (self.a.texts_TD[self.a.query_text_Q[queries_a]], self.a.tracks_ND),
                (self.b.texts_TD[self.b.query_text_Q[queries_b]], self.b.tracks_ND[self.rows_b]),
            )
        ]
        kept = np.flatnonzero(~rankings[0].skipped)
        weights_BQ = self._weights(len(kept))
        values = [
            {
                "auc": ranking.auc,
                "map": ranking.ap,
                **{f"recall_at_{k}": recall for k, recall in ranking.recall_at_k.items()},
            }
            for ranking in rankings
        ]
        for metric in values[0]:
            means = (weights_BQ @ scores[metric][kept] / len(kept) for scores in values)
            self._add(f"retrieval/{name}/{metric}", *means)
        medians = ([np.median(np.repeat(ranking.best_rank[kept], w)) for w in weights_BQ] for ranking in rankings)
        self._add(f"retrieval/{name}/median_rank", *(np.array(medians_B) for medians_B in medians))
        ap_a, ap_b = (scores["map"] for scores in values)
        return [
            QueryChange(
                Difference(self.a.texts[self.a.query_text_Q[queries_a[q]]], float(ap_a[q]), float(ap_b[q])),
                query_set=name,
                query_id=self.a.query_ids[queries_a[q]],
                relevant=int(rankings[0].num_relevant[q]),
            )
            for q in kept
        ]

    @staticmethod
    def _query_key(evidence: Evidence, query: int) -> tuple[str, str, frozenset[str]]:
        answers = frozenset(evidence.track_ids[n] for n in evidence.relevant[query])
        return evidence.query_ids[query], evidence.texts[evidence.query_text_Q[query]], answers

    def _triplets(self, name: str) -> None:
        """One set of triplets; it is drawn anew, so both must have all of its pairs."""
        metric = f"triplets/{name}/accuracy"
        if metric not in self.names:
            return
        if self._texts_of_pairs(self.a, name) != self._texts_of_pairs(self.b, name):
            self.notes.append(f"{metric}: one model lacks some of the texts, so other triplets were drawn.")
            return
        results = [
            triplet_accuracy(*evidence.pairs_of(name), num_triplets=self.num_triplets, seed=self.seed)
            for evidence in (self.a, self.b)
        ]
        weights_BP = self._weights(len(results[0].right))
        values = []
        for result in results:
            count_B = weights_BP @ result.count
            values.append((weights_BP @ result.right) / np.where(count_B, count_B, np.nan))
        self._add(metric, *values)

    @staticmethod
    def _texts_of_pairs(evidence: Evidence, name: str) -> list[tuple[str, str]]:
        rows = [p for p, pair_set in enumerate(evidence.pair_sets) if pair_set == name]
        return [
            (evidence.texts[evidence.pair_anchor_P[p]], evidence.texts[evidence.pair_description_P[p]]) for p in rows
        ]


def _mean_of_known(values_CB: Floats) -> Floats:
    """Mean over classes of each resample; a class that lost all its positives in one is left out there."""
    known_CB = ~np.isnan(values_CB)
    known_B = known_CB.sum(axis=0)
    means_B: Floats = np.where(known_CB, values_CB, 0.0).sum(axis=0) / np.where(known_B, known_B, np.nan)
    return means_B


def _interval(differences_B: Floats, *, centred: bool) -> tuple[float, float] | None:
    """Of the resamples (all but the first); shifted to the first, as in a report, where repeats lift both models."""
    drawn_B = differences_B[1:]
    if centred and not np.isnan(drawn_B).all():
        drawn_B = drawn_B - np.nanmean(drawn_B) + differences_B[0]
    return percentile_interval(drawn_B)

"""Parts of a test set told apart, so that a mean cannot hide one that got worse: the gate holds each against its own.

A slice is a row of ``kind``, ``name``, ``metric``, ``value`` and ``items``, the number of tracks or queries that it was
measured on. Facets and kinds of query are metrics of the report already; sources and datasets are parts of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.metrics import roc_auc
from mulan_core.evaluation.sets.content import Content

Row = dict[str, Any]


def slices_of(report: Mapping[str, Any], content: Content, evidence: Evidence) -> list[Row]:
    """Every slice that has a number, whatever its size."""
    return [*_of_metrics(report), *_of_classes(report), *_of_sources(report, content), *_of_datasets(content, evidence)]


def _row(kind: str, name: str, metric: str, value: float, items: int) -> Row:
    return {"kind": kind, "name": name, "metric": metric, "value": float(value), "items": int(items)}


def _of_metrics(report: Mapping[str, Any]) -> list[Row]:
    counts, rows = report["set"]["counts"], []
    for metric, value in report["metrics"].items():
        match metric.split("/"):
            case ["tagging", facet, "roc_auc"] if facet != "all":
                rows.append(_row("facet", facet, "roc_auc", value, counts["test_tracks"]))
            case ["retrieval", kind, "auc"]:
                rows.append(_row("query", kind, "auc", value, counts[f"{kind}_queries"]))
    return rows


def _of_classes(report: Mapping[str, Any]) -> list[Row]:
    """Measured on the rarer of the tracks that have the class and those that have not."""
    return [
        _row("class", row["label"], "roc_auc", row["roc_auc"], min(row["positives"], row["negatives"]))
        for row in report["per_class"]
        if row["tracks"] == "test" and "roc_auc" in row
    ]


def _of_sources(report: Mapping[str, Any], content: Content) -> list[Row]:
    """A track's own text as a query, by where the text comes from."""
    sources = {query.text: query.source for query in content.queries.get("text", ()) if query.source}
    aucs: dict[str, list[float]] = {}
    for row in report["per_query"]:
        if row["query_set"] == "text" and row["query"] in sources:
            aucs.setdefault(str(sources[row["query"]]), []).append(row["auc"])
    return [
        _row("source", source, "text auc", float(np.mean(values)), len(values))
        for source, values in sorted(aucs.items())
    ]


def _of_datasets(content: Content, evidence: Evidence) -> list[Row]:
    """Zero-shot tagging on the tracks of one data set alone, where there are several."""
    dataset_N = np.array([content.datasets.get(track_id, "") for track_id in evidence.track_ids])
    names = sorted(set(dataset_N.tolist()) - {""})
    if len(names) < 2 or not len(evidence.classes):
        return []
    scores_NC, rows = evidence.class_scores(), []
    for name in names:
        in_set_N = dataset_N == name
        positives_NC = evidence.positives_NC[in_set_N]
        counts_C = positives_NC.sum(axis=0)
        columns = np.flatnonzero((counts_C > 0) & (counts_C < len(positives_NC)) & (evidence.class_text_C >= 0))
        if len(columns):
            mean = np.mean([roc_auc(scores_NC[in_set_N, c], positives_NC[:, c]) for c in columns])
            rows.append(_row("dataset", name, "tagging roc_auc", float(mean), len(positives_NC)))
    return rows

"""Retrieval metrics at the paper's scale beside the bare matrix product and scikit-learn query by query, in one run.

    python benchmarks/retrieval_metrics.py [--queries 7000] [--candidates 100000] [--reference 20]

Prints the time of the matrix product alone (into one buffer, as fast as it goes), of ``ranking_metrics`` (product and
all metrics included) and of scikit-learn's ``roc_auc_score`` + ``average_precision_score`` per query (product
included), the two ratios, the memory on top of the vectors, and the largest difference. The product and ours take
turns, the least of the rounds counts; scikit-learn runs on the first ``--reference`` queries. Times are per query. The
vectors are random, the hardest case for counting: relevant items lie anywhere in the ranking.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
from memory import peak_bytes
from sklearn.metrics import average_precision_score, roc_auc_score

from mulan_core.evaluation.metrics import RankingMetrics, ranking_metrics

CHUNK = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=7_000)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--reference", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    num_queries, num_items = arguments.queries, arguments.candidates

    rng = np.random.default_rng(0)
    candidates_ND = unit(rng.standard_normal((num_items, 128), dtype=np.float32))
    queries_QD = unit(rng.standard_normal((num_queries, 128), dtype=np.float32))
    relevant = [rng.choice(num_items, size=rng.integers(10, 101), replace=False) for _ in range(num_queries)]

    def product() -> None:
        scores_qN = np.empty((CHUNK, num_items), np.float32)
        for first in range(0, num_queries, CHUNK):
            part_qD = queries_QD[first : first + CHUNK]
            np.matmul(part_qD, candidates_ND.T, out=scores_qN[: len(part_qD)])

    found: list[RankingMetrics] = []

    def metrics() -> None:
        found[:] = [ranking_metrics(queries_QD, candidates_ND, relevant)]

    memory_mb = peak_bytes(metrics, "cpu") / 2**20
    product_s = ours_s = np.inf
    for _ in range(arguments.rounds):
        product_s = min(product_s, seconds(product) / num_queries)
        ours_s = min(ours_s, seconds(metrics) / num_queries)
    (ours,) = found

    count = min(arguments.reference, num_queries)
    auc, ap = np.empty(count), np.empty(count)
    # The same chunk, so that the product rounds the same.
    scores_qN = queries_QD[:CHUNK] @ candidates_ND.T
    started = time.perf_counter()
    for q in range(count):
        positives = np.zeros(num_items, dtype=bool)
        positives[relevant[q]] = True
        auc[q], ap[q] = roc_auc_score(positives, scores_qN[q]), average_precision_score(positives, scores_qN[q])
    sklearn_s = (time.perf_counter() - started) / count + product_s

    difference = max(np.abs(ours.auc[:count] - auc).max(), np.abs(ours.ap[:count] - ap).max())
    print(
        f"{num_queries} queries x {num_items} candidates, D = 128, float32, load {os.getloadavg()[0]:.1f}; ms a query"
    )
    print(f"  matrix product alone   {product_s * 1e3:8.3f}")
    print(f"  ranking_metrics        {ours_s * 1e3:8.3f}   {ours_s * num_queries:.1f} s in all, {memory_mb:.0f} MiB")
    print(f"  scikit-learn per query {sklearn_s * 1e3:8.3f}   ({count} queries)")
    print(f"  {ours_s / product_s:.2f} times the product; {sklearn_s / ours_s:.0f} times as fast as scikit-learn")
    print(f"  largest difference {difference:.1e}")


def seconds(call: object) -> float:
    """Time of one call."""
    started = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - started


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    """Rows scaled to length one."""
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


if __name__ == "__main__":
    main()

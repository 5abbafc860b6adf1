"""How much faster ``ranking_metrics`` is than scikit-learn query by query, on the same scores in the same run.

    python benchmarks/retrieval_metrics.py [--queries 700] [--candidates 100000] [--reference 20]

Prints the time of the matrix product alone, of ``ranking_metrics`` (product included) and of scikit-learn's
``roc_auc_score`` + ``average_precision_score`` per query (product included), the ratio, and the largest difference.
scikit-learn runs on the first ``--reference`` queries; times are per query.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from mulan_core.evaluation.metrics import ranking_metrics

CHUNK = 128


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=700)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--reference", type=int, default=20)
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    candidates_ND = unit(rng.standard_normal((arguments.candidates, 128), dtype=np.float32))
    queries_QD = unit(rng.standard_normal((arguments.queries, 128), dtype=np.float32))
    relevant = [
        rng.choice(arguments.candidates, size=rng.integers(10, 101), replace=False) for _ in range(arguments.queries)
    ]

    started = time.perf_counter()
    for first in range(0, arguments.queries, CHUNK):
        queries_QD[first : first + CHUNK] @ candidates_ND.T
    product_s = (time.perf_counter() - started) / arguments.queries

    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    ours = ranking_metrics(queries_QD, candidates_ND, relevant, chunk=CHUNK)
    ours_s = (time.perf_counter() - started) / arguments.queries
    grown_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mb

    count = min(arguments.reference, arguments.queries)
    auc, ap = np.empty(count), np.empty(count)
    started = time.perf_counter()
    scores = queries_QD[:CHUNK] @ candidates_ND.T
    share_s = (time.perf_counter() - started) / min(CHUNK, arguments.queries)
    started = time.perf_counter()
    for q in range(count):
        positives = np.zeros(arguments.candidates, dtype=bool)
        positives[relevant[q]] = True
        auc[q], ap[q] = roc_auc_score(positives, scores[q]), average_precision_score(positives, scores[q])
    sklearn_s = (time.perf_counter() - started) / count + share_s

    difference = max(np.abs(ours.auc[:count] - auc).max(), np.abs(ours.ap[:count] - ap).max())
    print(f"{arguments.queries} queries x {arguments.candidates} candidates, D = 128, float32; milliseconds a query")
    print(f"  matrix product alone   {product_s * 1e3:8.3f}")
    print(f"  ranking_metrics        {ours_s * 1e3:8.3f}   memory grown by {grown_mb:.0f} MiB over the product's")
    print(f"  scikit-learn per query {sklearn_s * 1e3:8.3f}   ({count} queries)")
    print(f"  ratio                  {sklearn_s / ours_s:8.1f} times faster; largest difference {difference:.1e}")


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    """Rows scaled to length one."""
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


if __name__ == "__main__":
    main()

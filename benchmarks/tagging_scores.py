"""Zero-shot tagging of a large catalogue: time and peak memory, and the same beside scikit-learn class by class.

    python benchmarks/tagging_scores.py [--tracks 100000] [--classes 47 188] [--resamples 200]

Prints, for each number of classes, the seconds of ``score_classes`` (ROC-AUC and PR-AUC of every class, their bootstrap
intervals and the facet means) and the most memory it took on top of vectors and labels; then the memory in proportion
to the first, which stays near 1 where it is streamed. scikit-learn's two scores of a class are timed on eight classes
in the same run: without any interval, each resample would cost it as much again.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
from memory import peak_bytes
from sklearn.metrics import average_precision_score, roc_auc_score

from mulan_core.evaluation.tagging import TaggingResult, score_classes, zero_shot_scores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=100_000)
    parser.add_argument("--classes", type=int, nargs="+", default=[47, 188])
    parser.add_argument("--resamples", type=int, default=200)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    tracks_ND = unit(rng.standard_normal((arguments.tracks, 128), dtype=np.float32))
    text_CD = unit(rng.standard_normal((max(arguments.classes), 128), dtype=np.float32))
    shares_C = np.geomspace(0.0005, 0.2, len(text_CD))  # MagnaTagATune's tags lie there
    positives_NC = rng.random((arguments.tracks, len(text_CD))) < shares_C
    found: list[TaggingResult] = []

    def run(num: int, resamples: int) -> None:
        names = [f"tag {c}" for c in range(num)]
        scores_CN = zero_shot_scores(tracks_ND, text_CD[:num])
        found[:] = [score_classes(scores_CN, positives_NC[:, :num], names, resamples=resamples, seed=0)]

    print(
        f"{arguments.tracks} tracks, D = 128, float32, {arguments.resamples} resamples, load {os.getloadavg()[0]:.1f}"
    )
    first_mb = None
    for num in arguments.classes:
        started = time.perf_counter()
        memory_mb = peak_bytes(lambda num=num: run(num, arguments.resamples), "cpu") / 2**20
        took_s = time.perf_counter() - started
        first_mb = first_mb or memory_mb
        print(f"  {num:4d} classes {took_s:8.1f} s  {memory_mb:6.0f} MiB  {memory_mb / first_mb:.2f} of the first")

    scores_CN = list(zero_shot_scores(tracks_ND, text_CD))[-8:]
    started = time.perf_counter()
    pairs = [
        (roc_auc_score(positives_NC[:, c], scores_N), average_precision_score(positives_NC[:, c], scores_N))
        for c, scores_N in zip(range(len(text_CD) - 8, len(text_CD)), scores_CN, strict=True)
    ]
    sklearn_s = (time.perf_counter() - started) / 8 * len(text_CD)
    started = time.perf_counter()
    run(len(text_CD), 0)
    ours_s = time.perf_counter() - started
    ours = [(score.roc_auc, score.pr_auc) for score in found[0].classes[-8:]]
    print(f"  without intervals {ours_s:.1f} s, product included; scikit-learn {sklearn_s:.1f} s without it")
    print(f"  largest difference {np.abs(np.array(pairs) - np.array(ours)).max():.1e}")


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    """Rows scaled to length one."""
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


if __name__ == "__main__":
    main()

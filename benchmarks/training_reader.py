"""What a training worker reads a second beside bare decoding of the same clips.

    mulan prepare                                       # the demo's shards, if they are not there yet
    python benchmarks/training_reader.py [--prepared .mulan/data/prepared] [--batches 20]

Sides, one thread each, the same clips in the same order, nothing decoded kept:

    bare          decode_flac of each whole clip, from bytes in memory
    reader        TrainingBatches: draws, reads, crops, tokenizes; decodes the crop alone
    remembering   the same where all clips fit decoded into memory, after each was met once

Ratios are medians over rounds. Claim in docs/performance.md: the reader keeps at least 0.9 of bare decoding.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mulan_core.config import load_config
from mulan_core.data.batches import TrainingBatches
from mulan_core.data.shards import decode_flac
from mulan_core.data.split import Split
from mulan_core.processor import MuLanProcessor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--prepared", type=Path, default=Path(".mulan/data/prepared"))
    parser.add_argument("--batches", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(arguments.params)
    processor = MuLanProcessor.from_config(config.model)

    def batches(cache_mb: int) -> TrainingBatches:
        return TrainingBatches.of_pairs(
            arguments.prepared,
            replace(config.train, num_workers=1, decoded_cache_mb=cache_mb),
            lambda texts: processor(text=texts),
            frontend=config.model.frontend,
        )

    reader, remembering = batches(0), batches(config.train.decoded_cache_mb)
    clips = Split(arguments.prepared, "train", ["audio"], keep_groups=2**31)
    for step in range(1 + len(clips) // config.train.batch_size):
        remembering[step]
    seconds: dict[str, list[float]] = {"bare": [], "reader": [], "remembering": []}
    for step in range(arguments.batches):
        flacs = [clips.row(draw.row, "audio")[0] for draw in reader.sampler.batch(step)]
        sides = {
            "bare": lambda flacs=flacs: [decode_flac(flac) for flac in flacs],
            "reader": lambda step=step: reader[step],
            "remembering": lambda step=step: remembering[step],
        }
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - started)
    bare = np.array(seconds["bare"])
    for name, values in seconds.items():
        rate = config.train.batch_size / np.median(values)
        print(f"{name:12} {rate:7.0f} clips/s   {np.median(bare / np.array(values)):.2f} times bare decoding")


if __name__ == "__main__":
    main()

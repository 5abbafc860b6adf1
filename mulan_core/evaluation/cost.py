"""What a model costs to serve: the time of one query and of one clip on this machine, and its size."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mulan_core.evaluation.behaviour import CLIP_S, SAMPLE_RATE_HZ
from mulan_core.evaluation.encoder import Encoder

RUNS = 9
"""Timed runs after one that warms up; the median is told."""


def measure_cost(encoder: Encoder) -> dict[str, Any]:
    """What the report holds as ``cost``; empty for vectors that another program made.

    Returns:
        ``encode_ms_text`` of a query of nine words and ``encode_ms_clip`` of ``CLIP_S`` seconds of audio, one at a
        time, the median of ``runs``; ``parameters``; the ``machine``. A side that the model lacks is missing.
    """
    if encoder.model is None:
        return {}
    cost: dict[str, Any] = {}
    # Each run has another text, so that nothing that remembers texts looks fast.
    texts = [f"a slow piano piece for a rainy night, number {run}" for run in range(RUNS + 1)]
    if encoder.has_text and not encoder.unknown_texts(texts[:1]):
        cost["encode_ms_text"] = _median_ms(lambda run: encoder.embed_texts([texts[run]]))
    if encoder.has_audio:
        wave = np.random.default_rng(0).standard_normal(round(CLIP_S * SAMPLE_RATE_HZ)).astype(np.float32) * 0.1
        cost["encode_ms_clip"] = _median_ms(
            lambda run: encoder.embed_tracks(["clip"], [wave], sampling_rate=SAMPLE_RATE_HZ)
        )
    return cost | {"runs": RUNS, "parameters": encoder.num_parameters, "machine": machine(encoder)}


def _median_ms(encode: Callable[[int], object]) -> float:
    """``encode`` returns numbers on the CPU, so a GPU has finished when it does."""
    times = []
    for run in range(RUNS + 1):
        started = time.perf_counter()
        encode(run)
        times.append(1_000 * (time.perf_counter() - started))
    return statistics.median(times[1:])


def machine(encoder: Encoder) -> str:
    """The processor that the model runs on, with the number of cores of a CPU."""
    import torch

    device = next(encoder.model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()}, {os.cpu_count()} cores"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

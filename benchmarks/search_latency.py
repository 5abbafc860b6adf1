"""Text search over HTTP at concurrency 1, beside the encoder alone in the same process and run.

    python benchmarks/search_latency.py [--url http://127.0.0.1:8000] [--queries 200]

Asks the endpoint that runs at ``--url``, with new words each time so that no vector comes from its cache.
The encoder of the demo's text tower, untrained, is timed between the requests, so both sides see the same
machine. Claim in docs/performance.md: p50 under 40 ms on two idle cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable

import httpx
import numpy as np
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from mulan_core.config import AudioTowerConfig, ModelConfig, TextTowerConfig
from mulan_core.embedding import embed_texts
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor

WORDS = {
    "mood": ["calm", "sad", "happy", "wild", "dark", "warm", "tense", "dreamy"],
    "sound": ["piano", "guitar", "organ", "flute", "strings", "synthesizer", "trumpet", "choir"],
    "place": ["for a rainy night", "to dance to", "at the sea", "in the morning", "on the road", "by the fire"],
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encode = _encoder()
    seed = int(time.time())
    texts = [f"{' '.join(words)} {seed + i}" for i, words in zip(range(arguments.queries), _phrases(), strict=False)]
    http_ms, encode_ms, stages = [], [], []
    with httpx.Client(base_url=arguments.url, timeout=30) as client:
        for text in [f"warm up {i} {seed}" for i in range(10)] + texts:
            started = time.perf_counter()
            answer = client.post("/v1/search", json={"text": text, "k": 10})
            http_ms.append((time.perf_counter() - started) * 1000)
            answer.raise_for_status()
            stages.append(answer.json()["timing_ms"])
            started = time.perf_counter()
            encode(text)
            encode_ms.append((time.perf_counter() - started) * 1000)
    http_ms, encode_ms, stages = http_ms[10:], encode_ms[10:], stages[10:]
    print(f"{len(texts)} queries, one at a time")
    for name, values in (("search over HTTP", http_ms), ("encoder alone", encode_ms)):
        print(f"{name:18} p50 {np.percentile(values, 50):6.1f} ms   p95 {np.percentile(values, 95):6.1f} ms")
    for stage in stages[0]:
        print(f"  inside: {stage:8} p50 {np.percentile([s[stage] for s in stages], 50):6.1f} ms")
    print(f"ratio of the p50s: {np.median(http_ms) / np.median(encode_ms):.2f}")


def _phrases() -> itertools.cycle[tuple[str, ...]]:
    return itertools.cycle(itertools.product(*WORDS.values()))


def _encoder() -> Callable[[str], np.ndarray]:
    config = ModelConfig(
        audio=AudioTowerConfig(layer_type="basic", embedding_size=8, hidden_sizes=(8, 8, 8, 8), depths=(1, 1, 1, 1)),
        text=TextTowerConfig(pretrained="demo-minilm", max_tokens=64, pooling="mean"),
    )
    model, processor = MuLanModel.from_config(config), MuLanProcessor.from_config(config)
    return lambda text: embed_texts(model, processor, [text], batch_size=1)


if __name__ == "__main__":
    main()

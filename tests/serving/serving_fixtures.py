"""What the serving tests share beside fixtures: a small model's numbers, the endpoint's limits, made-up audio."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mulan_core.config import AudioTowerConfig, FrontendConfig, ModelConfig, ServeConfig, TextTowerConfig

MODEL = ModelConfig(
    frontend=FrontendConfig(window_s=2.0),
    audio=AudioTowerConfig(layer_type="basic", embedding_size=8, hidden_sizes=(8, 16, 24, 32), depths=(1, 1, 1, 1)),
    text=TextTowerConfig(pretrained="demo-minilm", max_tokens=32, pooling="mean"),
)
DATA_HASH = "feedbeef" * 4
SERVE = ServeConfig(max_body_mb=1, max_audio_s=20, max_ongoing_requests=2, max_queued_requests=4)
NUM_TRACKS = 12


@dataclass(frozen=True)
class Catalogue:
    """What the tests know of the catalogue."""

    folder: Path
    vectors: dict[str, np.ndarray]
    rows: dict[str, dict]


def tone(seed, seconds=3.0, rate_hz=16_000):
    """A chord with noise, different for each seed."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = sum(np.sin(2 * math.pi * f * t) for f in random.uniform(80, 4000, 4)) / 8
    return (wave + random.normal(0, 0.05, len(t))).astype(np.float32)

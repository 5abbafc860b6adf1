"""What the serving tests share beside fixtures: a small model's numbers, the endpoint's limits, made-up audio."""

import io
import math
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import uvicorn

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
    windows: dict[str, np.ndarray]
    """Of each track those of its windows: two of 2 s in 3 s of audio."""
    rows: dict[str, dict]


def tone(seed, seconds=3.0, rate_hz=16_000):
    """A chord with noise, different for each seed."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = sum(np.sin(2 * math.pi * f * t) for f in random.uniform(80, 4000, 4)) / 8
    return (wave + random.normal(0, 0.05, len(t))).astype(np.float32)


def wav(wave, rate_hz=16_000):
    """A wave as the bytes of a file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate_hz, format="WAV")
    return buffer.getvalue()


def ids(answer):
    """Track ids of a search."""
    return [hit["track_id"] for hit in answer["hits"]]


def check_error(response, status, code, words=""):
    """An error is JSON of the one shape, and no traceback."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert sorted(error) == ["code", "message", "request_id"]
    assert error["code"] == code
    assert re.search(words, error["message"]), error["message"]
    assert "Traceback" not in response.text


def metric(text, name, **labels):
    """The value of one series in Prometheus's text; 0 where it is not there."""
    total = 0.0
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
        if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
            total += float(found[2])
    return total


@contextmanager
def run_bare(app):
    """The application behind a real HTTP server of this process, without Ray: its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(10)

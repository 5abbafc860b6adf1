"""Text search under load: beside the sum of its parts, and beside infinity-emb, which only embeds.

    python benchmarks/serving_load.py [--tower onnx] [--haproxy] [--infinity "PYTHON"] [--windows 3] [--sweep]

Builds what it needs in a temporary folder: MiniLM as the text tower (its projection untrained), 10,000 random tracks in
Milvus Lite behind HNSW (with ``--windows`` that many windows of each beside them), the endpoint on Ray Serve. All texts
are new. Prints

- p50 at concurrency 1 over HTTP, and of its parts in this process (encode one text, search one vector), in alternating
  blocks, and the ratio of the two: the goal is 1.5;
- requests a second at concurrency 32 and, with ``--infinity PYTHON`` (the Python of an environment with
  ``infinity-emb[torch,server]``), those of infinity-emb with the same text model on the same number of threads, in
  alternating blocks: the goal is 1.2 times as many;
- with ``--sweep``, requests a second and p50 by the number of callers: where the first stops rising, a replica is full.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "load")]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
LABELS, BLOCKS = 40, 4
CALLERS = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tower", default="onnx", choices=["torch", "onnx", "onnx-int8"])
    parser.add_argument("--haproxy", action="store_true", help="HAProxy before the replica instead of Ray's proxy")
    parser.add_argument("--infinity", help="Python of an environment with infinity-emb")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a block")
    parser.add_argument("--tracks", type=int, default=10_000)
    parser.add_argument("--windows", type=int, default=0, help="of each track, for hits that name their window")
    parser.add_argument("--sweep", action="store_true", help="from 1 caller to 64 instead of infinity-emb's 32")
    given = parser.parse_args()
    if given.haproxy:
        # Its replicas wait half a minute for callers before they stop; here nobody comes any more.
        os.environ |= {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1"}
    from closed_loop import drive, infinity_body, new_texts, search_body

    size = {"tracks": given.tracks, "windows": given.windows}
    with tempfile.TemporaryDirectory() as folder, endpoint(Path(folder), given.tower, **size) as (url, parts):
        texts = new_texts(int(time.time()))
        asyncio.run(drive(url, search_body, callers=8, seconds=2))
        one, alone = [], []
        for block in range(BLOCKS):
            one += asyncio.run(drive(url, search_body, callers=1, seconds=given.seconds, seed=10**6 * block)).times_ms
            until = time.perf_counter() + given.seconds
            while time.perf_counter() < until:
                started = time.perf_counter()
                parts(texts())
                alone.append((time.perf_counter() - started) * 1000)
        http_ms, parts_ms = np.median(one), np.median(alone)
        print(
            f"{given.tower}, one at a time: p50 {http_ms:.1f} ms over HTTP, {parts_ms:.1f} ms its parts here; ", end=""
        )
        print(f"ratio {http_ms / parts_ms:.2f}", flush=True)
        if given.sweep:
            for callers in CALLERS:
                run = asyncio.run(drive(url, search_body, callers=callers, seconds=given.seconds, seed=10**8 * callers))
                print(f"{callers:3} callers: {run.summary()}", flush=True)
            return
        ours, theirs = [], []
        with infinity(given.infinity) as other:
            for block in range(BLOCKS):
                seed = 10**7 + 10**6 * block
                ours.append(asyncio.run(drive(url, search_body, callers=32, seconds=given.seconds, seed=seed)))
                if other:
                    body = infinity_body("minilm")
                    theirs.append(asyncio.run(drive(other, body, callers=32, seconds=given.seconds, seed=seed)))
        for name, runs in (("search", ours), ("infinity-emb", theirs)):
            for run in runs:
                print(f"{name:12} at 32: {run.summary()}")
        print(batch_sizes(url))
        if theirs:
            ratios = [a.summary()["per_s"] / b.summary()["per_s"] for a, b in zip(ours, theirs, strict=True)]  # type: ignore[operator]
            print(f"requests a second, search over infinity-emb: {min(ratios):.2f} to {max(ratios):.2f}")


@contextmanager
def endpoint(folder: Path, tower: str, *, tracks: int, windows: int) -> Iterator[tuple[str, object]]:
    """The endpoint's address, and a function that does what it does, here."""
    import ray

    from mulan_core.config import AudioTowerConfig, FrontendConfig, ModelConfig, ServeConfig, TextTowerConfig
    from mulan_core.model import MuLanModel
    from mulan_core.processor import MuLanProcessor
    from serving.deployment import build_app, deploy, undeploy
    from serving.encoder import Encoder
    from serving.milvus import MilvusServer
    from serving.onnx_text_encoder import export_text_program
    from serving.ports import free_port
    from serving.release import Release, preprocessing_hash
    from serving.store import TrackStore

    config = ModelConfig(
        frontend=FrontendConfig(window_s=2.0),
        audio=AudioTowerConfig(layer_type="basic", embedding_size=8, hidden_sizes=(8, 8, 8, 8), depths=(1, 1, 1, 1)),
        text=TextTowerConfig(pretrained="demo-minilm", max_tokens=64, pooling="mean"),
    )
    model = folder / "model"
    MuLanModel.from_config(config).save_pretrained(model)
    MuLanProcessor.from_config(config).save_pretrained(model)
    random = np.random.default_rng(0)

    def draw(count: int) -> np.ndarray:
        vectors_ND = random.standard_normal((count, 128)).astype(np.float32)
        return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)

    rows = [
        {"track_id": f"t{i}", "title": f"Track {i}", "labels": [f"genre:{i % LABELS}"], "vector": vector}
        for i, vector in enumerate(draw(tracks))
    ]
    properties = {"model_version": "1", "data_hash": "d", "preprocessing_hash": preprocessing_hash(model)}
    with MilvusServer(folder / "milvus") as milvus:
        store = TrackStore(milvus.uri)
        batches = (rows[i : i + 1_000] for i in range(0, tracks, 1_000))
        store.build("tracks_1_d", batches, dim=128, properties=properties, hnsw_from=1, recall_floor=0.0)
        if windows:
            cut = (
                [
                    {
                        "track_id": f"t{i}",
                        "place": place,
                        "start_s": 10.0 * place,
                        "end_s": 10.0 * (place + 1),
                        "vector": vector,
                    }
                    for i in range(first, min(first + 500, tracks))
                    for place, vector in enumerate(draw(windows))
                ]
                for first in range(0, tracks, 500)
            )
            store.windows.build("tracks_1_d", cut)
        release = Release(
            collection="tracks_1_d", model_path=str(model), created_at="2026-11-24T00:00:00+00:00", **properties
        )
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        try:
            app = build_app(
                release.to_dict(), ServeConfig(text_tower=tower), milvus_uri=milvus.uri, edits=folder / "edits"
            )
            url = deploy(app, host="127.0.0.1", port=free_port())
            encoder = Encoder(model, text_program=export_text_program(model, tower))
            encoder.warm_up()
            yield url, lambda text: store.tracks.search(encoder.encode_texts([text]), 10, collection="tracks_1_d")
            undeploy()
        finally:
            ray.shutdown()


@contextmanager
def infinity(python: str | None) -> Iterator[str | None]:
    """infinity-emb's address, with the same MiniLM on one thread."""
    if python is None:
        yield None
        return
    from mulan_core.towers.pretrained import locate
    from serving.ports import free_port

    port = free_port()
    command = [
        str(Path(python).with_name("infinity_emb")),
        "v2",
        "--model-id",
        locate("demo-minilm"),
        "--host",
        "127.0.0.1",
    ]
    command += ["--port", str(port), "--served-model-name", "minilm", "--engine", "torch", "--device", "cpu"]
    command += ["--no-bettertransformer"]
    threads = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    }
    log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
    process = subprocess.Popen(command, env=os.environ | threads, stdout=log, stderr=log)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.post(f"{url}/embeddings", json={"model": "minilm", "input": ["a"]}).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        else:
            log.seek(0)
            raise SystemExit(f"infinity-emb did not start: {log.read()[-1500:].decode(errors='replace')}")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def batch_sizes(url: str) -> str:
    """Mean batches over everything so far."""
    text = httpx.get(f"{url}/metrics").text
    value = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    means = []
    for stage in ("encode", "search"):
        count, total = (value[f'mulan_batch_size_{part}{{stage="{stage}"}}'] for part in ("count", "sum"))
        means.append(f"{stage} {total / count:.1f}")
    return f"queries in a run, mean: {', '.join(means)}"


if __name__ == "__main__":
    main()

"""What 1 % more tracks cost, over building everything: by a new collection, and in place.

    python benchmarks/index_increment.py [--tracks 20000] [--uri PATH.db|http://host:port]

Encoding is timed on some clips of noise, 30 s each, with the demo's audio tower untrained, and taken times the number
of tracks; the store's part is done in full. *new collection* is what `mulan index` does: only what is new is encoded,
all vectors are inserted beside the live collection, indexed and probed. *in place* upserts the new ones into the
collection that is served. Claim in docs/performance.md: a new collection costs under 2 % of everything.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from mulan_core.config import load_config
from mulan_core.embedding import embed_tracks
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor
from serving.store import TrackStore

DIM = 128
CLIP_S = 30
BATCH = 500


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracks", type=int, default=20_000)
    parser.add_argument("--clips", type=int, default=12, help="clips encoded to time one")
    parser.add_argument("--uri", help="Milvus; by default Lite in this process")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    count, more = arguments.tracks, max(1, arguments.tracks // 100)
    encode_s = _seconds_a_clip(arguments.clips)
    with tempfile.TemporaryDirectory() as folder:
        store = TrackStore(arguments.uri or str(Path(folder) / "lite.db"))
        rows = _rows(count + more)
        everything = _build(store, "tracks_bench_all", rows[:count])
        beside = _build(store, "tracks_bench_more", rows)
        started = time.perf_counter()
        store.upsert("tracks_bench_all", rows[count:])
        store.collections.flush("tracks_bench_all")
        in_place = time.perf_counter() - started
        for name in ("tracks_bench_all", "tracks_bench_more"):
            store.collections.drop(name)
        store.close()
    full = count * encode_s + everything
    print(f"{count:,} tracks and {more:,} more; {encode_s * 1000:.0f} ms to encode one of {CLIP_S} s")
    print(f"{'':16} {'encode':>9} {'store':>9} {'all':>9} {'ratio':>7}")
    for name, encode, stored in (
        ("everything", count * encode_s, everything),
        ("new collection", more * encode_s, beside),
        ("in place", more * encode_s, in_place),
    ):
        total = encode + stored
        print(f"{name:16} {encode:7.1f} s {stored:7.1f} s {total:7.1f} s {total / full:7.2%}")


def _seconds_a_clip(clips: int) -> float:
    config = load_config(Path(__file__).resolve().parents[1] / "params.yaml").model
    model, processor = MuLanModel.from_config(config).eval(), MuLanProcessor.from_config(config)
    waves = [np.random.default_rng(i).normal(0, 0.1, 16_000 * CLIP_S).astype(np.float32) for i in range(clips)]
    embed_tracks(model, processor, waves[:2], batch_size=32)
    started = time.perf_counter()
    embed_tracks(model, processor, waves, batch_size=32)
    return (time.perf_counter() - started) / clips


def _rows(count: int) -> list[dict[str, Any]]:
    vectors_ND = np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    labels = ["genre:Jazz", "mood:Calm"]
    return [
        {"track_id": f"t{i}", "vector": vector, "title": f"Title {i}", "labels": labels, "content_hash": f"{i:032d}"}
        for i, vector in enumerate(vectors_ND)
    ]


def _build(store: TrackStore, name: str, rows: list[dict[str, Any]]) -> float:
    batches = (rows[first : first + BATCH] for first in range(0, len(rows), BATCH))
    # Random vectors in 128 dimensions are the worst case for HNSW's recall, which is not the question here.
    return store.build(name, batches, dim=DIM, properties={}, hnsw_from=10_000, recall_floor=0.0).seconds


if __name__ == "__main__":
    main()

"""A prepared folder of short tones: pitch and timbre are in the labels and the texts, so a model can learn them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mulan_core.data import shards

RATE = 16_000
PITCHES = {"low": 220.0, "middle": 880.0, "high": 3520.0}
TINY_MODEL = {
    "frontend": {"window_s": 2.0, "num_mels": 32},
    "audio": {"layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "text": {"pretrained": "demo-minilm", "max_tokens": 16, "trainable_layers": 0, "pooling": "mean"},
}
"""As ``params.yaml`` says it; it takes a step of these clips in a moment."""
SHAPES = {"smooth": np.sin, "buzzing": lambda phase: np.sign(np.sin(phase))}


def tone(pitch, shape, seed, seconds=2.5):
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * PITCHES[pitch] * rng.uniform(0.97, 1.03) * np.arange(round(RATE * seconds)) / RATE
    return (0.3 * SHAPES[shape](phase) + 0.01 * rng.standard_normal(len(phase))).astype(np.float32)


def rows_of(split, count, first=0):
    rows = []
    for i in range(first, first + count):
        pitch, shape = list(PITCHES)[i % 3], list(SHAPES)[(i // 3) % 2]
        wave = tone(pitch, shape, seed=i)
        texts = [("sf", pitch), ("sf", f"{shape} tone"), ("lf", f"A {shape} tone of {pitch} pitch."), ("aset", shape)]
        texts.append(("pl", f"{pitch} {shape} tones"))
        rows.append(
            {
                "track_id": f"t{i:03d}",
                "audio": shards.encode_flac(wave, RATE),
                "num_samples": len(wave),
                "split": split,
                "dataset": "tones",
                "title": f"Tone {i}",
                "texts": [{"source": s, "text": t, "drop": None} for s, t in texts],
                "labels": [f"pitch:{pitch}", f"shape:{shape}"],
                "sha256": f"{i:064d}",
                "media_path": f"/nowhere/{i}.flac",
            }
        )
    return rows


def write_prepared(folder, train=24, valid=6, test=12):
    """Write the folder as prepare does, by hand, so that core's tests need no Ray."""
    rows = []
    for split, count in (("train", train), ("valid", valid), ("test", test)):
        of_split = rows_of(split, count, first=len(rows))
        rows += of_split
        (folder / split).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(of_split), folder / split / "shard-00000.parquet")
    table = pa.Table.from_pylist([{k: v for k, v in row.items() if k != "audio"} for row in rows])
    pq.write_table(table, folder / shards.MANIFEST)
    (folder / shards.COUNTS).write_text(json.dumps({"tracks": len(rows), "usable": len(rows)}))
    return folder

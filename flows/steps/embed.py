"""Track vectors of a prepared folder, embedded once by Ray Data actors and shared by evaluation and index.

The result is a Parquet table a split, in a folder named by the model's weights and the data, so a second
run with the same model and data reads what is there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from mulan_core.data.shards import decode_flac
from mulan_core.data.tracks import SPLITS

Vectors = dict[str, tuple[list[str], np.ndarray]]
"""Split -> (track ids, unit vectors float32 (N, D))."""


def weights_hash(model: Path) -> str:
    """Identity of a saved model: sha256 over its weights and both its configurations, 12 characters."""
    digest = hashlib.sha256()
    for name in ("config.json", "processor_config.json", "model.safetensors"):
        digest.update((model / name).read_bytes())
    return digest.hexdigest()[:12]


def embed_prepared(
    model: Path,
    prepared: Path,
    *,
    data_hash: str,
    cache: Path,
    batch_size: int,
    num_actors: int,
    progress: Callable[[int], None] | None = None,
) -> Vectors:
    """Embed every clip of a prepared folder.

    Args:
        model: the saved model.
        prepared: the prepared folder.
        data_hash: DVC's hash of it.
        cache: where finished embeddings are kept.
        batch_size: windows encoded at once.
        num_actors: Ray actors, each with the model in memory.
        progress: called with the number of clips done.
    """
    folder = cache / f"{weights_hash(model)}-{data_hash[:12]}"
    if not folder.exists():
        building = folder.with_name(f".{folder.name}.building")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        _embed(model, prepared, building, batch_size=batch_size, num_actors=num_actors, progress=progress)
        building.rename(folder)
    return {split: _read(folder / f"{split}.parquet") for split in SPLITS if (folder / f"{split}.parquet").exists()}


def _embed(
    model: Path,
    prepared: Path,
    folder: Path,
    *,
    batch_size: int,
    num_actors: int,
    progress: Callable[[int], None] | None,
) -> None:
    shards = [str(path) for split in SPLITS for path in sorted((prepared / split).glob("shard-*.parquet"))]
    # Actors read the shards themselves: the audio passes no other process.
    dataset = ray.data.from_items([{"shard": path} for path in shards], override_num_blocks=len(shards)).map_batches(
        TrackEmbedder,
        fn_constructor_args=(str(model), batch_size, num_actors),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        num_cpus=1,
    )
    rows: list[dict[str, Any]] = []
    for row in dataset.iter_rows():
        rows.append(row)
        if progress:
            progress(len(rows))
    # Actors finish in any order; by id the table is the same every time.
    rows.sort(key=lambda row: row["track_id"])
    for split in SPLITS:
        of_split = [row for row in rows if row["split"] == split]
        if of_split:
            vectors = pa.array([row["vector"] for row in of_split], pa.list_(pa.float32()))
            ids = pa.array([row["track_id"] for row in of_split])
            pq.write_table(pa.table({"track_id": ids, "vector": vectors}), folder / f"{split}.parquet")


class TrackEmbedder:
    """Ray Data actor: shards in, track vectors out; a few clips at a time are in memory."""

    def __init__(self, model: str, batch_size: int, num_actors: int) -> None:
        import torch

        from mulan_core.model import MuLanModel
        from mulan_core.processor import MuLanProcessor

        # Ray leaves an actor one thread for its one CPU; on one machine nothing else works while these do.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_actors))
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = MuLanModel.from_pretrained(model).to(self._device)
        self._processor = MuLanProcessor.from_pretrained(model)
        self._batch_size = batch_size

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        """Embed the clips of some shards."""
        from mulan_core.embedding import embed_tracks

        for path in batch["shard"]:
            shard = pq.ParquetFile(path)
            for clips in shard.iter_batches(batch_size=self._batch_size, columns=["track_id", "split", "audio"]):
                waves = [decode_flac(data.as_py()) for data in clips["audio"]]
                vectors_ND = embed_tracks(self._model, self._processor, waves, batch_size=self._batch_size)
                names = {name: np.array(clips[name].to_pylist()) for name in ("track_id", "split")}
                yield names | {"vector": vectors_ND}


def _read(path: Path) -> tuple[list[str], np.ndarray]:
    table = pq.read_table(path)
    return table["track_id"].to_pylist(), np.stack(table["vector"].to_numpy(zero_copy_only=False)).astype(np.float32)

"""Track vectors of a prepared folder, embedded once by Ray Data actors and shared by evaluation and index.

The result is a Parquet table a split, in a folder named by the model's weights and the data, so a second
run with the same model and data reads what is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from mulan_core.data.shards import MANIFEST, decode_flac, sample_rate_hz
from mulan_core.data.tracks import SPLITS
from mulan_core.evaluation.encoders import TABLES, open_encoder, weights_hash

Vectors = dict[str, tuple[list[str], np.ndarray]]
"""Split -> (track ids, unit vectors float32 (N, D))."""


def embed_prepared(
    model: str | Path,
    prepared: Path,
    *,
    data_hash: str,
    cache: Path,
    batch_size: int,
    num_actors: int,
    pooling: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Vectors:
    """Embed every clip of a prepared folder.

    Args:
        model: what ``open_encoder`` opens; a folder by its absolute path, since actors run elsewhere.
        prepared: the prepared folder.
        data_hash: DVC's hash of it.
        cache: where finished embeddings are kept.
        batch_size: windows encoded at once.
        num_actors: Ray actors, each with the model in memory.
        pooling: see ``open_encoder``.
        progress: called with the number of clips done.

    Raises:
        UserError: if the model does not open, or a table of vectors lacks a track.
    """
    if Path(model).suffix in TABLES:
        return _look_up(model, prepared)
    folder = cache / f"{weights_hash(model, pooling=pooling)}-{data_hash[:12]}"
    if not folder.exists():
        building = folder.with_name(f".{folder.name}.building")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        encoder = (str(model), pooling, batch_size, num_actors)
        _embed(encoder, prepared, building, num_actors=num_actors, progress=progress)
        building.rename(folder)
    return {split: _read(folder / f"{split}.parquet") for split in SPLITS if (folder / f"{split}.parquet").exists()}


def _look_up(table: str | Path, prepared: Path) -> Vectors:
    encoder = open_encoder(table)
    rows = pq.read_table(prepared / MANIFEST, columns=["track_id", "split"]).to_pylist()
    ids = {split: sorted(row["track_id"] for row in rows if row["split"] == split) for split in SPLITS}
    return {split: (of, encoder.embed_tracks(of, (), sampling_rate=0)) for split, of in ids.items() if of}


def _embed(
    encoder: tuple[str, str | None, int, int],
    prepared: Path,
    folder: Path,
    *,
    num_actors: int,
    progress: Callable[[int], None] | None,
) -> None:
    shards = [str(path) for split in SPLITS for path in sorted((prepared / split).glob("shard-*.parquet"))]
    # Actors read the shards themselves: the audio passes no other process.
    dataset = ray.data.from_items([{"shard": path} for path in shards], override_num_blocks=len(shards)).map_batches(
        TrackEmbedder,
        fn_constructor_args=encoder,
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

    def __init__(self, model: str, pooling: str | None, batch_size: int, num_actors: int) -> None:
        import torch

        # Ray leaves an actor one thread for its one CPU; on one machine nothing else works while these do.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_actors))
        self._encoder = open_encoder(model, pooling=pooling, batch_size=batch_size)
        self._batch_size = batch_size

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        """Embed the clips of some shards."""
        for path in batch["shard"]:
            shard = pq.ParquetFile(path)
            for clips in shard.iter_batches(batch_size=self._batch_size, columns=["track_id", "split", "audio"]):
                ids, audio = clips["track_id"].to_pylist(), clips["audio"].to_pylist()
                waves = (decode_flac(data) for data in audio)
                vectors_ND = self._encoder.embed_tracks(ids, waves, sampling_rate=sample_rate_hz(audio[0]))
                yield {
                    "track_id": np.array(ids),
                    "split": np.array(clips["split"].to_pylist()),
                    "vector": vectors_ND,
                }


def _read(path: Path) -> tuple[list[str], np.ndarray]:
    table = pq.read_table(path)
    return table["track_id"].to_pylist(), np.stack(table["vector"].to_numpy(zero_copy_only=False)).astype(np.float32)

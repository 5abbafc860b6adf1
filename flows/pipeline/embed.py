"""Track vectors of a prepared folder, embedded by Ray Data actors and shared by evaluation and index.

A clip is embedded once by a model: vectors are kept by the clip's audio, so data that changed by 1 % cost 1 %, and a
job that was killed goes on where it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import ray.data

from flows.pipeline.vector_cache import VectorCache
from mulan_core.data.rows import SPLITS
from mulan_core.data.shards import MANIFEST, decode_flac, sample_rate_hz
from mulan_core.evaluation.encoder import TABLES
from mulan_core.evaluation.encoders import open_encoder, weights_hash

if TYPE_CHECKING:  # Ray's actors import this file, and neither of these
    from flows.pipeline.sets import PlacedSet
    from flows.runtime.session import Session

SECONDS_A_PART = 15.0
"""Of finished vectors, at most so many seconds' are lost when a job is killed."""

Vectors = dict[str, tuple[list[str], np.ndarray]]
"""Split -> (track ids, unit vectors float32 (N, D))."""


def track_vectors(
    session: Session,
    model: str | Path,
    progress: Callable[[int], None] | None = None,
    *,
    pooling: str | None = None,
    placed: PlacedSet | None = None,
    windows: bool = False,
) -> Vectors:
    """Track vectors of a session's prepared data, or of an evaluation set, under a model; see ``embed_prepared``."""
    config = session.workspace.config.index
    session.check_gpus("index.use_gpu", config.num_actors * config.use_gpu)
    return embed_prepared(
        model,
        placed.path if placed else session.workspace.prepared,
        cache=session.embeddings,
        batch_size=config.batch_size,
        num_actors=config.num_actors,
        use_gpu=config.use_gpu,
        pooling=pooling,
        windows=windows,
        progress=progress,
    )


def embed_prepared(
    model: str | Path,
    prepared: Path,
    *,
    cache: Path,
    batch_size: int,
    num_actors: int,
    use_gpu: bool = False,
    pooling: str | None = None,
    windows: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Vectors:
    """Embed every clip of a prepared folder that this model has not embedded before.

    Args:
        model: what ``open_encoder`` opens; a folder by its absolute path, since actors run elsewhere.
        prepared: the prepared folder.
        cache: where vectors are kept, for this and later versions of the data; see ``VectorCache``.
        batch_size: windows encoded at once.
        num_actors: Ray actors, each with the model in memory.
        use_gpu: give each of them a GPU.
        pooling: see ``open_encoder``.
        windows: keep the vectors of windows too; see ``open_windows``.
        progress: called with the number of clips done, those that were there included.

    Raises:
        UserError: if the model does not open, or a table of vectors lacks a track.
    """
    if Path(model).suffix in TABLES:
        return _look_up(model, prepared)
    clip_vectors = VectorCache(cache / weights_hash(model, pooling=pooling))
    heard = open_windows(model, cache) if windows else None
    shards = [path for split in SPLITS for path in sorted((prepared / split).glob("shard-*.parquet"))]
    work = plan_work(shards, clip_vectors, heard)
    rows = pq.read_table(prepared / MANIFEST, columns=["track_id", "split", "clip_key"]).to_pylist()
    if work:
        encoder = (str(model), pooling, batch_size, num_actors, windows)
        done = len(rows) - sum(len(item["indices"]) for item in work)
        for count in _embed(encoder, work, clip_vectors, heard, num_actors=num_actors, use_gpu=use_gpu):
            if progress:
                progress(done + count)
    # By id the table is the same every time, whatever order the actors finished in.
    rows.sort(key=lambda row: row["track_id"])
    vectors: Vectors = {}
    for split in SPLITS:
        split_rows = [row for row in rows if row["split"] == split]
        if split_rows:
            vectors_ND = clip_vectors.get([row["clip_key"] for row in split_rows])
            vectors[split] = ([row["track_id"] for row in split_rows], vectors_ND)
    return vectors


def open_windows(model: str | Path, cache: Path) -> VectorCache:
    """The vectors of the windows that a model has heard; see ``window_key``."""
    return VectorCache(cache / f"{weights_hash(model)}-windows")


def window_key(clip_key: str, index: int) -> str:
    """The name of a clip's window among the vectors; a clip has all of its windows there, or none."""
    return f"{clip_key}/{index}"


def plan_work(
    shards: Sequence[Path], clip_vectors: Container[str] = (), heard: Container[str] | None = None
) -> list[dict[str, Any]]:
    """What is to be embedded: for each row group of the shards, the indices of the clips whose vectors are not known.

    Args:
        shards: files of clips.
        clip_vectors: what holds the keys of the clips whose vectors are known.
        heard: windows whose vectors are known, by ``window_key``; None where windows do not matter.
    """

    def is_known(key: str) -> bool:
        return key in clip_vectors and (heard is None or window_key(key, 0) in heard)

    work = []
    for path in shards:
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            keys = file.read_row_group(group, columns=["clip_key"])["clip_key"].to_pylist()
            indices = [index for index, key in enumerate(keys) if not is_known(key)]
            if indices:
                work.append({"shard": str(path), "group": group, "indices": indices})
    return work


def _look_up(table: str | Path, prepared: Path) -> Vectors:
    encoder = open_encoder(table)
    rows = pq.read_table(prepared / MANIFEST, columns=["track_id", "split"]).to_pylist()
    ids = {split: sorted(row["track_id"] for row in rows if row["split"] == split) for split in SPLITS}
    return {
        split: (split_ids, encoder.embed_tracks(split_ids, (), sampling_rate=0))
        for split, split_ids in ids.items()
        if split_ids
    }


def _embed(
    encoder: tuple[str, str | None, int, int, bool],
    work: list[dict[str, Any]],
    clip_vectors: VectorCache,
    heard: VectorCache | None,
    *,
    num_actors: int,
    use_gpu: bool,
) -> Iterator[int]:
    """Embed and keep; yields the number of clips done, again and again."""
    from flows.runtime.stack import need_ray  # here: actors import this file

    need_ray()
    # Actors read the shards themselves: the audio passes no other process.
    dataset = ray.data.from_items(work, override_num_blocks=len(work)).map_batches(
        TrackEmbedder,
        fn_constructor_args=encoder,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        num_cpus=1,
        num_gpus=1 if use_gpu else 0,
    )
    rows: list[dict[str, Any]] = []

    def keep() -> None:
        if heard is not None:
            dim = len(rows[0]["vector"])
            parts = [np.frombuffer(row["windows"], np.float32).reshape(-1, dim) for row in rows]
            keys = [
                window_key(row["clip_key"], i) for row, part in zip(rows, parts, strict=True) for i in range(len(part))
            ]
            heard.add(keys, np.concatenate(parts))
        clip_vectors.add([row["clip_key"] for row in rows], np.stack([row["vector"] for row in rows]))
        rows.clear()

    due = time.monotonic() + SECONDS_A_PART
    try:
        for count, row in enumerate(dataset.iter_rows(), start=1):
            rows.append(row)
            if time.monotonic() > due:
                keep()
                due = time.monotonic() + SECONDS_A_PART
            yield count
    finally:
        if rows:
            keep()


class TrackEmbedder:
    """Ray Data actor: shards in, track vectors out; a few clips at a time are in memory."""

    def __init__(
        self, model: str, pooling: str | None, batch_size: int, num_actors: int, windows: bool = False
    ) -> None:
        import torch

        # Ray leaves an actor one thread for its one CPU; on one machine nothing else works while these do.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_actors))
        self._encoder = open_encoder(model, pooling=pooling, batch_size=batch_size)
        self._batch_size, self._windows = batch_size, windows

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Embed the clips of some work; see ``plan_work``."""
        for path, group, indices in zip(batch["shard"], batch["group"], batch["indices"], strict=True):
            columns = ["track_id", "clip_key", "audio"]
            table = pq.ParquetFile(path).read_row_group(group, columns=columns).take(indices)
            for clips in table.to_batches(max_chunksize=self._batch_size):
                ids, audio = clips["track_id"].to_pylist(), clips["audio"].to_pylist()
                waves = (decode_flac(data) for data in audio)
                rate_hz = sample_rate_hz(audio[0])
                made = {"track_id": np.array(ids), "clip_key": np.array(clips["clip_key"].to_pylist())}
                if self._windows:
                    made["vector"], windows = self._encoder.embed_with_windows(ids, waves, sampling_rate=rate_hz)
                    # As bytes, since clips differ in how many they have.
                    made["windows"] = np.array([part.astype(np.float32).tobytes() for part in windows], object)
                else:
                    made["vector"] = self._encoder.embed_tracks(ids, waves, sampling_rate=rate_hz)
                yield made

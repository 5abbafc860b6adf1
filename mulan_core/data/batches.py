"""Batches for the training loop: decoded crops of one worker's slice, and beside them texts or labels.

Shape letters: B examples of this worker, S samples of a window, L tokens of the longest text, C labels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mulan_core.audio.augment import draw_masks
from mulan_core.audio.windows import crop_start, cut_window
from mulan_core.config import FrontendConfig, TrainConfig
from mulan_core.data.sampling import Draw, Sampler, number, texts_by_source
from mulan_core.data.shards import decode_flac, read_split
from mulan_core.errors import UserError

Beside = Callable[[list[Draw]], dict[str, Tensor]]
"""What lies beside the windows of these draws."""


@dataclass(frozen=True)
class Batch:
    """What one worker needs for one step."""

    step: int
    inputs: dict[str, Tensor]
    """``waveforms`` float32 (B, S) and ``spec_masks`` int64 (B, 4). Pairs: ``input_ids`` and ``attention_mask``
    int64 (B, L), ``ids`` int64 (B, 2), the numbers of track and text. Labels: ``labels`` float32 (B, C)."""
    sources: tuple[str, ...]
    """The source each text came from, for the realised ratios; empty with labels."""


class TrainingBatches:
    """Iterates over a worker's batches from any step on; the next batch is made while the current one trains.

    ``of_pairs`` and ``of_labels`` make one. All of it follows from (seed, step), whatever the number of workers.
    """

    def __init__(
        self,
        table: pa.Table,
        sampler: Sampler,
        beside: Beside,
        *,
        config: TrainConfig,
        frontend: FrontendConfig,
        rank: int,
    ) -> None:
        self.sampler, self._beside = sampler, beside
        self._audio, self._num_samples = table["audio"], table["num_samples"].to_numpy()
        self._config, self._rank = config, rank
        self._window = round(frontend.window_s * frontend.sample_rate_hz)
        self._num_frames, self._num_mels = round(frontend.window_s * 1000 / frontend.hop_ms), frontend.num_mels
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cache_bytes = 0

    @classmethod
    def of_pairs(
        cls,
        prepared: Path,
        config: TrainConfig,
        tokenize: Callable[[list[str]], Mapping[str, Tensor]],
        *,
        frontend: FrontendConfig,
        rank: int = 0,
    ) -> TrainingBatches:
        """Windows, each beside one of its track's texts.

        Args:
            prepared: the prepared folder.
            config: seed, batch size, text sources.
            tokenize: texts -> ``input_ids`` and ``attention_mask``, padded to the longest of the batch.
            frontend: the model's front-end, whose window is cropped and whose frames and bands are masked.
            rank: this worker, of ``config.num_workers``.

        Raises:
            UserError: if the folder has no training shards or no text to draw.
        """
        table = read_split(prepared, "train", columns=["track_id", "audio", "num_samples", "texts"])
        texts = [texts_by_source(row, use_filtered=config.use_filtered_text) for row in table["texts"].to_pylist()]
        sampler = Sampler(table["track_id"].to_pylist(), texts, source_weights=config.source_weights, seed=config.seed)

        def beside(draws: list[Draw]) -> dict[str, Tensor]:
            tokens = tokenize([draw.text for draw in draws])
            ids = torch.tensor([(draw.row, number(draw.text)) for draw in draws])
            return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], "ids": ids}

        return cls(table, sampler, beside, config=config, frontend=frontend, rank=rank)

    @classmethod
    def of_labels(
        cls, prepared: Path, config: TrainConfig, *, frontend: FrontendConfig, rank: int = 0
    ) -> tuple[TrainingBatches, list[str]]:
        """Windows beside their tracks' labels, and the labels in the order of their columns; see ``of_pairs``.

        Raises:
            UserError: if the folder has no training shards or its tracks no labels.
        """
        table = read_split(prepared, "train", columns=["track_id", "audio", "num_samples", "labels"])
        of_tracks = [labels or [] for labels in table["labels"].to_pylist()]
        names = sorted({label for labels in of_tracks for label in labels})
        if not names:
            raise UserError(f"no training track in {prepared} carries a label; there is nothing to classify")
        column = {name: i for i, name in enumerate(names)}
        # To the sampler labels are texts of one source, of which it draws one; here all of them count.
        texts = [{"aset": labels} for labels in of_tracks]
        sampler = Sampler(table["track_id"].to_pylist(), texts, source_weights={"aset": 1.0}, seed=config.seed)

        def beside(draws: list[Draw]) -> dict[str, Tensor]:
            labels_BC = torch.zeros(len(draws), len(names))
            for i, draw in enumerate(draws):
                labels_BC[i, [column[label] for label in of_tracks[draw.row]]] = 1.0
            return {"labels": labels_BC}

        return cls(table, sampler, beside, config=config, frontend=frontend, rank=rank), names

    def from_step(self, first: int) -> Iterator[Batch]:
        """Yield the batches of steps ``first``, ``first + 1``, ... up to the configured number of steps."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
            upcoming = pool.submit(self.at, first)
            for step in range(first, self._config.steps):
                batch = upcoming.result()
                if step + 1 < self._config.steps:
                    upcoming = pool.submit(self.at, step + 1)
                yield batch

    def at(self, step: int) -> Batch:
        """Make this worker's slice of the batch of one step."""
        share = self._config.batch_size // self._config.num_workers
        draws = self.sampler.batch(step, self._config.batch_size)[self._rank * share : (self._rank + 1) * share]
        inputs = self._beside(draws)
        inputs["waveforms"] = torch.from_numpy(np.stack([self._crop(draw) for draw in draws]))
        inputs["spec_masks"] = torch.from_numpy(np.stack([self._masks(draw) for draw in draws]))
        sources = tuple(draw.source for draw in draws) if "input_ids" in inputs else ()
        return Batch(step=step, inputs=inputs, sources=sources)

    def _crop(self, draw: Draw) -> np.ndarray:
        start = crop_start(int(self._num_samples[draw.row]), self._window, draw.rng)
        clip = self._decoded(draw.row)[start : start + self._window]
        return cut_window(clip.astype(np.float32) / 32768.0, 0, self._window)

    def _masks(self, draw: Draw) -> np.ndarray:
        return draw_masks(
            draw.rng,
            num_frames=self._num_frames,
            num_mels=self._num_mels,
            time_mask=self._config.spec_time_mask,
            freq_mask=self._config.spec_freq_mask,
        )

    def _decoded(self, row: int) -> np.ndarray:
        """Whole clips as int16, kept within the configured memory: decoding costs as much as a small tower's step."""
        if row in self._cache:
            self._cache.move_to_end(row)
            return self._cache[row]
        clip = np.round(decode_flac(self._audio[row].as_py()) * 32768.0).clip(-32768, 32767).astype(np.int16)
        self._cache[row] = clip
        self._cache_bytes += clip.nbytes
        while self._cache_bytes > self._config.decoded_cache_mb * 2**20:
            self._cache_bytes -= self._cache.popitem(last=False)[1].nbytes
        return clip

"""Batches for the training loop: decoded crops and tokenised texts of one worker's slice.

Shape letters: B pairs of this worker, T samples of a window, L tokens of the longest text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mulan_core.audio.augment import draw_masks
from mulan_core.audio.windows import crop_start, cut_window
from mulan_core.config import FrontendConfig, TrainConfig
from mulan_core.data.sampling import Draw, Sampler, texts_by_source
from mulan_core.data.shards import decode_flac, read_split


@dataclass(frozen=True)
class Batch:
    """What one worker needs for one step."""

    step: int
    waveforms_BT: Tensor
    input_ids_BL: Tensor
    attention_mask_BL: Tensor
    spec_masks_B4: Tensor
    sources: tuple[str, ...]
    """The source each text came from, for the realised ratios."""


class TrainingBatches:
    """Iterates over a worker's batches from any step on; the next batch is made while the current one trains.

    Args:
        prepared: the prepared folder.
        config: seed, batch size, text sources.
        tokenize: texts -> ``input_ids`` and ``attention_mask``, padded to the longest of the batch.
        frontend: the model's front-end, whose window is cropped and whose frames and bands are masked.
        rank: this worker, of ``config.num_workers``.

    Raises:
        UserError: if the folder has no training shards or no text to draw.
    """

    def __init__(
        self,
        prepared: Path,
        config: TrainConfig,
        tokenize: Callable[[list[str]], dict[str, Tensor]],
        *,
        frontend: FrontendConfig,
        rank: int = 0,
    ) -> None:
        table = read_split(prepared, "train", columns=["track_id", "audio", "num_samples", "texts"])
        self._audio = table["audio"]
        self._num_samples = table["num_samples"].to_numpy()
        texts = [texts_by_source(row, use_filtered=config.use_filtered_text) for row in table["texts"].to_pylist()]
        self.sampler = Sampler(
            table["track_id"].to_pylist(), texts, source_weights=config.source_weights, seed=config.seed
        )
        self._config, self._tokenize, self._rank = config, tokenize, rank
        self._window = round(frontend.window_s * frontend.sample_rate_hz)
        self._num_frames, self._num_mels = round(frontend.window_s * 1000 / frontend.hop_ms), frontend.num_mels
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cache_bytes = 0

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
        tokens = self._tokenize([draw.text for draw in draws])
        return Batch(
            step=step,
            waveforms_BT=torch.from_numpy(np.stack([self._crop(draw) for draw in draws])),
            spec_masks_B4=torch.from_numpy(np.stack([self._masks(draw) for draw in draws])),
            input_ids_BL=tokens["input_ids"],
            attention_mask_BL=tokens["attention_mask"],
            sources=tuple(draw.source for draw in draws),
        )

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

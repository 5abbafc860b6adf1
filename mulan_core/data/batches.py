"""Batches for the training loop: decoded crops of one worker's slice, and beside them texts or labels.

Shape letters: B examples of this worker, S samples of a window, L tokens of the longest text, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mulan_core.audio.augment import draw_masks
from mulan_core.audio.windows import crop_start, cut_window
from mulan_core.config import FrontendConfig, TrainConfig
from mulan_core.data.sampling import Draw, Sampler, number, texts_by_source
from mulan_core.data.shards import decode_flac
from mulan_core.data.split import Split
from mulan_core.errors import UserError
from mulan_core.tasks import Batch

Beside = Callable[[list[Draw]], dict[str, Tensor]]
"""What lies beside the windows of these draws."""


VALIDATION_PAIRS = 1024
"""Most pairs of a validation batch: one worker encodes it, chunk by chunk, while the others wait."""


class TrainingBatches:
    """A worker's batches by step: ``batches[7]``, or all from some step on, made ahead while others train.

    ``of_pairs`` and ``of_labels`` make one. All of it follows from (seed, step), whatever the number of workers
    and of readers.
    """

    def __init__(
        self,
        clips: Split,
        sampler: Sampler,
        beside: Beside,
        *,
        config: TrainConfig,
        frontend: FrontendConfig,
        rank: int,
    ) -> None:
        self._clips, self.sampler, self._beside = clips, sampler, beside
        self._config = config
        share = config.batch_size // config.num_workers
        self._slots = range(rank * share, (rank + 1) * share)
        self._window = round(frontend.window_s * frontend.sample_rate_hz)
        self._num_frames, self._num_mels = frontend.num_frames, frontend.num_mels
        own = sampler.lanes.members({sampler.lanes.lane_of(slot) for slot in self._slots})
        groups_of_window = -(-config.shuffle_window // clips.rows_of_group) + 2
        clips.keep_groups = groups_of_window * len(own)
        num_samples = clips.column("num_samples").to_numpy()
        total = sum(int(num_samples[sampler.rows[first:last]].sum()) for first, last in own)
        self._keeps_decoded = total * np.dtype(np.int16).itemsize <= config.decoded_cache_mb * 2**20
        self._decoded: dict[int, np.ndarray] = {}

    @classmethod
    def of_pairs(
        cls,
        prepared: Path,
        config: TrainConfig,
        tokenize: Callable[[list[str]], Mapping[str, Tensor]],
        *,
        frontend: FrontendConfig,
        rank: int = 0,
        split: str = "train",
    ) -> TrainingBatches:
        """Windows, each beside one of its track's texts.

        Args:
            prepared: the prepared folder.
            config: seed, batch size, text sources.
            tokenize: texts -> ``input_ids`` and ``attention_mask``, padded to the longest of the batch.
            frontend: the model's front-end, whose window is cropped and whose frames and bands are masked.
            rank: this worker, of ``config.num_workers``.
            split: whose tracks.

        Raises:
            UserError: if the folder has no shards of that split or no text to draw.
        """
        clips = Split(prepared, split, ["track_id", "audio", "num_samples", "texts"])

        def track_of(row: int) -> tuple[str, dict[str, list[str]]]:
            track_id, texts = clips.row(row, "track_id", "texts")
            return track_id, texts_by_source(texts, use_filtered=config.use_filtered_text)

        def beside(draws: list[Draw]) -> dict[str, Tensor]:
            tokens = tokenize([draw.text for draw in draws])
            ids = torch.tensor([(draw.row, number(draw.text)) for draw in draws])
            return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], "ids": ids}

        has = clips.sources(use_filtered=config.use_filtered_text)
        sampler = _sampler(has, track_of, config.source_weights, config)
        return cls(clips, sampler, beside, config=config, frontend=frontend, rank=rank)

    @classmethod
    def of_labels(
        cls, prepared: Path, config: TrainConfig, *, frontend: FrontendConfig, rank: int = 0
    ) -> tuple[TrainingBatches, list[str]]:
        """Windows beside their tracks' labels, and the labels in the order of their columns; see ``of_pairs``.

        Raises:
            UserError: if the folder has no training shards or its tracks no labels.
        """
        clips = Split(prepared, "train", ["track_id", "audio", "num_samples", "labels"])
        labels = clips.column("labels")
        names = sorted(pc.unique(pc.list_flatten(labels)).drop_null().to_pylist())
        if not names:
            raise UserError(f"no training track in {prepared} carries a label; there is nothing to classify")
        column = {name: i for i, name in enumerate(names)}

        def track_of(row: int) -> tuple[str, dict[str, list[str]]]:
            # To the sampler labels are texts of one source, of which it draws one; below all of them count.
            track_id, track_labels = clips.row(row, "track_id", "labels")
            return track_id, {"aset": track_labels}

        def beside(draws: list[Draw]) -> dict[str, Tensor]:
            labels_BC = torch.zeros(len(draws), len(names))
            for i, draw in enumerate(draws):
                labels_BC[i, [column[label] for label in clips.row(draw.row, "labels")[0]]] = 1.0
            return {"labels": labels_BC}

        has = {"aset": pc.fill_null(pc.greater(pc.list_value_length(labels), 0), False).to_numpy()}
        sampler = _sampler(has, track_of, {"aset": 1.0}, config)
        return cls(clips, sampler, beside, config=config, frontend=frontend, rank=rank), names

    def from_step(self, first: int) -> Iterator[Batch]:
        """Yield the batches of steps ``first``, ``first + 1``, ... up to the configured number of steps."""
        steps = range(first, self._config.steps)
        if self._config.num_loader_workers:
            # Forked, so that every reader has the clips' table without reading it again; none of them computes.
            return iter(
                DataLoader(
                    self,  # type: ignore[arg-type]  # whose rows are the batches
                    sampler=steps,
                    batch_size=None,
                    num_workers=self._config.num_loader_workers,
                    multiprocessing_context="fork",
                )
            )
        return self._ahead(steps) if steps else iter(())

    def _ahead(self, steps: range) -> Iterator[Batch]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
            upcoming = pool.submit(self.__getitem__, steps.start)
            for step in steps:
                batch = upcoming.result()
                if step + 1 in steps:
                    upcoming = pool.submit(self.__getitem__, step + 1)
                yield batch

    def __getitem__(self, step: int) -> Batch:
        """Make this worker's slice of the batch of one step."""
        draws = self.sampler.batch(step, self._slots)
        inputs = self._beside(draws)
        inputs["waveforms"] = torch.from_numpy(np.stack([self._crop(draw) for draw in draws]))
        inputs["spec_masks"] = torch.from_numpy(np.stack([self._masks(draw) for draw in draws]))
        sources = tuple(draw.source for draw in draws) if "input_ids" in inputs else ()
        return Batch(step=step, inputs=inputs, sources=sources)

    def _crop(self, draw: Draw) -> np.ndarray:
        """A window of the clip. Decoding costs as much as a small tower's step, so where all clips of this worker
        fit into the configured memory each is decoded once; where not, only the window is decoded.
        """
        if draw.row in self._decoded:
            clip = self._decoded[draw.row]
            start = crop_start(len(clip), self._window, draw.rng)
            return cut_window(clip[start : start + self._window].astype(np.float32) / 32768.0, 0, self._window)
        audio, num_samples = self._clips.row(draw.row, "audio", "num_samples")
        start = crop_start(num_samples, self._window, draw.rng)
        if not self._keeps_decoded:
            return cut_window(decode_flac(audio, start=start, frames=self._window), 0, self._window)
        clip = decode_flac(audio)
        self._decoded[draw.row] = np.round(clip * 32768.0).clip(-32768, 32767).astype(np.int16)
        return cut_window(clip, start, self._window)

    def _masks(self, draw: Draw) -> np.ndarray:
        return draw_masks(
            draw.rng,
            num_frames=self._num_frames,
            num_mels=self._num_mels,
            time_mask=self._config.spec_time_mask,
            freq_mask=self._config.spec_freq_mask,
        )


def validation_batch(
    prepared: Path,
    config: TrainConfig,
    tokenize: Callable[[list[str]], Mapping[str, Tensor]],
    *,
    frontend: FrontendConfig,
) -> Batch | None:
    """One batch of pairs of the validation split, each track once, without SpecAugment: always the same for a run.

    It holds ``config.batch_size`` pairs, or as many as there are, or ``VALIDATION_PAIRS``. None where the split has
    fewer than two tracks with a text; for the arguments see ``TrainingBatches.of_pairs``.
    """
    try:
        has = Split(prepared, "valid", ["track_id", "texts"]).sources(use_filtered=config.use_filtered_text)
    except UserError:  # there are no shards of that split
        return None
    drawn = [has[source] for source, weight in config.source_weights.items() if weight > 0 and source in has]
    usable = int(np.logical_or.reduce(drawn).sum()) if drawn else 0
    if usable < 2:
        return None
    alone = replace(
        config,
        batch_size=min(config.batch_size, usable, VALIDATION_PAIRS),
        num_workers=1,
        min_workers=None,
        num_loader_workers=0,
        spec_time_mask=0,
        spec_freq_mask=0,
    )
    return TrainingBatches.of_pairs(prepared, alone, tokenize, frontend=frontend, split="valid")[0]


def _sampler(
    has: Mapping[str, np.ndarray],
    track_of: Callable[[int], tuple[str, Mapping[str, list[str]]]],
    source_weights: Mapping[str, float],
    config: TrainConfig,
) -> Sampler:
    return Sampler(
        has,
        track_of,
        source_weights=source_weights,
        batch_size=config.batch_size,
        seed=config.seed,
        num_lanes=config.num_lanes,
        window=config.shuffle_window,
        by_quota=config.source_mix == "quota",
    )

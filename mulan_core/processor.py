"""MuLanProcessor: audio of any rate and texts in, the model's inputs out. Travels in the model's folder.

    inputs = processor(audio=[wave], sampling_rate=44_100)      # {"waveforms": (N, S), "num_windows": (B,)}
    inputs = processor(text=["relaxing piano"])                 # {"input_ids", "attention_mask"}: (B, L)

Audio of any length becomes windows that are fixed, even and cover it (``audio.windows``); audio shorter than one
window is zero-padded at its end. The model averages over the windows of an item.

Shape letters: B items, N windows of all items, S samples of a window, L tokens.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase
from transformers.utils import PushToHubMixin, cached_file

from mulan_core.audio import RATES_HZ
from mulan_core.audio.windows import cut_windows
from mulan_core.config import ModelConfig
from mulan_core.errors import UserError
from mulan_core.model import MuLanConfig
from mulan_core.towers.pretrained import load_error
from mulan_core.towers.warm_start import load_tokenizer

_FILE = "processor_config.json"


class MuLanProcessor(PushToHubMixin):
    """Resample, cut and pad audio; tokenize texts.

    Args:
        tokenizer: of the text tower's vocabulary.
        sample_rate_hz: that the model hears.
        window_s: length of the model's window, seconds.
        max_tokens: longer texts are cut to this many tokens.
        hop_s: largest distance between the starts of an item's windows, seconds; None makes it one window.

    Attributes:
        num_truncated: texts cut so far; the first one gives a warning.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        sample_rate_hz: int,
        window_s: float,
        max_tokens: int,
        hop_s: float | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.sample_rate_hz = sample_rate_hz
        self.window_s = window_s
        self.max_tokens = max_tokens
        self.hop_s = window_s if hop_s is None else hop_s
        self.num_truncated = 0

    @property
    def window_samples(self) -> int:
        """Samples in one window."""
        return round(self.window_s * self.sample_rate_hz)

    @property
    def hop_samples(self) -> int:
        """Largest distance between the starts of windows, samples."""
        return round(self.hop_s * self.sample_rate_hz)

    @classmethod
    def from_config(cls, config: ModelConfig, *, tokenizer: PreTrainedTokenizerBase | None = None) -> MuLanProcessor:
        """The processor of a new model; the tokenizer is that of ``text.pretrained`` unless one is given.

        Raises:
            UserError: if there is no tokenizer: ``text.pretrained`` is null, or does not open.
        """
        if tokenizer is None:
            if config.text.pretrained is None:
                raise UserError(
                    "text.pretrained is null, so there is no vocabulary: name a model or a folder, or give "
                    "MuLanProcessor.from_config a tokenizer"
                )
            tokenizer = load_tokenizer(config.text.pretrained)
        return cls(
            tokenizer,
            sample_rate_hz=config.frontend.sample_rate_hz,
            window_s=config.frontend.window_s,
            max_tokens=config.text.max_tokens,
            hop_s=config.hop_s,
        )

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> MuLanProcessor:
        """Open a saved processor: a folder, or a name on the hub with transformers' options (``revision``, ...).

        Raises:
            UserError: if it does not open, or is the processor of another model.
        """
        try:
            file = cached_file(str(path), _FILE, **options)
        except OSError as error:
            raise load_error(str(path), error) from error
        values = json.loads(Path(str(file)).read_text(encoding="utf-8"))
        kind = values.pop("processor_class", None)
        if kind != cls.__name__:
            raise UserError(f"{str(path)!r} holds a processor of class {kind}, not a {cls.__name__}")
        return cls(load_tokenizer(str(path), **options), **values)

    def save_pretrained(
        self, path: str | Path, *, push_to_hub: bool = False, max_shard_size: Any = None, **hub_options: Any
    ) -> None:
        """Write ``processor_config.json`` and the tokenizer's files into the folder ``path``.

        Args:
            path: the folder; the model's own is the place for it.
            push_to_hub: also upload, as in transformers, to ``repo_id`` (default: the folder's name).
            max_shard_size: what ``push_to_hub`` hands to all that it saves; nothing here is that large.
            hub_options: of ``push_to_hub``.
        """
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(str(path))
        values = {
            "processor_class": type(self).__name__,
            "sample_rate_hz": self.sample_rate_hz,
            "window_s": self.window_s,
            "hop_s": self.hop_s,
            "max_tokens": self.max_tokens,
        }
        (path / _FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        if push_to_hub:
            self.push_to_hub(hub_options.pop("repo_id", path.name), **hub_options)

    def __call__(
        self,
        *,
        audio: np.ndarray | Sequence[np.ndarray] | None = None,
        text: str | Sequence[str] | None = None,
        sampling_rate: float | None = None,
    ) -> BatchFeature:
        """Model inputs, as torch tensors, for audio, texts or both.

        Args:
            audio: one mono array or a list of arrays, of any length; those of a list may be (channels, samples)
                and are downmixed. Floats in [-1, 1], or signed integers, which are scaled by the range of
                their type.
            text: one text or a list of texts.
            sampling_rate: of ``audio``, Hz; must be given with it.

        Returns:
            ``waveforms`` float32 (N, S) and ``num_windows`` int64 (B,) of audio; ``input_ids`` and
            ``attention_mask`` int64 (B, L) of texts.

        Raises:
            UserError: if there is nothing to process, or an array is empty, not finite or of a wrong shape.
        """
        inputs: dict[str, torch.Tensor] = {}
        if audio is not None:
            size, hop = self.window_samples, self.hop_samples
            waves = self._waves(audio, sampling_rate)
            windows = [cut_windows(wave, window_samples=size, hop_samples=hop) for wave in waves]
            inputs["waveforms"] = torch.from_numpy(np.concatenate(windows))
            inputs["num_windows"] = torch.tensor([len(item_windows) for item_windows in windows])
        if text is not None:
            inputs |= self._tokens(text)
        if not inputs:
            raise UserError("nothing to process: give audio, text or both")
        return BatchFeature(inputs)

    def _waves(self, audio: np.ndarray | Sequence[np.ndarray], sampling_rate: float | None) -> list[np.ndarray]:
        """Whole audio as mono float32 at the model's rate, neither cut nor padded."""
        if sampling_rate is None:
            raise UserError("give the sampling_rate of the audio in Hz, for example sampling_rate=44_100")
        if not isinstance(sampling_rate, Real) or not RATES_HZ[0] <= sampling_rate <= RATES_HZ[1]:
            raise UserError(f"sampling_rate is {sampling_rate!r}; it must be in Hz, {RATES_HZ[0]} to {RATES_HZ[1]}")
        if isinstance(audio, np.ndarray):
            if audio.ndim != 1:
                raise UserError(f"audio of shape {audio.shape} is ambiguous: give a list of arrays, one per item")
            audio = [audio]
        if len(audio) == 0:
            raise UserError("the list of audio is empty")
        return [self._mono(np.asarray(wave), sampling_rate, item) for item, wave in enumerate(audio)]

    def _mono(self, wave: np.ndarray, sampling_rate: float, item: int) -> np.ndarray:
        if wave.ndim not in (1, 2):
            raise UserError(f"audio item {item} has shape {wave.shape}; it must be (samples,) or (channels, samples)")
        if wave.size == 0:
            raise UserError(f"audio item {item} is empty")
        if wave.ndim == 2 and len(wave) > wave.shape[1]:
            raise UserError(f"audio item {item} has {len(wave)} channels of {wave.shape[1]} samples; transpose it")
        if np.issubdtype(wave.dtype, np.signedinteger):
            wave = wave / -np.float32(np.iinfo(wave.dtype).min)
        if not np.issubdtype(wave.dtype, np.floating):
            raise UserError(f"audio item {item} is of type {wave.dtype}; give floats in [-1, 1] or signed integers")
        wave = wave.astype(np.float32, copy=False)
        if wave.ndim == 2:
            wave = wave.mean(axis=0)
        if not np.isfinite(wave).all():
            raise UserError(f"audio item {item} holds values that are not finite")
        if sampling_rate != self.sample_rate_hz:
            import soxr

            wave = soxr.resample(wave, sampling_rate, self.sample_rate_hz, quality="HQ")
            if wave.size == 0:
                raise UserError(f"audio item {item} is too short: nothing is left of it at {self.sample_rate_hz} Hz")
        return wave

    def _tokens(self, text: str | Sequence[str]) -> dict[str, torch.Tensor]:
        texts = [text] if isinstance(text, str) else list(text)
        if not texts or not all(isinstance(item, str) for item in texts):
            raise UserError("text must be a string or a list of strings that is not empty")
        encoded = self.tokenizer(
            texts,
            padding="longest",
            truncation=True,
            max_length=self.max_tokens,
            return_token_type_ids=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        lengths = encoded["attention_mask"].sum(dim=1).tolist()
        full = [text for text, length in zip(texts, lengths, strict=True) if length == self.max_tokens]
        if full:
            self._count_cut(full, total=len(texts))
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}

    def _count_cut(self, full: list[str], *, total: int) -> None:
        """Of texts that fill ``max_tokens``, count those that had more."""
        cut = sum(len(ids) > self.max_tokens for ids in self.tokenizer(full, verbose=False)["input_ids"])
        if cut and not self.num_truncated:
            warnings.warn(
                f"texts of more than {self.max_tokens} tokens lose their end, {cut} of these {total}; from now on they "
                "are only counted, in processor.num_truncated",
                stacklevel=4,
            )
        self.num_truncated += cut


AutoProcessor.register(MuLanConfig, MuLanProcessor)

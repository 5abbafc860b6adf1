"""MuLanProcessor: audio of any rate and texts in, the model's inputs out. Travels in the model's folder.

    inputs = processor(audio=[wave], sampling_rate=44_100)      # {"waveforms": (B, S)}
    inputs = processor(text=["relaxing piano"])                 # {"input_ids", "attention_mask"}: (B, L)

One item of audio becomes one window: shorter audio is zero-padded at its end, of longer audio the middle is
taken. ``embedding.embed_tracks`` covers a whole track instead.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase
from transformers.utils import PushToHubMixin, cached_file

from mulan_core.audio.windows import cut_window
from mulan_core.config import ModelConfig
from mulan_core.errors import UserError
from mulan_core.towers.warm_start import locate, unreachable

_FILE = "processor_config.json"


class MuLanProcessor(PushToHubMixin):
    """Resample, cut and pad audio; tokenize texts.

    Args:
        tokenizer: of the text tower's vocabulary.
        sample_rate_hz: that the model hears.
        window_s: length of the model's window, seconds.
        max_tokens: longer texts are cut to this many tokens.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, sample_rate_hz: int, window_s: float, max_tokens: int
    ) -> None:
        self.tokenizer = tokenizer
        self.sample_rate_hz = sample_rate_hz
        self.window_s = window_s
        self.max_tokens = max_tokens

    @property
    def window_samples(self) -> int:
        """Samples in one window."""
        return round(self.window_s * self.sample_rate_hz)

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
            tokenizer = _open_tokenizer(locate(config.text.pretrained), config.text.pretrained)
        return cls(
            tokenizer,
            sample_rate_hz=config.frontend.sample_rate_hz,
            window_s=config.frontend.window_s,
            max_tokens=config.text.max_tokens,
        )

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> MuLanProcessor:
        """Open a saved processor: a folder, or a name on the hub with transformers' options (``revision``, ...).

        Raises:
            UserError: if it does not open.
        """
        try:
            found = cached_file(str(path), _FILE, **options)
        except OSError as error:
            raise unreachable(str(path), error) from error
        values = json.loads(Path(str(found)).read_text(encoding="utf-8"))
        values.pop("processor_class")
        return cls(_open_tokenizer(str(path), str(path), **options), **values)

    def save_pretrained(self, path: str | Path, **_: Any) -> None:
        """Write ``processor_config.json`` and the tokenizer's files into the folder ``path``."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(str(path))
        values = {
            "processor_class": type(self).__name__,
            "sample_rate_hz": self.sample_rate_hz,
            "window_s": self.window_s,
            "max_tokens": self.max_tokens,
        }
        (path / _FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def __call__(
        self,
        *,
        audio: np.ndarray | Sequence[np.ndarray] | None = None,
        text: str | Sequence[str] | None = None,
        sampling_rate: int | None = None,
    ) -> BatchFeature:
        """Model inputs, as torch tensors, for audio, texts or both.

        Args:
            audio: one mono array or a list of arrays; an array of a list may have channels, on its shorter
                axis. Floats in [-1, 1], or signed integers, which are scaled by the range of their type.
            text: one text or a list of texts.
            sampling_rate: of ``audio``, Hz; must be given with it.

        Raises:
            UserError: if there is nothing to process, or an array is empty, not finite or of a wrong shape.
        """
        inputs: dict[str, torch.Tensor] = {}
        if audio is not None:
            waves = self.waveforms(audio, sampling_rate)
            inputs["waveforms"] = torch.from_numpy(np.stack([self._one_window(wave) for wave in waves]))
        if text is not None:
            inputs |= self._tokens(text)
        if not inputs:
            raise UserError("nothing to process: give audio, text or both")
        return BatchFeature(inputs)

    def waveforms(self, audio: np.ndarray | Sequence[np.ndarray], sampling_rate: int | None) -> list[np.ndarray]:
        """Whole audio as mono float32 at the model's rate, neither cut nor padded; see ``__call__``."""
        if sampling_rate is None or sampling_rate <= 0:
            raise UserError("give the sampling_rate of the audio in Hz, for example sampling_rate=44_100")
        if isinstance(audio, np.ndarray):
            if audio.ndim != 1:
                raise UserError(f"audio of shape {audio.shape} is ambiguous: give a list of arrays, one per item")
            audio = [audio]
        if len(audio) == 0:
            raise UserError("the list of audio is empty")
        return [self._mono(np.asarray(wave), sampling_rate, item) for item, wave in enumerate(audio)]

    def _mono(self, wave: np.ndarray, sampling_rate: int, item: int) -> np.ndarray:
        if wave.ndim not in (1, 2) or wave.size == 0:
            raise UserError(f"audio item {item} has shape {wave.shape}; it must be (samples,) or (channels, samples)")
        if np.issubdtype(wave.dtype, np.signedinteger):
            wave = wave / -np.float32(np.iinfo(wave.dtype).min)
        if not np.issubdtype(wave.dtype, np.floating):
            raise UserError(f"audio item {item} is of type {wave.dtype}; give floats in [-1, 1] or signed integers")
        if wave.ndim == 2:
            wave = wave.mean(axis=int(np.argmin(wave.shape)))
        wave = wave.astype(np.float32, copy=False)
        if not np.isfinite(wave).all():
            raise UserError(f"audio item {item} holds values that are not finite")
        if sampling_rate != self.sample_rate_hz:
            import soxr

            wave = soxr.resample(wave, sampling_rate, self.sample_rate_hz, quality="HQ")
        return wave

    def _one_window(self, wave: np.ndarray) -> np.ndarray:
        return cut_window(wave, max(0, len(wave) - self.window_samples) // 2, self.window_samples)

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
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def _open_tokenizer(place: str, name: str, **options: Any) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(place, **options)
    except (OSError, ValueError) as error:
        raise unreachable(name, error) from error

"""Encoders that listen: MuLan, an audio-text or audio model of transformers, a trained classifier.

All cut a track into the same windows: fixed, even and covering it, each as long as the model's own (``audio.windows``).
A track's vector is the re-normalised mean of its unit window vectors; a classifier's is the mean of its class scores.

Shape letters: N tracks or texts, W windows, S samples of a window, D embedding size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoFeatureExtractor, AutoModel

from mulan_core.classifier import AudioClassifier
from mulan_core.embedding import embed_texts, encode_windows
from mulan_core.errors import UserError
from mulan_core.evaluation.encoder import Encoder
from mulan_core.evaluation.tagging import split_label
from mulan_core.evaluation.text_encoder import POOLINGS, pool
from mulan_core.model import MuLanModel, mean_of_windows
from mulan_core.processor import MuLanProcessor
from mulan_core.towers.pretrained import locate
from mulan_core.towers.warm_start import load_config, load_tokenizer, load_weights, quiet

_WINDOW_S = 10.0
"""Window of an audio model that names none."""


class _Listener(Encoder):
    """Resamples, cuts and batches; a subclass says what a window becomes and how windows are averaged."""

    has_audio = True
    sample_rate_hz: int
    window_s: float
    hop_s: float
    pads = True
    """Short audio is zero-padded to a window here; False leaves it to the model's own feature extractor."""

    def __init__(self, name: str, weights_hash: str, *, batch_size: int, device: str) -> None:
        super().__init__(name, weights_hash)
        self._batch_size, self._device = batch_size, device

    @property
    def settings(self) -> dict[str, Any]:
        """See ``Encoder``."""
        return {"sample_rate_hz": self.sample_rate_hz, "window_s": self.window_s, "hop_s": self.hop_s}

    def embed_tracks(self, track_ids: Sequence[str], waves: Iterable[np.ndarray], *, sampling_rate: int) -> np.ndarray:
        """See ``Encoder``."""
        return self.embed_with_windows(track_ids, waves, sampling_rate=sampling_rate)[0]

    def embed_with_windows(
        self, track_ids: Sequence[str], waves: Iterable[np.ndarray], *, sampling_rate: int
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """See ``Encoder``."""
        heard = [self._resample(wave, sampling_rate) for wave in waves]
        if len(heard) != len(track_ids):
            raise ValueError(f"{len(track_ids)} track ids but {len(heard)} waves")
        if not heard:
            return np.zeros((0, self.embedding_dim), np.float32), []
        with torch.inference_mode():
            vectors_WD, num_windows_N = encode_windows(
                self._encode,
                heard,
                window_samples=round(self.window_s * self.sample_rate_hz),
                hop_samples=round(self.hop_s * self.sample_rate_hz),
                batch_size=self._batch_size,
                pad=self.pads,
            )
            windows = [part.cpu().numpy() for part in vectors_WD.split(num_windows_N.tolist())]
            return self._average(vectors_WD, num_windows_N).cpu().numpy(), windows

    def _resample(self, wave: np.ndarray, sampling_rate: int) -> np.ndarray:
        if sampling_rate == self.sample_rate_hz:
            return wave
        import soxr

        resampled: np.ndarray = soxr.resample(wave, sampling_rate, self.sample_rate_hz, quality="HQ")
        return resampled

    def _encode(self, windows_WS: np.ndarray) -> Tensor:
        raise NotImplementedError

    def _average(self, vectors_WD: Tensor, num_windows_N: Tensor) -> Tensor:
        return mean_of_windows(functional.normalize(vectors_WD.float(), dim=-1), num_windows_N)


class MuLanEncoder(_Listener):
    """A saved MuLan."""

    kind = "MuLan"
    has_text = True

    def __init__(self, name: str, weights_hash: str, *, batch_size: int, device: str) -> None:
        super().__init__(name, weights_hash, batch_size=batch_size, device=device)
        self.model = MuLanModel.from_pretrained(name).to(device)
        self.processor = MuLanProcessor.from_pretrained(name)
        self.embedding_dim = self.model.config.model.embedding_dim
        self.sample_rate_hz = self.processor.sample_rate_hz
        self.window_s, self.hop_s = self.processor.window_s, self.processor.hop_s

    def _encode(self, windows_WS: np.ndarray) -> Tensor:
        return self.model.get_audio_features(torch.from_numpy(windows_WS).to(self._device))

    def _average(self, vectors_WD: Tensor, num_windows_N: Tensor) -> Tensor:
        return mean_of_windows(vectors_WD, num_windows_N)  # unit vectors already

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See ``Encoder``."""
        return embed_texts(self.model, self.processor, texts, batch_size=self._batch_size)


class _TransformersListener(_Listener):
    """Audio through the feature extractor that came with a transformers model."""

    pads = False

    def __init__(self, name: str, weights_hash: str, *, batch_size: int, device: str) -> None:
        super().__init__(name, weights_hash, batch_size=batch_size, device=device)
        try:
            with quiet():
                self._extractor = AutoFeatureExtractor.from_pretrained(locate(name))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{name} has no feature extractor for audio (preprocessor_config.json): save it beside the model"
            ) from error
        if not hasattr(self._extractor, "sampling_rate"):
            raise UserError(f"{name} takes no audio: its {type(self._extractor).__name__} names no sampling rate")
        self.sample_rate_hz = int(self._extractor.sampling_rate)
        own = getattr(self._extractor, "max_length_s", None) or getattr(self._extractor, "chunk_length", None)
        self.window_s = self.hop_s = float(own or _WINDOW_S)

    def _features(self, windows_WS: np.ndarray) -> Any:
        # A model that wants fixed lengths pads a short window its own way; all windows of a call are of one length.
        return self._extractor(list(windows_WS), sampling_rate=self.sample_rate_hz, return_tensors="pt").to(
            self._device
        )


class AudioTextEncoder(_TransformersListener):
    """An audio-text model of transformers, such as ClapModel, with its own processor."""

    kind = "audio-text model"
    has_text = True

    def __init__(self, name: str, weights_hash: str, *, batch_size: int, device: str) -> None:
        super().__init__(name, weights_hash, batch_size=batch_size, device=device)
        model: Any = load_weights(AutoModel, name)
        self.model = model.to(device).eval()
        self._tokenizer = load_tokenizer(name)
        positions = getattr(self.model.config.text_config, "max_position_embeddings", 512)
        # RoBERTa's first positions are taken by the padding; transformers' "no limit" is 1e30.
        self._max_tokens = int(min(self._tokenizer.model_max_length, positions - 2))
        self.embedding_dim = self._encode_texts(["x"]).shape[1]

    def _encode(self, windows_WS: np.ndarray) -> Tensor:
        return _vectors(self.model.get_audio_features(**self._features(windows_WS)))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See ``Encoder``."""
        parts = [self._encode_texts(texts[i : i + self._batch_size]) for i in range(0, len(texts), self._batch_size)]
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, self.embedding_dim), np.float32)

    @torch.inference_mode()
    def _encode_texts(self, texts: Sequence[str]) -> Tensor:
        inputs = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._device)
        tokens = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        return functional.normalize(_vectors(self.model.get_text_features(**tokens)).float(), dim=-1)


class AudioEncoder(_TransformersListener):
    """An audio model of transformers without a text side: for the probe."""

    kind = "audio model"

    def __init__(self, name: str, weights_hash: str, *, pooling: str | None, batch_size: int, device: str) -> None:
        super().__init__(name, weights_hash, batch_size=batch_size, device=device)
        if pooling is not None and pooling not in POOLINGS:
            raise UserError(f"pooling is {pooling!r}; it must be one of {', '.join(POOLINGS)}")
        model: Any = load_weights(AutoModel, name)
        if getattr(load_config(name), "is_encoder_decoder", False):
            model = model.get_encoder()
        self.model = model.to(device).eval()
        self.pooling = pooling
        window = np.zeros((1, round(self.window_s * self.sample_rate_hz)), np.float32)
        with torch.inference_mode():
            self.embedding_dim = self._encode(window).shape[1]

    @property
    def settings(self) -> dict[str, Any]:
        """See ``Encoder``."""
        return super().settings | {"pooling": self.pooling}

    def _encode(self, windows_WS: np.ndarray) -> Tensor:
        output = self.model(**self._features(windows_WS))
        has_pooler = getattr(output, "pooler_output", None) is not None
        self.pooling = self.pooling or ("pooler" if has_pooler else "mean")
        if self.pooling == "pooler" and not has_pooler:
            raise UserError(f"{self.name} has no pooler of its own: choose cls, mean or max")
        return pool(output, None, self.pooling)


class ClassifierEncoder(_Listener):
    """A tower trained on labels (``mulan train --task tagging``): the supervised rows of the paper's Table 4.

    A track's vector holds its score of each class and a class's text is the unit vector of its column, so that their
    product is the class score and all else of the suite stays as it is. It knows no other text.
    """

    kind = "classifier"
    has_text = True

    def __init__(self, name: str, weights_hash: str, *, batch_size: int, device: str) -> None:
        super().__init__(name, weights_hash, batch_size=batch_size, device=device)
        self.model = AudioClassifier.from_pretrained(name).to(device)
        config = self.model.config
        self.sample_rate_hz, self.window_s = config.frontend.sample_rate_hz, config.frontend.window_s
        self.hop_s = config.hop_s or self.window_s
        self.embedding_dim = len(self.model.labels)
        texts = [split_label(label)[1] for label in self.model.labels]
        self._columns = {text: c for c, text in enumerate(texts) if texts.count(text) == 1}
        self._columns |= {label: c for c, label in enumerate(self.model.labels)}

    def _encode(self, windows_WS: np.ndarray) -> Tensor:
        return torch.sigmoid(self.model(torch.from_numpy(windows_WS).to(self._device)).float())

    def _average(self, vectors_WD: Tensor, num_windows_N: Tensor) -> Tensor:
        return torch.stack([part.mean(dim=0) for part in vectors_WD.split(num_windows_N.tolist())])

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of the classes with these names."""
        if unknown := self.unknown_texts(texts):
            raise UserError(
                f"{self.name} is a classifier without a class {unknown[0]!r} ({len(unknown)} unknown texts)"
            )
        return np.eye(self.embedding_dim, dtype=np.float32)[[self._columns[text] for text in texts]]

    def unknown_texts(self, texts: Sequence[str]) -> list[str]:
        """See ``Encoder``: texts that are not the name of a class."""
        return [text for text in texts if text not in self._columns]

    def class_prompts(self, label: str, texts: tuple[str, ...]) -> tuple[str, ...]:
        """See ``Encoder``: no template or spelling comes between a classifier and its class."""
        return (label,) if label in self._columns else texts


def _vectors(output: Any) -> Tensor:
    """The projected vectors in what ``get_*_features`` returns: a tensor, or an output that holds them."""
    vectors: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return vectors

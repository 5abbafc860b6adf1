"""The release's model in memory: texts and uploaded audio to unit vectors, ready before the first request.

Shape letters: N texts, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mulan_core.audio.decode import check_wave, decode_audio
from mulan_core.audio.windows import place_windows
from mulan_core.embedding import embed_texts, embed_with_windows
from mulan_core.errors import UserError
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor
from serving.onnx_text_encoder import OnnxTextEncoder

MIN_QUERY_S = 0.5
"""Shorter audio says nothing."""
SILENCE_RMS = 1e-4
BATCH_SIZE = 32


class Encoder:
    """Not for several threads at once: ask it from one.

    Args:
        model_path: folder of the saved model.
        num_threads: of torch, for the whole process.
        use_gpu: have the towers on the process's first GPU. The exported text tower stays on the CPU.
        text_program: an exported text tower that encodes texts instead of the model's own; see ``text_program``.

    Raises:
        UserError: if there is to be a GPU and torch sees none.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        num_threads: int = 1,
        use_gpu: bool = False,
        text_program: str | Path | None = None,
    ) -> None:
        if use_gpu and not torch.cuda.is_available():
            raise UserError(
                "serve.num_gpus asks for a GPU and torch sees none here; set it to 0, or see what `mulan doctor` says"
            )
        torch.set_num_threads(num_threads)
        self._model = MuLanModel.from_pretrained(model_path).eval().to("cuda" if use_gpu else "cpu")
        self._processor = MuLanProcessor.from_pretrained(model_path)
        self.dim = self._model.config.model.embedding_dim
        """D; noted here, since the model reads its whole configuration each time it is asked."""
        self._text_program = None
        if text_program is not None:
            self._text_program = OnnxTextEncoder(text_program, self._processor, num_threads=num_threads)

    def warm_up(self) -> None:
        """Run both towers once: the first run is many times slower than the rest."""
        self.encode_texts(["warm up"])
        silence = np.zeros(self._processor.window_samples, np.float32)
        self.encode_wave(silence)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, D) of texts."""
        if self._text_program is not None:
            return self._text_program(texts)
        return embed_texts(self._model, self._processor, texts, batch_size=BATCH_SIZE)

    def encode_wave(self, wave: np.ndarray) -> np.ndarray:
        """Unit vector (D,) of mono audio at the model's rate: the mean over its windows, as in the index."""
        return self.encode_windows(wave)[0]

    def encode_windows(self, wave: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """What ``encode_wave`` gives, and the windows: place, start_s, end_s and vector of each."""
        tracks_1D, (vectors_WD,) = embed_with_windows(self._model, self._processor, [wave], batch_size=BATCH_SIZE)
        places = place_windows(len(vectors_WD), len(wave) / self._processor.sample_rate_hz, self._processor.window_s)
        return tracks_1D[0], [
            {"place": index, "start_s": start_s, "end_s": end_s, "vector": vector_D}
            for index, ((start_s, end_s), vector_D) in enumerate(zip(places, vectors_WD, strict=True))
        ]

    def encode_flac(self, flac: bytes) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """What ``encode_windows`` gives of audio as it is kept; see ``to_flac``."""
        return self.encode_windows(self.decode(flac))

    def decode(self, data: bytes, *, max_s: float | None = None) -> np.ndarray:
        """Uploaded bytes to a wave for ``encode_wave``, of any length without ``max_s``; may run in any thread.

        Raises:
            AudioError: if it is not audio, or empty, silent, too short or too long.
        """
        rate_hz = self._processor.sample_rate_hz
        wave, _ = decode_audio(data, max_s=max_s, sample_rate_hz=rate_hz)
        check_wave(wave, min_s=MIN_QUERY_S, silence_rms=SILENCE_RMS, sample_rate_hz=rate_hz)
        return wave

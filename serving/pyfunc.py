"""The model as MLflow loads it: code beside safetensors, nothing pickled.

MLflow runs this file ("models from code"); the weights and the processor are its artifact ``model``.
"""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext


class MuLanPyfunc(PythonModel):  # type: ignore[misc]
    """Texts to unit vectors: ``predict(["sad piano", ...])`` gives float32 (N, D)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the saved folder."""
        from mulan_core.model import MuLanModel
        from mulan_core.processor import MuLanProcessor

        folder = context.artifacts["model"]
        self._model, self._processor = MuLanModel.from_pretrained(folder), MuLanProcessor.from_pretrained(folder)

    def predict(self, context: PythonModelContext, model_input: list[str], params: Any = None) -> np.ndarray:
        """Embed texts; the audio side is served by the endpoint, which decodes uploads safely."""
        from mulan_core.embedding import embed_texts

        return embed_texts(self._model, self._processor, list(model_input), batch_size=32)


mlflow.models.set_model(MuLanPyfunc())

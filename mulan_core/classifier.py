"""An audio tower under a linear classifier: what the paper's ResNet-50 is before contrastive training.

The paper trains it by logistic regression on AudioSet's labels and drops the classifier afterwards (section
3.1). Here any catalogue's labels do. A saved folder is a transformers encoder that ``model.audio.pretrained``
accepts, with the classifier's weights beside it.

Shape letters: B windows, S samples, C labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mulan_core.audio.augment import apply_masks
from mulan_core.audio.frontend import LogMel
from mulan_core.config import ModelConfig, from_mapping, to_mapping
from mulan_core.errors import UserError
from mulan_core.towers.audio import audio_config, build_audio_tower, warm_start_audio

_HEAD, _LABELS = "classifier.safetensors", "classifier.json"


class AudioClassifier(nn.Module):
    """Windows to one logit a label; the labels are independent of each other."""

    def __init__(self, config: ModelConfig, labels: Sequence[str]) -> None:
        super().__init__()
        if not labels:
            raise UserError("there are no labels to train on: the prepared tracks carry none")
        self.config, self.labels = config, tuple(labels)
        self.frontend = LogMel(config.frontend)
        self.audio_tower = build_audio_tower(audio_config(config), len(labels), pooling=config.audio.pooling)

    @classmethod
    def from_config(cls, config: ModelConfig, labels: Sequence[str], *, seed: int = 0) -> AudioClassifier:
        """A new classifier, its encoder warm-started where ``audio.pretrained`` names weights.

        Raises:
            UserError: if there are no labels, or the weights do not fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config, labels)
            if config.audio.pretrained is not None:
                warm_start_audio(model.audio_tower, config.audio.pretrained)
        return model

    def forward(self, waveforms_BS: Tensor, spec_masks: Tensor | None = None) -> Tensor:
        """float32 (B, S) in [-1, 1] at the front-end's rate to logits (B, C)."""
        features_BFT = self.frontend(waveforms_BS)
        if spec_masks is not None:
            features_BFT = apply_masks(features_BFT, spec_masks)
        logits_BC: Tensor = self.audio_tower(features_BFT)
        return logits_BC

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the encoder as transformers does, and the classifier beside it."""
        folder = Path(folder)
        self.audio_tower.encoder.save_pretrained(folder)
        save_file(self.audio_tower.projection.state_dict(), folder / _HEAD)
        written = {"labels": self.labels, "model": to_mapping(self.config)}
        (folder / _LABELS).write_text(json.dumps(written, indent=1), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> AudioClassifier:
        """Open a saved classifier, in evaluation mode.

        Raises:
            UserError: if the folder holds none.
        """
        folder = Path(folder)
        try:
            written = json.loads((folder / _LABELS).read_text(encoding="utf-8"))
            head = load_file(folder / _HEAD)
        except OSError as error:
            raise UserError(f"{folder} holds no classifier ({_LABELS} and {_HEAD} are missing)") from error
        model = cls(from_mapping(ModelConfig, written["model"]), written["labels"])
        warm_start_audio(model.audio_tower, str(folder))
        model.audio_tower.projection.load_state_dict(head)
        return model.eval()

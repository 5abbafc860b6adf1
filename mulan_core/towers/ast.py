"""M-AST of the paper: a Transformer over 16 x 16 patches of the log-mel, one linear layer at [CLS].

Patches every 10 bands and 10 frames: a 128 x 1000 log-mel gives 12 x 99. The public checkpoint has two
special tokens, [CLS] and a distillation token; ``cls_dist`` averages both as its authors do, ``cls`` reads
[CLS] alone. Which one MuLan reads is not known.

Shape letters: B examples, F mel bands, T frames, H encoder width, D embedding size, P patches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ASTConfig, ASTModel

from mulan_core.config import AudioTowerConfig
from mulan_core.towers.warm_start import load_weights, refuse_other_architecture

_POSITIONS = "embeddings.position_embeddings"
_NUM_SPECIAL = 2
ARCHITECTURE = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": None,
    "hidden_act": None,
    "layer_norm_eps": None,
    "qkv_bias": None,
    "patch_size": None,
    "frequency_stride": None,
    "time_stride": None,
}
"""What weights must share with the tower, each with its field of ``model.audio``."""


class ASTTower(nn.Module):
    """transformers' Audio Spectrogram Transformer, projected to D."""

    def __init__(self, encoder_config: ASTConfig, embedding_dim: int, *, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling
        self.encoder = ASTModel(encoder_config)
        self.projection = nn.Linear(encoder_config.hidden_size, embedding_dim)

    def forward(self, features_BFT: Tensor) -> Tensor:
        """Log-mel (B, F, T) to (B, D)."""
        output = self.encoder(features_BFT.transpose(1, 2).to(self.projection.weight.dtype))
        pooled_BH = output.pooler_output if self.pooling == "cls_dist" else output.last_hidden_state[:, 0]
        return self.projection(pooled_BH)


def ast_config(config: AudioTowerConfig, *, num_mels: int, num_frames: int) -> ASTConfig:
    """The transformers configuration of an AST tower for log-mels of (``num_mels``, ``num_frames``)."""
    return ASTConfig(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=4 * config.hidden_size,
        num_mel_bins=num_mels,
        max_length=num_frames,
    )


def warm_start_ast(tower: ASTTower, pretrained: str) -> None:
    """Copy pretrained AST weights into the tower, fitting the grid of positions to its patches.

    Raises:
        UserError: if the weights do not open or are of another architecture.
    """
    source = load_weights(ASTModel, pretrained)
    config, wanted = source.config, tower.encoder.config
    refuse_other_architecture(pretrained, config, wanted, ARCHITECTURE)
    weights = source.state_dict()
    weights[_POSITIONS] = fit_positions(weights[_POSITIONS], _grid(config), _grid(wanted))
    tower.encoder.load_state_dict(weights)


def fit_positions(positions_1PH: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Fit position embeddings of one (mel, time) grid of patches to another.

    An axis that is too long is cut around its centre, one that is too short is interpolated, as AST's authors
    do (Gong et al., 2021, section 2.2). From the checkpoint's 1024 frames to 1000 that leaves out one column of
    patches at either end.
    """
    special, patches = positions_1PH[:, :_NUM_SPECIAL], positions_1PH[:, _NUM_SPECIAL:]
    image = patches.transpose(1, 2).unflatten(2, grid)
    for axis, (have, want) in enumerate(zip(grid, wanted, strict=True), start=2):
        if have > want:
            image = image.narrow(axis, have // 2 - want // 2, want)
    if tuple(image.shape[2:]) != wanted:
        image = functional.interpolate(image, size=wanted, mode="bilinear", align_corners=False)
    return torch.cat([special, image.flatten(2).transpose(1, 2)], dim=1)


def _grid(config: Any) -> tuple[int, int]:
    return (
        (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1,
        (config.max_length - config.patch_size) // config.time_stride + 1,
    )

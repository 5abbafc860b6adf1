"""The short-chunk CNN of Won et al. (2020), the supervised baseline of the paper's Table 4 ("SC-CNN").

Its chunks of 3.69 s are this model's windows: 3 x 3 convolutions, each halving both axes of the log-mel, until next to
nothing is left; the highest value of each channel; one hidden layer. The residual variant has two convolutions a layer
and their shortcut. Layers and sizes are those of its authors' code (Evaluation of CNN-based automatic music tagging
models, section 3 and its repository).

Shape letters: B examples, F mel bands, T frames, H encoder width, D outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mulan_core.config import AudioTowerConfig
from mulan_core.towers.warm_start import load_weights, refuse_other_architecture

ARCHITECTURE = {"hidden_sizes": "hidden_sizes", "residual": "residual"}
"""What weights must share with the tower, each with its field of ``model.audio``."""


class ShortChunkConfig(PreTrainedConfig):
    """Channels of each layer, and whether layers are residual."""

    model_type = "short_chunk_cnn"

    hidden_sizes: list[int] | tuple[int, ...] = (128, 128, 256, 256, 256, 256, 512)
    residual: bool = False
    dropout: float = 0.5


class ShortChunkModel(PreTrainedModel):
    """Log-mel (B, 1, F, T) to ``pooler_output`` (B, H)."""

    config: ShortChunkConfig
    config_class = ShortChunkConfig
    base_model_prefix = "short_chunk"
    main_input_name = "pixel_values"

    def __init__(self, config: ShortChunkConfig) -> None:
        super().__init__(config)
        sizes = list(config.hidden_sizes)
        layer = _Residual if config.residual else _Convolution
        self.norm = nn.BatchNorm2d(1)
        self.layers = nn.ModuleList(layer(i, o) for i, o in zip([1, *sizes], sizes, strict=False))
        self.hidden = nn.Linear(sizes[-1], sizes[-1])
        self.hidden_norm = nn.BatchNorm1d(sizes[-1])
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """The log-mel as a grey image."""
        hidden = self.norm(pixel_values)
        for layer in self.layers:
            hidden = layer(hidden)
        pooled_BH = self.hidden_norm(self.hidden(hidden.amax(dim=(2, 3)))).relu()
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=self.dropout(pooled_BH))


class _Convolution(nn.Module):
    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(num_in, num_out, 3, padding=1)
        self.norm = nn.BatchNorm2d(num_out)
        self.pool = nn.MaxPool2d(2)

    def forward(self, hidden: Tensor) -> Tensor:
        pooled: Tensor = self.pool(self.norm(self.convolution(hidden)).relu())
        return pooled


class _Residual(nn.Module):
    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_in, num_out, 3, stride=2, padding=1)
        self.first_norm = nn.BatchNorm2d(num_out)
        self.second = nn.Conv2d(num_out, num_out, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(num_out)
        self.shortcut = nn.Conv2d(num_in, num_out, 3, stride=2, padding=1)
        self.shortcut_norm = nn.BatchNorm2d(num_out)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.second_norm(self.second(self.first_norm(self.first(hidden)).relu()))
        return (inner + self.shortcut_norm(self.shortcut(hidden))).relu()


class ShortChunkTower(nn.Module):
    """The short-chunk CNN, projected to D."""

    def __init__(self, encoder_config: ShortChunkConfig, embedding_dim: int) -> None:
        super().__init__()
        self.encoder = ShortChunkModel(encoder_config)
        self.projection = nn.Linear(list(encoder_config.hidden_sizes)[-1], embedding_dim)

    def forward(self, features_BFT: Tensor) -> Tensor:
        """Log-mel (B, F, T) to (B, D)."""
        image_B1FT = features_BFT.unsqueeze(1).to(self.projection.weight.dtype)
        return self.projection(self.encoder(image_B1FT).pooler_output)


def short_chunk_config(config: AudioTowerConfig) -> ShortChunkConfig:
    """The transformers configuration of a short-chunk tower."""
    return ShortChunkConfig(hidden_sizes=list(config.hidden_sizes), residual=config.residual)


def warm_start_short_chunk(tower: ShortChunkTower, pretrained: str) -> None:
    """Copy the weights of a saved short-chunk CNN into the tower.

    Raises:
        UserError: if the weights do not open or are of another architecture.
    """
    source = load_weights(ShortChunkModel, pretrained)
    refuse_other_architecture(pretrained, source.config, tower.encoder.config, ARCHITECTURE)
    tower.encoder.load_state_dict(source.state_dict())


AutoConfig.register(ShortChunkConfig.model_type, ShortChunkConfig)
AutoModel.register(ShortChunkConfig, ShortChunkModel)

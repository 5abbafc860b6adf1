"""M-Resnet-50 of the paper: log-mel as a grey image, mean pool over time and mel, one linear layer.

Shape letters: B examples, F mel bands, T frames, H encoder width, D embedding size.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from mulan_core.config import AudioTowerConfig
from mulan_core.towers.warm_start import load_weights, refuse_other_architecture

ARCHITECTURE = {
    "layer_type": "layer_type",
    "embedding_size": "embedding_size",
    "hidden_sizes": "hidden_sizes",
    "depths": "depths",
    "hidden_act": None,
    "downsample_in_first_stage": None,
    "downsample_in_bottleneck": None,
}
"""What weights must share with the tower, each with its field of ``model.audio``."""


class ResNetTower(nn.Module):
    """transformers' ResNet on (B, 1, F, T), projected to D."""

    def __init__(self, encoder_config: ResNetConfig, embedding_dim: int) -> None:
        super().__init__()
        self.encoder = ResNetModel(encoder_config)
        self.projection = nn.Linear(list(encoder_config.hidden_sizes or ())[-1], embedding_dim)

    def forward(self, features_BFT: Tensor) -> Tensor:
        """Log-mel (B, F, T) to (B, D)."""
        # The layout follows the weights: with one channel the image itself fits any memory format.
        image_B1FT = features_BFT.unsqueeze(1).to(self.projection.weight.dtype)
        return self.projection(self.encoder(image_B1FT).pooler_output.flatten(1))


def resnet_config(config: AudioTowerConfig) -> ResNetConfig:
    """The transformers configuration of a ResNet tower."""
    return ResNetConfig(
        num_channels=1,
        embedding_size=config.embedding_size,
        hidden_sizes=list(config.hidden_sizes),
        depths=list(config.depths),
        layer_type=config.layer_type,
    )


def warm_start_resnet(tower: ResNetTower, pretrained: str) -> None:
    """Copy pretrained ResNet weights into the tower; a classifier on top is left behind.

    An RGB stem (ImageNet) becomes a grey one by summing its kernels over the channels: the answer to a grey
    image is the same as that of the RGB stem to three equal channels. A grey stem (a classifier of log-mels)
    is its own sum.

    Raises:
        UserError: if the weights do not open or are of another architecture.
    """
    source = load_weights(ResNetModel, pretrained)
    refuse_other_architecture(pretrained, source.config, tower.encoder.config, ARCHITECTURE)
    weights = source.state_dict()
    stem = "embedder.embedder.convolution.weight"
    weights[stem] = weights[stem].sum(dim=1, keepdim=True)
    tower.encoder.load_state_dict(weights)

"""Which audio tower a configuration asks for; the only place that tells their kinds apart."""

from __future__ import annotations

from typing import cast

from transformers import ASTConfig, PreTrainedConfig, ResNetConfig

from mulan_core.config import ModelConfig
from mulan_core.towers.ast import ASTTower, ast_config, warm_start_ast
from mulan_core.towers.resnet import ResNetTower, resnet_config, warm_start_resnet
from mulan_core.towers.short_chunk import (
    ShortChunkConfig,
    ShortChunkTower,
    short_chunk_config,
    warm_start_short_chunk,
)

AudioTower = ResNetTower | ASTTower | ShortChunkTower


def audio_config(config: ModelConfig) -> PreTrainedConfig:
    """The transformers configuration of the audio encoder."""
    if config.audio.kind == "resnet":
        return resnet_config(config.audio)
    if config.audio.kind == "short_chunk":
        return short_chunk_config(config.audio)
    return ast_config(config.audio, num_mels=config.frontend.num_mels, num_frames=config.frontend.num_frames)


def build_audio_tower(encoder_config: PreTrainedConfig, num_outputs: int, *, pooling: str) -> AudioTower:
    """A tower with random weights, log-mel (B, F, T) to (B, num_outputs)."""
    if isinstance(encoder_config, ASTConfig):
        return ASTTower(encoder_config, num_outputs, pooling=pooling)
    if isinstance(encoder_config, ShortChunkConfig):
        return ShortChunkTower(encoder_config, num_outputs)
    return ResNetTower(cast(ResNetConfig, encoder_config), num_outputs)


def warm_start_audio(tower: AudioTower, pretrained: str) -> None:
    """Copy pretrained weights into the tower's encoder.

    Raises:
        UserError: if the weights do not open or are of another architecture.
    """
    if isinstance(tower, ASTTower):
        warm_start_ast(tower, pretrained)
    elif isinstance(tower, ShortChunkTower):
        warm_start_short_chunk(tower, pretrained)
    else:
        warm_start_resnet(tower, pretrained)

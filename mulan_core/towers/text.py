"""The text tower: a BERT-family encoder, [CLS] or the masked mean, one linear layer.

Shape letters: B texts, L tokens, H encoder width, D embedding size.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig

from mulan_core.errors import UserError
from mulan_core.towers.warm_start import load_weights

NUM_LENGTH_GROUPS = 4
"""Groups of like length that a batch of texts is encoded in; more groups pad less but feed smaller products."""

MAX_REMEMBERED = 50_000
"""Texts a frozen encoder remembers in training, some 75 MB; then it begins anew."""


class TextTower(nn.Module):
    """A transformers encoder projected to D, of which only the upper layers may train.

    The frozen part (embeddings and lower layers) takes no gradient, so autograd keeps no graph of it, and
    it stays in evaluation mode: its dropout is off even while the rest trains. Where the whole encoder is
    frozen, training encodes each distinct text once and remembers what the projection needs of it.
    """

    def __init__(
        self, encoder_config: PreTrainedConfig, embedding_dim: int, *, pooling: str, trainable_layers: int | None
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.trainable_layers = trainable_layers
        # Not in the precision that a checkpoint was saved in, which its configuration names.
        dtype = torch.get_default_dtype()
        self.encoder = AutoModel.from_config(encoder_config, dtype=dtype, **without_pooler(encoder_config))
        self.projection = nn.Linear(encoder_config.hidden_size, embedding_dim)
        self._remembered: dict[tuple[int, ...], Tensor] = {}
        self.freeze()

    def forward(self, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> Tensor:
        """Token ids and mask (1 = token, 0 = padding, on the right), both (B, L), to (B, D)."""
        if torch.compiler.is_exporting():  # a graph has no loop over lengths that it does not know
            return self.projection(self._pool(input_ids_BL, attention_mask_BL))
        remembers = self.training and self.trainable_layers == 0
        pool = self._pool_remembered if remembers else self._pool_grouped
        return self.projection(pool(input_ids_BL, attention_mask_BL))

    def _pool_remembered(self, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> Tensor:
        """Encode the texts that were not met before; tags recur over a catalogue, so most were."""
        lengths = attention_mask_BL.sum(dim=1).tolist()
        keys = [tuple(ids[:length]) for ids, length in zip(input_ids_BL.tolist(), lengths, strict=True)]
        new = list({key: row for row, key in enumerate(keys) if key not in self._remembered}.values())
        if new:
            if len(self._remembered) + len(new) > MAX_REMEMBERED:
                self._remembered.clear()
                new = list({key: row for row, key in enumerate(keys)}.values())
            pooled_NH = self._pool_grouped(input_ids_BL[new], attention_mask_BL[new]).float().cpu()
            self._remembered.update(zip([keys[row] for row in new], pooled_NH, strict=True))
        return torch.stack([self._remembered[key] for key in keys]).to(input_ids_BL.device)

    def _pool_grouped(self, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> Tensor:
        """Encode and pool: (B, L) to (B, H).

        Texts of one training batch differ in length by ten times (tags beside descriptions), so they are
        encoded in groups of like length, each padded to its own longest: same numbers, half the work.
        """
        lengths_B = attention_mask_BL.sum(dim=1)
        order_B = torch.argsort(lengths_B, stable=True)
        parts = []
        for rows in order_B.chunk(NUM_LENGTH_GROUPS):
            longest = int(lengths_B[rows].max())
            parts.append(self._pool(input_ids_BL[rows, :longest], attention_mask_BL[rows, :longest]))
        return torch.cat(parts)[torch.argsort(order_B)]

    def _pool(self, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> Tensor:
        hidden_BLH = self.encoder(input_ids=input_ids_BL, attention_mask=attention_mask_BL).last_hidden_state
        if self.pooling == "cls":
            return hidden_BLH[:, 0]
        mask_BL1 = attention_mask_BL.unsqueeze(-1).to(hidden_BLH.dtype)
        return (hidden_BLH * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1)

    def freeze(self) -> None:
        """Turn off the gradients of the part that does not train; the constructor calls it."""
        for module in self._frozen():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> TextTower:
        """As in torch, but the frozen part stays in evaluation mode."""
        super().train(mode)
        self._remembered.clear()  # weights may have been loaded since
        for module in self._frozen():
            module.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        if self.trainable_layers is None:
            return []
        if self.trainable_layers == 0:
            return [self.encoder]
        layers = _layers(self.encoder)
        if not 0 < self.trainable_layers <= len(layers):
            raise UserError(
                f"text.trainable_layers is {self.trainable_layers}; the encoder has {len(layers)} layers: "
                f"give 0 to {len(layers)}, or null to train all of it"
            )
        return [self.encoder.embeddings, *layers[: len(layers) - self.trainable_layers]]


def warm_start_text(tower: TextTower, pretrained: str) -> None:
    """Copy pretrained weights into the tower's encoder; heads on top of it are left behind.

    Raises:
        UserError: if the weights do not open, or do not fill the encoder.
    """
    source = load_weights(AutoModel, pretrained, **without_pooler(tower.encoder.config))
    tower.encoder.load_state_dict(source.state_dict())


def without_pooler(config: PreTrainedConfig) -> dict[str, Any]:
    """Leave out BERT's own pooler: the paper reads [CLS] itself, and unused weights would break DDP."""
    if type(config) not in MODEL_MAPPING:
        raise UserError(
            f"the text weights are a {config.model_type!r} model, which transformers cannot open as an encoder"
        )
    parameters = inspect.signature(cast(type, MODEL_MAPPING[type(config)])).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}


def _layers(encoder: nn.Module) -> nn.ModuleList:
    for path in ("encoder.layer", "transformer.layer", "layers"):
        try:
            layers = encoder.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(layers, nn.ModuleList):
            return layers
    raise UserError(
        f"text.trainable_layers: cannot tell the layers of {type(encoder).__name__} apart; set it to null or 0"
    )

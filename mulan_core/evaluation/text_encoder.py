"""Any text model of transformers or sentence-transformers as an encoder; the text baselines of the paper's Table 6.

A sentence-transformers folder says in ``modules.json`` what follows the transformer: a pooling, dense layers, a
normalisation. It is read here without that package.

Shape letters: N texts, L tokens, H hidden size, D embedding size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForTextEncoding

from mulan_core.errors import UserError
from mulan_core.evaluation.encoder import Encoder, folder_of
from mulan_core.towers.text import without_pooler
from mulan_core.towers.warm_start import load_config, load_tokenizer, load_weights

POOLINGS = ("cls", "mean", "max", "pooler")
_MAX_TOKENS = 512
"""Where a tokenizer names no limit."""


def pool(output: Any, mask_NL: Tensor | None, pooling: str) -> Tensor:
    """Hidden states to one vector each: (N, L, H) to (N, H). A mask is 1 at tokens and 0 at padding."""
    if pooling == "pooler":
        pooled: Tensor = output.pooler_output
        return pooled
    hidden_NLH: Tensor = output.last_hidden_state
    if pooling == "cls":
        return hidden_NLH[:, 0]
    mask_NL1 = torch.ones_like(hidden_NLH[..., :1]) if mask_NL is None else mask_NL[..., None].to(hidden_NLH.dtype)
    if pooling == "max":
        return hidden_NLH.masked_fill(mask_NL1 == 0, -torch.inf).amax(dim=1)
    return (hidden_NLH * mask_NL1).sum(dim=1) / mask_NL1.sum(dim=1).clamp_min(1)


class TextEncoder(Encoder):
    """Texts to unit vectors.

    Raises:
        UserError: if the model does not open, has no such pooling, or has a module that is not known.
    """

    kind = "text model"
    has_text = True

    def __init__(self, name: str, weights_hash: str, *, pooling: str | None, batch_size: int, device: str) -> None:
        super().__init__(name, weights_hash)
        if pooling is not None and pooling not in POOLINGS:
            raise UserError(f"pooling is {pooling!r}; it must be one of {', '.join(POOLINGS)}")
        folder = folder_of(name)
        modules = _modules(folder)
        transformer = str(folder / modules[0]["path"]) if modules and modules[0]["path"] else name
        own, self._dense = _read_modules(folder, modules)
        self.pooling = pooling or own or "mean"
        self.model = _open(transformer, self.pooling).to(device).eval()
        self._dense.to(device)
        self._tokenizer = load_tokenizer(transformer)
        self._max_tokens = self._token_limit(folder / modules[0]["path"] if modules else folder)
        self._batch_size = batch_size
        self.embedding_dim = self._encode(["x"]).shape[1]

    @property
    def settings(self) -> dict[str, Any]:
        """See ``Encoder``."""
        return {"pooling": self.pooling, "max_tokens": self._max_tokens}

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See ``Encoder``; texts are encoded in order of length, so that padding is little."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors_ND = np.zeros((len(texts), self.embedding_dim), np.float32)
        for first in range(0, len(order), self._batch_size):
            batch = order[first : first + self._batch_size]
            vectors_ND[batch] = self._encode([texts[i] for i in batch]).cpu().numpy()
        return vectors_ND

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> Tensor:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self.model.device)
        pooled_NH = pool(self.model(**inputs), inputs["attention_mask"], self.pooling)
        return functional.normalize(self._dense(pooled_NH.float()), dim=-1)

    def _token_limit(self, folder: Path) -> int:
        """Of sentence-transformers, else of the tokenizer, else of the positions; transformers' "none" is 1e30."""
        own = folder / "sentence_bert_config.json"
        if own.is_file() and (limit := _json(own).get("max_seq_length")):
            return int(limit)
        limits = (self._tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", _MAX_TOKENS))
        return int(min(*limits, _MAX_TOKENS))


def _open(name: str, pooling: str) -> Any:
    config = load_config(name)
    if getattr(config, "is_encoder_decoder", False):
        return load_weights(AutoModelForTextEncoding, name)
    options = without_pooler(config)
    if pooling != "pooler":
        return load_weights(AutoModel, name, **options)
    if not options:
        raise UserError(f"{name} ({config.model_type}) has no pooler of its own: choose cls, mean or max")
    return load_weights(AutoModel, name)


def _modules(folder: Path) -> list[dict[str, str]]:
    """What ``modules.json`` lists, in order; nothing for a plain transformers folder."""
    file = folder / "modules.json"
    if not file.is_file():
        return []
    modules = _json(file)
    if not modules or not str(modules[0].get("type", "")).endswith(".Transformer"):
        raise UserError(f"{file} does not begin with a transformer; only such sentence-transformers models open here")
    return modules  # type: ignore[no-any-return]


def _read_modules(folder: Path, modules: list[dict[str, str]]) -> tuple[str | None, nn.Sequential]:
    """Pooling and dense layers of a sentence-transformers folder."""
    pooling, dense = None, nn.Sequential()
    for module in modules[1:]:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling_of(folder / module["path"] / "config.json")
        elif kind == "Dense":
            dense.append(_dense(folder / module["path"]))
        elif kind != "Normalize":
            raise UserError(
                f"{folder} has a module {kind!r}, which is not known here: Pooling, Dense and Normalize are"
            )
    return pooling, dense


def _pooling_of(file: Path) -> str:
    values = _json(file)
    names = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max"}
    chosen = [key for key, value in values.items() if key.startswith("pooling_mode_") and value is True]
    if "pooling_mode" in values:  # newer files have one field
        chosen = [f"pooling_mode_{values['pooling_mode']}_token{'s' if values['pooling_mode'] != 'cls' else ''}"]
    if len(chosen) != 1 or chosen[0] not in names:
        raise UserError(f"{file} asks for {' and '.join(chosen) or 'no pooling'}; known here: {', '.join(names)}")
    return names[chosen[0]]


def _dense(folder: Path) -> nn.Sequential:
    values = _json(folder / "config.json")
    layer = nn.Linear(values["in_features"], values["out_features"], bias=values.get("bias", True))
    activation = str(values.get("activation_function", "torch.nn.modules.linear.Identity")).rsplit(".", 1)[-1]
    activations: dict[str, Callable[[], nn.Module]] = {
        "Identity": nn.Identity,
        "Tanh": nn.Tanh,
        "ReLU": nn.ReLU,
        "GELU": nn.GELU,
    }
    if activation not in activations:
        raise UserError(f"{folder} asks for the activation {activation}; known here: {', '.join(activations)}")
    weights = folder / "model.safetensors"
    try:
        if weights.is_file():
            from safetensors.torch import load_file

            state = load_file(weights)
        else:
            state = torch.load(folder / "pytorch_model.bin", weights_only=True, map_location="cpu")
        layer.load_state_dict({key.removeprefix("linear."): value for key, value in state.items()})
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot open the dense layer in {folder}: {str(error).splitlines()[0]}") from error
    return nn.Sequential(layer, activations[activation]())


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}") from error

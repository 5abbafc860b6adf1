"""What the loop can train: the two towers on pairs, or one audio tower on labels.

A task knows the model, what a batch means and what to report of it; the loop in ``training`` knows steps,
optimiser, schedule and state.

Shape letters: B examples of this worker, c of one chunk, D embedding size, C labels, S samples, L tokens.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from mulan_core.config import TrainConfig
from mulan_core.gradcache import Encoding, backward_through_vectors, freeze_batch_norm
from mulan_core.losses import chance_level, contrastive_loss
from mulan_core.model import MuLanModel

if TYPE_CHECKING:  # the tasks themselves need torch and transformers alone, not the shards' readers
    from mulan_core.classifier import AudioClassifier

COLLAPSE_COSINE = 0.95
"""A batch whose audio vectors have this mean pairwise cosine is called collapsed."""


@dataclass(frozen=True)
class Batch:
    """What one worker needs for one step."""

    step: int
    inputs: dict[str, Tensor]
    """``waveforms`` float32 (B, S) and ``spec_masks`` int64 (B, 4). Pairs: ``input_ids`` and ``attention_mask``
    int64 (B, L), ``ids`` int64 (B, 2), the numbers of track and text. Labels: ``labels`` float32 (B, C)."""
    sources: tuple[str, ...]
    """The source each text came from, for the realised ratios; empty with labels."""


class Task(ABC):
    """What the loop asks of a task."""

    def __init__(self, model: nn.Module, audio_tower: nn.Module, config: TrainConfig) -> None:
        self.model, self.config = model, config
        if config.compile:
            audio_tower.compile()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def train(self) -> None:
        """Put the model into training mode; BatchNorm by choice."""
        self.model.train()
        if self.config.batch_norm == "frozen":
            freeze_batch_norm(self.model)

    @abstractmethod
    def rates(self) -> dict[str, tuple[float, list[nn.Parameter]]]:
        """Name -> peak learning rate and the parameters that train with it."""

    @abstractmethod
    def forward_backward(self, batch: Batch, *, bf16: bool) -> Tensor:
        """Add this worker's gradient to the parameters; the loss over its examples, detached scalar.

        The workers' mean of gradient and loss is that of the global batch.
        """

    def after_step(self) -> None:
        """Bring parameters back into their range."""
        return

    def metrics(self, loss: float) -> dict[str, float]:
        """Metrics and alarms of the last batch, beside its mean loss over all workers since the last report."""
        return {}

    def encode_audio(self, encode: Callable[..., Tensor], batch: Batch, rows_c: Tensor, *, bf16: bool) -> Tensor:
        """Some windows of a batch through ``encode``; only they go to the device."""
        # Autocast is opened anew for each chunk: it remembers cast weights, and those of a pass without a graph
        # would cut the next one off from the weights.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            waveforms_cS = batch.inputs["waveforms"][rows_c].to(self.device, non_blocking=True)
            return encode(waveforms_cS, spec_masks=batch.inputs["spec_masks"][rows_c])


class ContrastiveTask(Task):
    """The paper's training: unit vectors of windows and of texts, pulled together in pairs (section 3.3)."""

    model: MuLanModel

    def __init__(self, model: MuLanModel, config: TrainConfig) -> None:
        super().__init__(model, model.audio_tower, config)
        self._audio_BD = torch.empty(0, config.batch_size)
        if config.compile:
            model.text_tower.encoder.compile(dynamic=True)

    def rates(self) -> dict[str, tuple[float, list[nn.Parameter]]]:
        """The text tower's pretrained layers apart from the rest."""
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        text = {id(p) for p in self.model.text_tower.encoder.parameters()}
        return {
            "audio": (self.config.audio_lr, [p for p in trainable if id(p) not in text]),
            "text": (self.config.text_lr, [p for p in trainable if id(p) in text]),
        }

    def forward_backward(self, batch: Batch, *, bf16: bool) -> Tensor:
        """See ``Task``; the batch is one of pairs."""

        def loss_of(audio_BD: Tensor, text_BD: Tensor) -> Tensor:
            return self._loss(batch, audio_BD, text_BD, distributed=True)

        encodings = self._encodings(batch, bf16=bf16)
        loss, (self._audio_BD, _) = backward_through_vectors(encodings, loss_of, caching=self.config.gradient_caching)
        return loss

    @torch.no_grad()
    def validation_loss(self, batch: Batch, *, bf16: bool) -> float:
        """The loss of a batch that this worker has alone, by the model as it is used, without dropout."""
        self.model.eval()
        try:
            audio_BD, text_BD = (
                encoding.in_order([encoding.encode(rows) for rows in encoding.chunks])
                for encoding in self._encodings(batch, bf16=bf16)
            )
            return float(self._loss(batch, audio_BD, text_BD, distributed=False))
        finally:
            self.train()

    def _encodings(self, batch: Batch, *, bf16: bool) -> list[Encoding]:
        model, config, inputs = self.model, self.config, batch.inputs

        def encode_audio(rows_c: Tensor) -> Tensor:
            return self.encode_audio(model.get_audio_features, batch, rows_c, bf16=bf16)

        def encode_text(rows_c: Tensor) -> Tensor:
            mask_cL = inputs["attention_mask"][rows_c]
            longest = int(mask_cL.sum(1).max())
            ids_cL, mask_cL = inputs["input_ids"][rows_c, :longest], mask_cL[:, :longest]
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
                return model.get_text_features(ids_cL.to(self.device), mask_cL.to(self.device))

        lengths_B = inputs["attention_mask"].sum(1)
        share = config.batch_size // config.num_workers  # what training has room for
        audio_chunks = _chunks(torch.arange(len(lengths_B)), config.audio_chunk or share)
        # In order of length a chunk is padded to little more than its own.
        text_chunks = _chunks(torch.argsort(lengths_B, stable=True), config.text_chunk or share)
        return [
            Encoding(encode_audio, audio_chunks, model.audio_tower),
            Encoding(encode_text, text_chunks, model.text_tower),
        ]

    def _loss(self, batch: Batch, audio_BD: Tensor, text_BD: Tensor, *, distributed: bool) -> Tensor:
        form, tau = self.config.loss, self.model.tau
        ids_B2 = batch.inputs["ids"].to(self.device) if self.config.mask_duplicates else None
        return contrastive_loss(audio_BD, text_BD, tau, form=form, ids_b2=ids_B2, distributed=distributed)

    def after_step(self) -> None:
        """Keep the temperature within its bounds."""
        self.model.clamp_tau_()

    def metrics(self, loss: float) -> dict[str, float]:
        """Temperature, spread of the audio vectors, and the three alarms of docs/training.md."""
        tau, cosine = float(self.model.tau.detach()), mean_pairwise_cosine(self._audio_BD)
        chance = chance_level(self.config.batch_size, self.config.loss)
        return {
            "tau": tau,
            "mean_pairwise_cosine": cosine,
            "effective_rank": effective_rank(self._audio_BD),
            "alarm/at_chance": float(loss > chance - 0.02),
            "alarm/tau_at_bound": float(not self.model.tau_min * 1.001 < tau < 0.999),
            "alarm/collapse": float(cosine > COLLAPSE_COSINE),
        }


class ClassifierTask(Task):
    """Logistic regression on labels: the start of the paper's ResNet-50 tower (section 3.1)."""

    model: AudioClassifier

    def __init__(self, model: AudioClassifier, config: TrainConfig) -> None:
        super().__init__(model, model.audio_tower, config)

    def rates(self) -> dict[str, tuple[float, list[nn.Parameter]]]:
        """One rate for all."""
        return {"audio": (self.config.audio_lr, list(self.model.parameters()))}

    def forward_backward(self, batch: Batch, *, bf16: bool) -> Tensor:
        """See ``Task``; the batch is one of labels."""
        labels_BC = batch.inputs["labels"]

        def encode(rows_c: Tensor) -> Tensor:
            return self.encode_audio(self.model, batch, rows_c, bf16=bf16)

        def loss_of(logits_BC: Tensor) -> Tensor:
            return functional.binary_cross_entropy_with_logits(logits_BC.float(), labels_BC.to(self.device))

        chunks = _chunks(torch.arange(len(labels_BC)), self.config.audio_chunk)
        encoding = Encoding(encode, chunks, self.model.audio_tower)
        return backward_through_vectors([encoding], loss_of, caching=self.config.gradient_caching)[0]


def _chunks(rows_B: Tensor, size: int | None) -> tuple[Tensor, ...]:
    return rows_B.split(size or len(rows_B))


def mean_pairwise_cosine(vectors_BD: Tensor) -> float:
    """Mean cosine between different unit vectors of a batch; near 1 when the tower has collapsed."""
    count = len(vectors_BD)
    total = vectors_BD.float().sum(dim=0).square().sum()
    return float((total - count) / (count * (count - 1)))


def effective_rank(vectors_BD: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values: how many dimensions are in use."""
    if not torch.isfinite(vectors_BD).all():
        return math.nan
    values = torch.linalg.svdvals(vectors_BD.float())
    shares = values / values.sum()
    return float(torch.exp(-(shares * torch.log(shares.clamp_min(1e-12))).sum()))

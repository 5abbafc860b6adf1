"""The classifier of LF text: a BERT-family network that tells descriptions of music from the rest.

The paper filters long-form text with a fine-tuned BERT (section 3.2). This one is made by ``mulan text train``
(``classifier_training.py``) and lives in a folder: a transformers sequence classifier with its tokenizer, and
``classifier.json`` with the temperature, the threshold and what they were measured on.

Shape letters: N texts, L tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from mulan_core.errors import UserError
from mulan_core.text.filters import normalised
from mulan_core.towers.warm_start import load_config, load_tokenizer, open_weights, quiet, refuse_incomplete

REPORT = "classifier.json"
NUM_LENGTH_GROUPS = 4
"""Groups of like length that a batch is encoded in."""

LABELS = {0: "other", 1: "description"}


class TextClassifier:
    """Probability that a text describes music, calibrated, the same whatever else is in the batch."""

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int,
        temperature: float = 1.0,
        threshold: float = 0.5,
    ) -> None:
        self.network, self.tokenizer, self.max_tokens = network, tokenizer, max_tokens
        self.temperature = temperature
        """The network's logits are divided by this."""
        self.threshold = threshold
        """From this probability on a text is kept."""

    @classmethod
    def from_weights(cls, pretrained: str, *, max_tokens: int) -> TextClassifier:
        """A new head on pretrained weights, not yet trained; draw it under a seed of your own.

        Raises:
            UserError: if the weights do not open, or lack more than the head.
        """
        config = load_config(pretrained)
        config.num_labels, config.id2label = len(LABELS), LABELS
        config.label2id = {label: number for number, label in LABELS.items()}
        network, info = open_weights(AutoModelForSequenceClassification, pretrained, config=config)
        inside = f"{network.base_model_prefix}."
        refuse_incomplete(pretrained, info | {key: _within(info[key], inside) for key in _INCOMPLETE})
        return cls(network, load_tokenizer(pretrained), max_tokens=max_tokens)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> TextClassifier:
        """Open a trained classifier, in evaluation mode.

        Raises:
            UserError: if the folder holds none, or it is damaged.
        """
        report = read_report(folder)
        network, info = open_weights(AutoModelForSequenceClassification, str(folder))
        refuse_incomplete(str(folder), info)
        settings = {key: report[key] for key in ("max_tokens", "temperature", "threshold")}
        return cls(network.eval(), load_tokenizer(str(folder)), **settings)

    def save_pretrained(self, folder: str | Path, report: dict[str, Any]) -> None:
        """Write network, tokenizer and ``classifier.json``: the settings, then the report."""
        folder = Path(folder)
        with quiet():
            self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(str(folder))
        settings = {key: getattr(self, key) for key in ("max_tokens", "temperature", "threshold")}
        (folder / REPORT).write_text(json.dumps(settings | report, indent=1), encoding="utf-8")

    def predict(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        """Probabilities, float64 (N,), in the order given; texts are encoded in order of length."""
        return 1 / (1 + np.exp(-self.logits(texts, batch_size=batch_size) / self.temperature))

    def describes(self, texts: Sequence[str], *, threshold: float | None = None, batch_size: int = 64) -> list[bool]:
        """Whether each text is kept: its probability is at least the threshold, by default the classifier's own."""
        least = self.threshold if threshold is None else threshold
        return [bool(p >= least) for p in self.predict(texts, batch_size=batch_size)]

    def logits(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        """Log-odds before the temperature, float64 (N,)."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        logits_N = np.zeros(len(texts))
        was_training = self.network.training
        self.network.eval()
        with torch.inference_mode():
            for first in range(0, len(order), batch_size):
                batch = order[first : first + batch_size]
                logits_N[batch] = self.forward([texts[i] for i in batch]).double().cpu().numpy()
        self.network.train(was_training)
        return logits_N

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Log-odds of one batch, float32 (N,), with gradient where it is on.

        Lines of one batch differ in length by ten times (comments beside captions), so they are encoded in groups of
        like length, each padded to its own longest: half the work.
        """
        order_N = torch.tensor([len(text) for text in texts]).argsort(stable=True)
        logits_N = torch.cat([self._encode([texts[i] for i in group]) for group in order_N.chunk(NUM_LENGTH_GROUPS)])
        return logits_N[order_N.argsort().to(logits_N.device)]

    def _encode(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            [normalised(text) for text in texts],
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(self.network.device)
        logits_N2: Tensor = self.network(**tokens).logits
        return logits_N2[:, 1] - logits_N2[:, 0]


def read_report(folder: str | Path) -> dict[str, Any]:
    """What a classifier's folder says about itself.

    Raises:
        UserError: if it is no such folder.
    """
    path = Path(folder) / REPORT
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} holds no text classifier ({REPORT} is missing or damaged); make one with `mulan text train`"
        ) from error
    return report


_INCOMPLETE = ("missing_keys", "mismatched_keys")


def _within(keys: Any, prefix: str) -> list[Any]:
    return [key for key in keys if (key if isinstance(key, str) else key[0]).startswith(prefix)]

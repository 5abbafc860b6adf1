"""What all models under measurement have in common.

An encoder lacks what its model lacks: a text model has no audio side, a table of vectors knows the texts it lists. The
suite asks before it measures, and says in the report what could not be.

Shape letters: N tracks or texts, D embedding size.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mulan_core.errors import UserError
from mulan_core.towers.pretrained import load_error, locate

TABLES = (".npz", ".npy")
"""Endings of files of precomputed vectors."""


class Encoder(ABC):
    """One model under measurement."""

    kind: ClassVar[str]
    """What it is, in two or three words for the report."""
    has_audio: bool = False
    """Whether ``embed_tracks`` works."""
    has_text: bool = False
    """Whether ``embed_texts`` works."""
    embedding_dim: int
    """Length D of its vectors."""
    model: Any = None
    """The torch module; None for vectors that another program made."""

    def __init__(self, name: str, weights_hash: str) -> None:
        self.name, self.weights_hash = name, weights_hash

    @property
    def settings(self) -> dict[str, Any]:
        """What else decides the vectors: pooling, window, sample rate."""
        return {}

    @property
    def num_parameters(self) -> int | None:
        """How many numbers the model has learned; None where it is not here."""
        return None if self.model is None else sum(parameter.numel() for parameter in self.model.parameters())

    def describe(self) -> dict[str, Any]:
        """Fields that name the model in a report."""
        return {
            "name": self.name,
            "kind": self.kind,
            "weights_hash": self.weights_hash,
            "embedding_dim": self.embedding_dim,
            "has_audio": self.has_audio,
            "has_text": self.has_text,
            **self.settings,
        }

    def embed_tracks(self, track_ids: Sequence[str], waves: Iterable[np.ndarray], *, sampling_rate: int) -> np.ndarray:
        """One vector a track, float32 (N, D), unit length except a classifier's (its class scores).

        Args:
            track_ids: the tracks.
            waves: their audio in the same order, mono float32 in [-1, 1]; a table of vectors does not read it.
            sampling_rate: of the waves, Hz.

        Raises:
            UserError: if the model has no audio side, or a table lacks a track.
        """
        raise UserError(f"{self.name} ({self.kind}) has no audio side: it cannot embed tracks")

    def embed_with_windows(
        self, track_ids: Sequence[str], waves: Iterable[np.ndarray], *, sampling_rate: int
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """What ``embed_tracks`` gives, and of each track the vectors of its windows, float32 (w, D)."""
        raise UserError(f"{self.name} ({self.kind}) hears no windows: it cannot embed them")

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """One unit vector a text, float32 (N, D).

        Raises:
            UserError: if the model has no text side, or does not know a text.
        """
        raise UserError(f"{self.name} ({self.kind}) has no text side: it cannot embed texts")

    def unknown_texts(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that have no vector here: all without a text side, else what a table does not list."""
        return [] if self.has_text else list(texts)

    def class_prompts(self, label: str, texts: tuple[str, ...]) -> tuple[str, ...]:
        """What is embedded for a class: the texts that templates made of its label; in a classifier its name."""
        return texts


def folder_of(model: str | Path) -> Path:
    """The folder behind a model's name; for a name on the hub that of its cached files.

    Raises:
        UserError: if there is none.
    """
    name = str(model)
    folder = Path(locate(name))
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{name} is a file; give a model's folder or name, or vectors as {' or '.join(TABLES)}")
    from transformers.utils import cached_file

    for file in ("config.json", "modules.json"):
        try:
            return Path(str(cached_file(name, file))).parent
        except (OSError, ValueError) as error:
            reason = error
    raise load_error(name, reason) from reason

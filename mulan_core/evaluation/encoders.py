"""What is measured: anything that turns tracks, texts or both into vectors, opened by one function.

    encoder = open_encoder("runs/mulan")                # a MuLan folder
    encoder = open_encoder("laion/clap-htsat-unfused")  # an audio-text model of transformers
    encoder = open_encoder("bert-base-uncased", pooling="cls")
    encoder = open_encoder("vectors.npz")               # vectors that another program made

An encoder lacks what its model lacks: a text model has no audio side, a table of vectors knows the texts it lists. The
suite asks before it measures, and says in the report what could not be.

Shape letters: N tracks or texts, D embedding size.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from transformers.utils import cached_file

from mulan_core.errors import UserError
from mulan_core.towers.pretrained import locate
from mulan_core.towers.warm_start import load_config, load_error

TABLES = (".npz", ".npy")
"""Endings of files of precomputed vectors."""

_HASHED = ("config.json", "processor_config.json", "model.safetensors")
"""Files that identify a MuLan folder."""
_HASHED_TOO = ("*.json", "*.safetensors", "*.bin", "*.txt", "*.model", "*/*.json", "*/*.safetensors", "*/*.bin")
"""Files that identify any other model: weights, configurations, vocabularies, the modules of sentence-transformers."""


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


def open_encoder(
    model: str | Path, *, pooling: str | None = None, batch_size: int = 32, device: str | None = None
) -> Encoder:
    """Open what is to be measured.

    Args:
        model: a MuLan folder; the folder of a classifier (``mulan train --task tagging``); the folder or hub name of a
            transformers model (audio-text, audio or text) or of a sentence-transformers one; ``demo-minilm``; or a
            file of vectors, ``.npz`` or ``.npy`` (``precomputed.PrecomputedEncoder``).
        pooling: for audio and text models, how hidden states become one vector: ``cls``, ``mean``, ``max``, or
            ``pooler`` (the model's own). None takes what the model says itself, else the mean.
        batch_size: windows or texts encoded at once.
        device: torch's name of it; None takes a GPU where there is one.

    Raises:
        UserError: if there is no such model, something is missing in it, or ``pooling`` does not apply.
    """
    # Each kind imports what it needs.
    from mulan_core.evaluation import model_encoders, precomputed, text_encoder

    name = str(model)
    kind = check_model(name, pooling=pooling)
    digest = weights_hash(name, pooling=pooling)
    if kind == "vectors":
        return precomputed.PrecomputedEncoder(name, digest)
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "text":
        return text_encoder.TextEncoder(name, digest, pooling=pooling, batch_size=batch_size, device=device)
    if kind == "audio":
        return model_encoders.AudioEncoder(name, digest, pooling=pooling, batch_size=batch_size, device=device)
    opened = {
        "mulan": model_encoders.MuLanEncoder,
        "classifier": model_encoders.ClassifierEncoder,
        "audio-text": model_encoders.AudioTextEncoder,
    }[kind]
    return opened(name, digest, batch_size=batch_size, device=device)


def check_model(model: str | Path, *, pooling: str | None = None) -> str:
    """The kind of a model (``kind_of``), without opening it.

    Raises:
        UserError: if there is no such model, or ``pooling`` does not apply to it.
    """
    kind = kind_of(model)
    if pooling is not None and kind not in ("text", "audio"):
        raise UserError(f"pooling {pooling!r} applies to a text or audio model of transformers; {model} is {kind}")
    return kind


def kind_of(model: str | Path) -> str:
    """``vectors``, ``mulan``, ``classifier``, ``audio-text``, ``audio`` or ``text``.

    Raises:
        UserError: if it is none of them, or there is nothing of that name.
    """
    from transformers import MODEL_MAPPING

    name = str(model)
    if Path(name).suffix in TABLES:
        return "vectors"
    folder = folder_of(name)
    if (folder / "classifier.safetensors").is_file():
        return "classifier"
    if (folder / "modules.json").is_file():
        return "text"
    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError) as error:
        raise load_error(name, error) from error
    if model_type == "mulan":
        return "mulan"
    config = load_config(name)
    architecture = MODEL_MAPPING.get(type(config), None)
    if hasattr(architecture, "get_audio_features") and hasattr(architecture, "get_text_features"):
        return "audio-text"
    if any((folder / file).is_file() for file in ("preprocessor_config.json", "processor_config.json")):
        return "audio"
    return "text"


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
    for file in ("config.json", "modules.json"):
        try:
            return Path(str(cached_file(name, file))).parent
        except (OSError, ValueError) as error:
            reason = error
    raise load_error(name, reason) from reason


def weights_hash(model: str | Path, *, pooling: str | None = None) -> str:
    """Identity of what makes the vectors: sha256 over a model's files and the chosen pooling, 12 characters.

    Raises:
        UserError: if there is no such model.
    """
    if Path(str(model)).suffix in TABLES:
        files = _table_files(Path(model))
    else:
        folder = folder_of(model)
        files = [folder / name for name in _HASHED]
        if not all(file.is_file() for file in files) or pooling is not None:
            files = sorted({file for pattern in _HASHED_TOO for file in folder.glob(pattern)})
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    digest.update((pooling or "").encode())
    return digest.hexdigest()[:12]


def _table_files(path: Path) -> list[Path]:
    if not path.is_file():
        raise UserError(f"there is no file of vectors {path}")
    return [path, *sorted(path.parent.glob(f"{path.stem}.*.txt"))]

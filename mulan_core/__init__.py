"""MuLan: a joint embedding of music audio and natural language (Huang et al., ISMIR 2022).

    from mulan_core import MuLanModel, MuLanProcessor

The two names load torch and transformers on first use, so that tools that need neither stay quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mulan_core.model import MuLanModel
    from mulan_core.processor import MuLanProcessor

__all__ = ["MuLanModel", "MuLanProcessor"]


def __getattr__(name: str) -> Any:
    if name == "MuLanModel":
        from mulan_core.model import MuLanModel

        return MuLanModel
    if name == "MuLanProcessor":
        from mulan_core.processor import MuLanProcessor

        return MuLanProcessor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

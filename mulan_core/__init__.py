"""MuLan: a joint embedding of music audio and natural language (Huang et al., ISMIR 2022).

    from mulan_core import MuLanModel, MuLanProcessor

The two names load torch and transformers on first use, so that tools that need neither stay quick. With the
first of them transformers' AutoConfig, AutoModel and AutoProcessor know MuLan too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mulan_core.model import MuLanModel
    from mulan_core.processor import MuLanProcessor

__all__ = ["MuLanModel", "MuLanProcessor"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mulan_core import model, processor  # both: each registers its Auto class

    return {"MuLanModel": model.MuLanModel, "MuLanProcessor": processor.MuLanProcessor}[name]

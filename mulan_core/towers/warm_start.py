"""Open pretrained weights: by transformers name, by folder, or from the package behind ``demo-minilm``.

All towers start through these doors, so a missing package, name or weight reads the same everywhere.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from mulan_core.errors import UserError
from mulan_core.towers.pretrained import load_error, locate

LOAD_ERRORS = (OSError, ValueError, SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError)
"""What a missing folder, a wrong name and a cut or overwritten file of weights raise."""


def load_config(pretrained: str) -> PreTrainedConfig:
    """The transformers configuration of pretrained weights.

    Raises:
        UserError: if there is no such name or folder, or it cannot be reached.
    """
    try:
        with quiet():
            config = AutoConfig.from_pretrained(locate(pretrained))
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise load_error(pretrained, error) from error
    config.name_or_path = pretrained  # not the folder of this machine: it would be saved with the model
    return config


def load_tokenizer(pretrained: str, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of pretrained text weights.

    Raises:
        UserError: if there is no such name or folder, or it cannot be reached.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(locate(pretrained), **options)
    except (OSError, ValueError) as error:
        raise load_error(pretrained, error) from error
    # Without its files transformers makes one up that knows the special tokens alone.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise UserError(f"{pretrained!r} has no vocabulary: its tokenizer's files are missing (tokenizer.json)")
    return tokenizer


def load_weights(kind: Any, pretrained: str, **options: Any) -> PreTrainedModel:
    """``kind.from_pretrained`` in float32, refusing weights that do not fill the whole architecture.

    Args:
        kind: a transformers model class or auto class.
        pretrained: name or folder; see ``locate``. A task's head in it is left behind.
        options: passed on.

    Raises:
        UserError: if the weights cannot be read or are of another kind, or naming the keys that are missing or
            of another shape.
    """
    config, wanted = load_config(pretrained), getattr(kind, "config_class", None)
    if wanted is not None and not isinstance(config, wanted):
        raise UserError(
            f"{pretrained!r} is a {config.model_type!r} model where {wanted.model_type!r} is wanted: "
            "name other weights, or set model.audio.kind to the kind of these"
        )
    model, info = open_weights(kind, pretrained, **options)
    refuse_incomplete(pretrained, info)
    return model


def open_weights(kind: Any, pretrained: str, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """``kind.from_pretrained`` in float32, with transformers' loading info for ``refuse_incomplete`` to judge.

    Raises:
        UserError: if the weights cannot be read.
    """
    try:
        with quiet():
            return kind.from_pretrained(  # type: ignore[no-any-return]
                locate(pretrained),
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
    except UserError:
        raise
    except LOAD_ERRORS as error:
        raise load_error(pretrained, error) from error


def refuse_other_architecture(
    pretrained: str, source_config: PreTrainedConfig, wanted: PreTrainedConfig, fields: Mapping[str, str | None]
) -> None:
    """Raise ``UserError`` if pretrained weights were made for another encoder than the tower's.

    Args:
        pretrained: the name or folder, for the sentence.
        source_config: that which came with the weights.
        wanted: the tower's.
        fields: the settings that must agree, each with its field of ``model.audio``; None where it has none.
    """

    def setting(config: PreTrainedConfig, key: str) -> Any:
        value = getattr(config, key)
        return list(value) if isinstance(value, tuple) else value  # a tuple in Python is a list in JSON

    wrong = [key for key in fields if setting(source_config, key) != setting(wanted, key)]
    if wrong:
        differences = ", ".join(f"{key} {setting(source_config, key)} (not {setting(wanted, key)})" for key in wrong)
        settable = [f"model.audio.{fields[key]}" for key in wrong if fields[key]]
        advice = f"set {', '.join(settable)} to the same" if len(settable) == len(wrong) else "name other weights"
        raise UserError(f"audio.pretrained {pretrained!r} has {differences}: {advice}")


def refuse_incomplete(source: str, info: dict[str, Any]) -> None:
    """Raise ``UserError`` if transformers' loading info tells of weights missing or of another shape."""
    mismatched = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    for complaint, keys in (("lack", sorted(info["missing_keys"])), ("have another shape at", sorted(mismatched))):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise UserError(
                f"the weights in {source!r} {complaint} {', '.join(keys[:3])}{more}: "
                "they are of another architecture than the configuration asks for"
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' bars and its report of a load, which ``refuse_incomplete`` judges instead."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

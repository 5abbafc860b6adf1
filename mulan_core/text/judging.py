"""Judge the texts of many tracks at once, so that a classifier sees each distinct text once and in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mulan_core.config import TextConfig
from mulan_core.text.filters import filter_texts, form_reason, names_of, normalised

if TYPE_CHECKING:  # rules alone need neither torch nor transformers
    from mulan_core.text.classifier import TextClassifier


def judge_tracks(
    tracks: Sequence[Mapping[str, Any]], config: TextConfig, classifier: TextClassifier | None = None
) -> list[list[dict[str, Any]]]:
    """Judge the texts of some tracks; what becomes of a track does not depend on the others.

    Args:
        tracks: rows of a manifest, with ``texts`` and maybe the ``NAME_COLUMNS``.
        config: the limits.
        classifier: judges LF texts that pass the rules of form; null judges them by rule.

    Returns:
        For each track what ``filter_texts`` returns.
    """
    describes = None
    if classifier:
        texts = [text for track in tracks for text in track["texts"] if text["source"] == "lf"]
        asked = {normalised(text["text"] or "") for text in texts if not form_reason("lf", text["text"] or "", config)}
        verdicts = classifier.describes(sorted(asked), threshold=config.lf_threshold, batch_size=config.batch_size)
        describes = dict(zip(sorted(asked), verdicts, strict=True)).__getitem__
    return [filter_texts(track["texts"], config, names=names_of(track), describes=describes) for track in tracks]

"""Evaluation sets: what models are measured on, as data, all in one registry. See docs/evaluation.md."""

from __future__ import annotations

from mulan_core.errors import UserError
from mulan_core.evaluation.sets import audioset, captions, magnatagatune, mtg_jamendo, playlists, texts
from mulan_core.evaluation.sets.definition import EvaluationSet

SETS: dict[str, EvaluationSet] = {
    definition.name: definition
    for definition in (
        playlists.OWN,
        playlists.PLAYLISTS,
        *audioset.SETS,
        *magnatagatune.SETS,
        *mtg_jamendo.SETS,
        *captions.SETS,
        *texts.SETS,
    )
}
"""Name -> set."""


def find_set(name: str) -> EvaluationSet:
    """The set of this name.

    Raises:
        UserError: if there is none.
    """
    if name not in SETS:
        raise UserError(
            f"there is no evaluation set {name!r}; there are: {', '.join(SETS)}; one of your own is named "
            "NAME=PATH, with a prepared folder or a table of titles and descriptions"
        )
    return SETS[name]

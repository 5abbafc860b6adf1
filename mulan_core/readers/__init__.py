"""Readers of public data sets: one file each, all in one registry."""

from __future__ import annotations

from mulan_core.errors import UserError
from mulan_core.readers import (
    audioset,
    fma,
    lp_musiccaps,
    magnatagatune,
    mtg_jamendo,
    music4all,
    musiccaps,
    song_describer,
)
from mulan_core.readers.dataset import Dataset

DATASETS: dict[str, Dataset] = {
    module.DATASET.name: module.DATASET
    for module in (
        audioset,
        musiccaps,
        lp_musiccaps,
        magnatagatune,
        mtg_jamendo,
        song_describer,
        fma,
        music4all,
    )
}
"""Name -> data set."""


def find_dataset(name: str) -> Dataset:
    """The data set of this name; - and _ are one.

    Raises:
        UserError: if there is none.
    """
    dataset = DATASETS.get(name.replace("-", "_").lower())
    if dataset is None:
        raise UserError(f"there is no data set {name!r}; there are: {', '.join(DATASETS)}")
    return dataset

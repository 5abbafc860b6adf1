"""Which clip, which text and which crop at which step: a pure function of (seed, step).

A run killed at step k resumes on the very next batch from one integer, and any number of workers
sees the same global batches: worker r of W takes the r-th of W equal slices of each.

Text draws follow the paper (section 3): a source by its odds among those the track has, then one
text of that source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mulan_core.errors import UserError


@dataclass(frozen=True)
class Draw:
    """One row of a batch: a clip and the text beside it."""

    row: int
    source: str
    text: str
    rng: np.random.Generator
    """Random numbers of this draw, for its crop and its SpecAugment masks."""


class Sampler:
    """Draws batches from tracks that each have texts by source.

    Args:
        track_ids: ids of the tracks, in the order of the table.
        texts: for each track, source -> its texts. Tracks without a text of a weighted source are left out.
        source_weights: odds of each source; 0 leaves a source out.
        seed: everything drawn follows from it.

    Raises:
        UserError: if no track has a text of a source with weight.
    """

    def __init__(
        self,
        track_ids: Sequence[str],
        texts: Sequence[Mapping[str, Sequence[str]]],
        *,
        source_weights: Mapping[str, float],
        seed: int,
    ) -> None:
        self._weights = {source: weight for source, weight in source_weights.items() if weight > 0}
        self._texts = [{s: list(by[s]) for s in sorted(self._weights) if by.get(s)} for by in texts]
        self._track_ids = list(track_ids)
        self._seed = seed
        self.rows = np.array([row for row, by in enumerate(self._texts) if by], dtype=np.int64)
        """Rows of the table that can be drawn."""
        if not len(self.rows):
            raise UserError(f"no training track has a text of the sources {', '.join(self._weights)}")

    def batch(self, step: int, batch_size: int) -> list[Draw]:
        """The global batch of a step.

        Batches walk through one permutation of the tracks after another, so every track is drawn once
        before any is drawn again; a batch larger than the set of tracks wraps round.
        """
        first = step * batch_size
        return [self._draw(self._row_at(first + i), step) for i in range(batch_size)]

    def _row_at(self, position: int) -> int:
        epoch, place = divmod(position, len(self.rows))
        order = self._permutation(epoch)
        return int(self.rows[order[place]])

    def _permutation(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self._seed, epoch]).permutation(len(self.rows))
        return self._order

    def _draw(self, row: int, step: int) -> Draw:
        rng = np.random.default_rng([self._seed, step, number(self._track_ids[row])])
        by_source = self._texts[row]
        sources = list(by_source)
        odds = np.array([self._weights[s] for s in sources])
        source = sources[rng.choice(len(sources), p=odds / odds.sum())]
        text = by_source[source][rng.integers(len(by_source[source]))]
        return Draw(row=row, source=source, text=text, rng=rng)


def texts_by_source(texts: Sequence[Mapping[str, str | None]], *, use_filtered: bool) -> dict[str, list[str]]:
    """A track's prepared texts grouped by source; with ``use_filtered`` only those the filters kept."""
    grouped: dict[str, list[str]] = {}
    for item in texts:
        if item["drop"] is None or (not use_filtered and item["drop"] != "empty"):
            grouped.setdefault(str(item["source"]), []).append(str(item["text"]))
    return grouped


def number(text: str) -> int:
    """A number of 63 bits that stands for a text, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

"""Which clip, which text and which crop at which step: a pure function of (seed, step).

A run killed at step k resumes on the very next batch from one integer, and any number of workers sees the
same global batches: worker r of W takes the r-th of W equal slices of each.

Shape letters: N tracks, B pairs of a global batch, S text sources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mulan_core.errors import UserError


@dataclass(frozen=True)
class Draw:
    """One row of a batch: a clip and the text beside it."""

    row: int
    source: str
    text: str
    rng: np.random.Generator
    """Random numbers of this draw, for its crop and its SpecAugment masks."""


class Lanes:
    """An endless order of ``count`` things in which neighbours in storage stay near each other in time.

    The things are cut into lanes, segments of equal length, and each batch takes an equal share from every lane;
    so a batch mixes the whole catalogue while a worker reads its own segments of it. A lane is walked in windows:
    each epoch draws a new order of the lane's windows and a new order inside each. Every thing of a lane comes once
    before any comes again.

    Args:
        count: how many things.
        num_lanes: lanes; never more than there are things or slots in a batch.
        window: things that are shuffled among each other.
        batch_size: of the global batch.
        seed: everything drawn follows from it.
    """

    def __init__(self, count: int, *, num_lanes: int, window: int, batch_size: int, seed: int) -> None:
        lanes = min(num_lanes, count, batch_size)
        self._bounds = [lane * count // lanes for lane in range(lanes + 1)]
        self._slots = [-(-lane * batch_size // lanes) for lane in range(lanes + 1)]
        self._window, self._seed = window, seed
        self._shuffled: dict[int, tuple[int, int, NDArray[np.int64]]] = {}
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def lane_of(self, slot: int) -> int:
        """The lane that fills a slot of the batch."""
        return int(np.searchsorted(self._slots, slot, side="right")) - 1

    def members(self, lanes: Iterable[int]) -> list[tuple[int, int]]:
        """The first thing and the one after the last of some lanes."""
        return [(self._bounds[lane], self._bounds[lane + 1]) for lane in sorted(lanes)]

    def at(self, step: int, slot: int) -> int:
        """What stands at a slot of a step's global batch."""
        lane = self.lane_of(slot)
        first, length = self._bounds[lane], self._bounds[lane + 1] - self._bounds[lane]
        share = self._slots[lane + 1] - self._slots[lane]
        epoch, position = divmod(step * share + slot - self._slots[lane], length)
        start, inside = self._locate(lane, epoch, position, length)
        return first + start + int(self._shuffle(lane, epoch, start, length)[inside])

    def _locate(self, lane: int, epoch: int, position: int, length: int) -> tuple[int, int]:
        """Start of the window that holds a position of an epoch, and the place inside it."""
        full, rest = divmod(length, self._window)
        order = self._window_order(lane, epoch, full + bool(rest))
        short = int(np.flatnonzero(order == full)[0]) if rest else len(order)  # when the short window's turn is
        before = short * self._window
        if position < before:
            turn, inside = divmod(position, self._window)
        elif position < before + rest:
            turn, inside = short, position - before
        else:
            turn, inside = divmod(position - rest, self._window)
            turn += 1
        return int(order[turn]) * self._window, inside

    def _window_order(self, lane: int, epoch: int, count: int) -> NDArray[np.int64]:
        entry = self._orders.get(lane)
        if entry is None or entry[0] != epoch:
            entry = epoch, np.random.default_rng([self._seed, epoch, lane]).permutation(count)
            self._orders[lane] = entry
        return entry[1]

    def _shuffle(self, lane: int, epoch: int, start: int, length: int) -> NDArray[np.int64]:
        entry = self._shuffled.get(lane)
        if entry is None or entry[:2] != (epoch, start):
            size = min(self._window, length - start)
            entry = epoch, start, np.random.default_rng([self._seed, epoch, lane, start]).permutation(size)
            self._shuffled[lane] = entry
        return entry[2]


class Sampler:
    """Draws batches from tracks that each have texts by source.

    A draw takes a source by its odds among those the track has, then one text of that source (paper, section 3.4);
    a source that a track lacks leaves its odds to the others. By quota the odds hold for each global batch, as
    far as its tracks allow: tracks with few sources choose first, each the source that is furthest behind, and
    those whose every source is full draw by odds.

    Args:
        has: source -> whether each track has a text of it, (N,). Tracks without a text of a weighted source are
            left out.
        track_of: row -> its track's id and its texts by source.
        source_weights: odds of each source; 0 leaves a source out.
        batch_size: B.
        seed: everything drawn follows from it.
        num_lanes, window: see ``Lanes``.
        by_quota: see above.

    Raises:
        UserError: if no track has a text of a source with weight.
    """

    def __init__(
        self,
        has: Mapping[str, NDArray[np.bool_]],
        track_of: Callable[[int], tuple[str, Mapping[str, Sequence[str]]]],
        *,
        source_weights: Mapping[str, float],
        batch_size: int,
        seed: int,
        num_lanes: int = 1,
        window: int = 2**62,
        by_quota: bool = False,
    ) -> None:
        weighted = sorted(source for source, weight in source_weights.items() if weight > 0)
        self._sources = [source for source in weighted if source in has and has[source].any()]
        if not self._sources:
            raise UserError(f"no training track has a text of the sources {', '.join(weighted)}")
        self._weights_S = np.array([source_weights[source] for source in self._sources])
        self._has_NS = np.stack([has[source] for source in self._sources], axis=1)
        self.rows = np.flatnonzero(self._has_NS.any(axis=1))
        """Rows of the table that can be drawn."""
        self.lanes = Lanes(len(self.rows), num_lanes=num_lanes, window=window, batch_size=batch_size, seed=seed)
        self._track_of, self._batch_size, self._seed, self._by_quota = track_of, batch_size, seed, by_quota

    def batch(self, step: int, slots: range | None = None) -> list[Draw]:
        """The global batch of a step, or some slots of it."""
        slots = range(self._batch_size) if slots is None else slots
        quota = self._fill_quota(step) if self._by_quota else None
        return [self._draw(self._row(step, p), step, None if quota is None else int(quota[p])) for p in slots]

    def _row(self, step: int, slot: int) -> int:
        return int(self.rows[self.lanes.at(step, slot)])

    def _draw(self, row: int, step: int, source: int | None) -> Draw:
        track_id, by_source = self._track_of(row)
        rng = np.random.default_rng([self._seed, step, number(track_id)])
        if source is None:
            source = self._by_odds(row, rng)
        texts = by_source[self._sources[source]]
        return Draw(row=row, source=self._sources[source], text=texts[int(rng.integers(len(texts)))], rng=rng)

    def _by_odds(self, row: int, rng: np.random.Generator) -> int:
        odds_S = self._weights_S * self._has_NS[row]
        return int(np.searchsorted(np.cumsum(odds_S), rng.random() * odds_S.sum(), side="right"))

    def _fill_quota(self, step: int) -> NDArray[np.int64]:
        """The source of every slot of the global batch, (B,)."""
        rng = np.random.default_rng([self._seed, step])
        rows_B = np.array([self._row(step, slot) for slot in range(self._batch_size)])
        has_BS = self._has_NS[rows_B]
        left_S = self._weights_S / self._weights_S.sum() * self._batch_size
        sources_B = np.empty(self._batch_size, np.int64)
        for slot in np.lexsort([rng.random(self._batch_size), has_BS.sum(axis=1)]):
            wanted_S = np.where(has_BS[slot], left_S / self._weights_S, -np.inf)
            source = int(wanted_S.argmax())
            if left_S[source] < 0.5:  # less than half a text is missing: the batch has its share
                source = self._by_odds(rows_B[slot], rng)
            sources_B[slot] = source
            left_S[source] -= 1
        return sources_B


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

"""Overlap: recordings that training and evaluation both have, which makes the evaluation's numbers too good.

Three signs, strongest first: the same audio file (sha256, which prepare writes), the same track id, and the same
recording of two data sets that share ids: MusicCaps, LP-MusicCaps and AudioSet by video; Song Describer and
MTG-Jamendo by track; MagnaTagATune and LP-MusicCaps by clip.

Two segments of one file or recording are the same only where they share a part: the songs of an album in one file are
as many recordings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mulan_core.counts import counted
from mulan_core.errors import UserError
from mulan_core.readers import DATASETS
from mulan_core.readers.dataset import recording_id

COLUMNS = ("track_id", "dataset", "split", "sha256", "start_s", "duration_s")
SHOWN = 5
"""Pairs that an error names."""
MIN_SHARED_S = 0.1
"""Segments that share less are neighbours, whose ends were rounded."""


@dataclass(frozen=True, order=True)
class Overlap:
    """A training track and an evaluation track that are one recording."""

    kind: str
    """``audio``, ``track`` or ``recording``: by what it was found."""
    train_id: str
    eval_id: str
    train_dataset: str
    eval_dataset: str

    def __str__(self) -> str:
        return f"{self.train_id} ({self.train_dataset}) = {self.eval_id} ({self.eval_dataset}), same {self.kind}"


def find_overlaps(train: pa.Table, evaluation: pa.Table) -> list[Overlap]:
    """Recordings that are in both tables; each pair once, under its strongest sign.

    Args:
        train, evaluation: manifests; ``track_id`` must be there, the others of ``COLUMNS`` count where they are.
    """
    train_rows, eval_rows = _rows(train), _rows(evaluation)
    overlaps: dict[tuple[str, str], Overlap] = {}
    for kind, key in SIGNS.items():
        by_key: dict[str | None, list[Mapping[str, Any]]] = {}
        for row in train_rows:
            by_key.setdefault(key(row), []).append(row)
        by_key.pop(None, None)
        for row in eval_rows:
            for other in by_key.get(key(row), ()):
                if kind != "track" and _shared_s(row, other) < MIN_SHARED_S:
                    continue
                pair = (other["track_id"], row["track_id"])
                overlaps.setdefault(pair, Overlap(kind, *pair, other["dataset"], row["dataset"]))
    return list(overlaps.values())


def check_overlaps(overlaps: Sequence[Overlap], *, remedy: str, allow: bool = False) -> None:
    """Refuse overlaps.

    Args:
        overlaps: what ``find_overlaps`` found.
        remedy: what the user can do, the end of the sentence.
        allow: pass all the same.

    Raises:
        UserError: naming their number by sign and the first few.
    """
    if overlaps and not allow:
        by_kind = ", ".join(f"{number} by {kind}" for kind, number in Counter(o.kind for o in overlaps).items())
        first = "; ".join(str(overlap) for overlap in overlaps[:SHOWN])
        more = f"; and {len(overlaps) - SHOWN} more" if len(overlaps) > SHOWN else ""
        raise UserError(
            f"{counted(len(overlaps), 'recording is', 'recordings are')} in training and evaluation both "
            f"({by_kind}): {first}{more}; {remedy}"
        )


def check_splits(manifest: str | Path, *, allow: bool = False) -> None:
    """Refuse a prepared manifest that has one recording in ``train`` and in ``valid`` or ``test``.

    Raises:
        UserError: with the list; see ``check_overlaps``.
    """
    table = pq.read_table(manifest, columns=[name for name in COLUMNS if name in pq.read_schema(manifest).names])
    is_train = pc.equal(table["split"], "train")
    overlaps = find_overlaps(table.filter(is_train), table.filter(pc.invert(is_train)))
    remedy = "give each recording one split, or allow it with --allow-overlap (prepare.allow_overlap: true)"
    check_overlaps(overlaps, remedy=remedy, allow=allow)


def recording_of(row: Mapping[str, Any]) -> str:
    """The recording that a track is, as every data set that shares it would call it.

    >>> recording_of({"track_id": "track_0000948", "dataset": "mtg_jamendo"})
    'jamendo:948'
    """
    dataset = DATASETS.get(row["dataset"])
    track_id = str(row["track_id"])
    return recording_id(dataset.ids, track_id) if dataset and dataset.ids else track_id


def _shared_s(row: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """How much of the file two segments share; of whole files without end."""
    starts = [each["start_s"] or 0.0 for each in (row, other)]
    ends = [start + (each["duration_s"] or math.inf) for start, each in zip(starts, (row, other), strict=True)]
    return min(ends) - max(starts)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    names = [name for name in COLUMNS if name in table.column_names]
    nothing = {"dataset": "", "sha256": None, "start_s": None, "duration_s": None}
    return [nothing | row for row in table.select(names).to_pylist()]


SIGNS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "audio": lambda row: row["sha256"],
    "track": lambda row: row["track_id"],
    "recording": recording_of,
}

"""An evaluation set out of a prepared folder: the definition says which tracks, labels and texts count."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mulan_core.data import shards
from mulan_core.data.playlists import check_known
from mulan_core.data.rows import SPLITS
from mulan_core.errors import UserError
from mulan_core.evaluation.sets.content import Content, Query, playlist_content, text_queries
from mulan_core.evaluation.sets.definition import EvaluationSet, Pair
from mulan_core.evaluation.tagging import split_label

SHOWN = 3
"""Names that a sentence lists."""


def read_content(definition: EvaluationSet, path: Path, *, split: str = "test") -> Content:
    """Read a set: a prepared folder, or the file of a set of texts alone.

    Args:
        definition: the set.
        path: the folder or file.
        split: ``valid`` puts the validation split in the place of ``test`` and leaves the others out: a search for
            hyper-parameters must not see the test split.

    Raises:
        UserError: if the path is not what the set needs, no track of the split is left, none of its classes occurs,
            or a playlist names a track that nobody knows.
    """
    notes: list[str] = []
    if definition.read_pairs is not None:
        pairs = definition.read_pairs(path, notes)
        if len(pairs) < 2:
            raise UserError(f"{path} has {len(pairs)} pairs of title and description; triplets need two or more")
        return Content(pairs={definition.pair_set: pairs}, all_triplets=True, notes=notes)
    all_rows = _rows_of(definition, path)
    rows = _as_test(all_rows, split)
    test = {row["track_id"]: row for row in rows if row["split"] == "test"}
    if not test:
        raise UserError(f"{path} has no {split} track that belongs to {definition.name} ({definition.split})")
    labels = {row["track_id"]: _labels(row, definition) for row in rows}
    queries: dict[str, list[Query]] = {}
    playlist_pairs: dict[str, list[Pair]] = {}
    counts: dict[str, int] = {}
    kinds = [kind for kind in definition.queries if kind in ("title", "description")]
    if kinds:
        playlists = _as_test(_playlists(path, all_rows), split)
        playlist_queries, title_pairs, left_out = playlist_content(playlists, test, kinds)
        queries.update(playlist_queries)
        if "triplets" in definition.suites:
            playlist_pairs["playlist"] = title_pairs
        counts["playlists"] = len({query.id for kind_queries in playlist_queries.values() for query in kind_queries})
        notes += left_out
    if "text" in definition.queries:
        own = {track_id: _own_text(row) for track_id, row in test.items()}
        sources = {text: source for track_texts in own.values() for text, source in track_texts}
        queries["text"] = text_queries(
            {track_id: [text for text, _ in track_texts] for track_id, track_texts in own.items()}, sources
        )
    if "caption" in definition.queries:
        queries["caption"] = text_queries({track_id: _captions(row) for track_id, row in test.items()})
    if definition.classes is not None:
        _check_classes(definition, path, [labels[track_id] for track_id in test])
    all_labels = {label for track_labels in labels.values() for label in track_labels}
    return Content(
        tracks={split: sorted(row["track_id"] for row in rows if row["split"] == split) for split in SPLITS},
        labels=labels,
        classes=definition.classes,
        class_texts={label: definition.spell(label) for label in all_labels} if definition.spell else {},
        queries=queries,
        pairs=playlist_pairs,
        datasets={track_id: str(row["dataset"]) for track_id, row in test.items() if row.get("dataset")},
        held_out={row["track_id"] for row in rows if row.get("held_out")},
        counts=counts,
        notes=notes,
    )


def hash_set(path: Path) -> str:
    """Identity of a set's files: sha256 over a prepared folder's tables, which name every clip's audio, or the file."""
    files = [path / name for name in (shards.MANIFEST, shards.PLAYLISTS)] if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _rows_of(definition: EvaluationSet, path: Path) -> list[dict[str, Any]]:
    manifest = path / shards.MANIFEST
    if not manifest.is_file():
        raise UserError(f"{path} is no prepared folder (it has no {shards.MANIFEST}); {definition.name} needs one")
    rows = pq.read_table(manifest).to_pylist()
    return [row for row in rows if definition.keep is None or definition.keep(row)]


def _as_test(rows: list[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    return rows if split == "test" else [row | {"split": "test"} for row in rows if row["split"] == split]


def _labels(row: Mapping[str, Any], definition: EvaluationSet) -> list[str]:
    labels = row["labels"] or []
    if definition.facet is None:
        return list(labels)
    return [label for label in labels if split_label(label)[0] == definition.facet]


def _check_classes(definition: EvaluationSet, path: Path, labels: Sequence[Sequence[str]]) -> None:
    all_labels = dict.fromkeys(label for track_labels in labels for label in track_labels)
    if not set(definition.classes or ()).intersection(all_labels):
        such = f"such as {', '.join(list(all_labels)[:SHOWN])}" if all_labels else "none at all"
        raise UserError(
            f"not one of the {len(definition.classes or ())} classes of {definition.name} occurs among the "
            f"{len(labels):,} test tracks of {path}, whose labels are {such}; {definition.needs}"
        )


def _playlists(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    table = path / shards.PLAYLISTS
    if not table.exists():
        return []
    playlists: list[dict[str, Any]] = pq.read_table(table).to_pylist()
    chunks = [[row["track_id"] for row in rows]]
    if (path / shards.QUARANTINE).exists():  # known, though unusable
        chunks.append(pq.read_table(path / shards.QUARANTINE, columns=["track_id"])["track_id"].to_pylist())
    check_known(playlists, chunks)
    return playlists


def _own_text(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A track's longest kept text of its own, with its source: it says most. Playlist titles are not its own."""
    own = [(text["text"].strip(), text["source"]) for text in row["texts"] if text["drop"] is None]
    own = [(text, source) for text, source in own if source != "pl"]
    return [max(own, key=lambda pair: len(pair[0]))] if own else []


def _captions(row: Mapping[str, Any]) -> list[str]:
    """All captions, whatever the filters for training say: the set is what its makers published."""
    return [text["text"] for text in row["texts"] if text["source"] == "lf"]

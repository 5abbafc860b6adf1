"""Import: a data set's official files and a folder of audio to a manifest.

A track whose audio is not there is counted, and left out unless it is asked for; the import goes on.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mulan_core.data.names import MAX_LABELS, clean_name, why_misnamed
from mulan_core.data.tracks import SCHEMA
from mulan_core.errors import UserError
from mulan_core.readers.dataset import Dataset, Track

IMPORTED = SCHEMA.append(pa.field("artist", pa.string()))
"""Columns of an imported manifest."""


@dataclass(frozen=True)
class Imported:
    """What an import found."""

    table: pa.Table
    """The manifest, with the columns of ``IMPORTED``."""
    tracks: int
    """Tracks in the official files, each id once."""
    repeated: int
    """Further rows of ids that were there already; left out."""
    missing: tuple[str, ...]
    """Tracks without audio, each as the first file that was looked for."""
    notes: tuple[str, ...]
    """What else a person should know."""

    def counts(self) -> dict[str, Any]:
        """The figures, for print and JSON."""
        texts = Counter(text["source"] for texts in self.table["texts"].to_pylist() for text in texts)
        labels = {label for labels in self.table["labels"].to_pylist() for label in labels}
        return {
            "tracks": self.tracks,
            "with_audio": self.tracks - len(self.missing),
            "missing": len(self.missing),
            "repeated": self.repeated,
            "written": len(self.table),
            "splits": dict(Counter(self.table["split"].to_pylist())),
            "texts": dict(texts),
            "labels": len(labels),
        }


def import_tracks(
    dataset: Dataset,
    folder: Path,
    audio: str,
    *,
    keep_missing: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Read a data set's official files and look for the audio of each track.

    Args:
        dataset: which one.
        folder: the official files.
        audio: the audio's folder: a path, or a URL that fsspec lists (``s3://``).
        keep_missing: keep tracks without audio, under the first name that was looked for.
        options: the reader's own; see ``Dataset.options``.
        progress: called with the number of tracks read so far.

    Raises:
        UserError: if an official file is missing or wrong (with its row), if there is no such audio folder, or if not
            one track has its audio there.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give the one with the official files of {dataset.title}")
    root, there = list_audio(audio)
    notes: list[str] = []
    seen: set[str] = set()
    rows, missing, repeated = [], [], 0
    for number, track in enumerate(dataset.read(folder, notes, **(options or {})), start=1):
        if progress and number % 1000 == 0:
            progress(number)
        if track.track_id in seen:
            repeated += 1
            continue
        seen.add(track.track_id)
        refused = why_misnamed("track_id", track.track_id)
        if refused:
            raise UserError(f"track {number} of {dataset.title} in {folder}: its id {refused}")
        file = next((name for name in track.audio if name in there), None)
        if file is None:
            missing.append(track.audio[0])
        if file or keep_missing:
            rows.append(_row(track, f"{root}/{file or track.audio[0]}", dataset))
    if not seen:
        raise UserError(f"the official files of {dataset.title} in {folder} hold no track that these options keep")
    if not rows:
        raise UserError(
            f"not one of {len(seen)} tracks has its audio in {audio} (looked for {missing[0]} and the like); "
            "check --audio, or keep the tracks all the same with --keep-missing"
        )
    table = pa.Table.from_pylist(rows, schema=IMPORTED)
    return Imported(table, len(seen), repeated, tuple(missing), tuple(notes))


def write_manifest(table: pa.Table, path: Path) -> None:
    """Write a manifest as a whole or not at all.

    Raises:
        UserError: if the file cannot be written.
    """
    check_manifest_name(path)
    building = path.with_name(f".{path.name}.building")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, building)
        building.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def check_manifest_name(path: Path) -> None:
    """Refuse a name that does not end in ``.parquet``."""
    if path.suffix.lower() != ".parquet":
        raise UserError(f"{path}: a manifest is written as Parquet; give a name that ends in .parquet")


def list_audio(audio: str) -> tuple[str, set[str]]:
    """The audio folder as uris start, and the files below it, exactly as they are spelled.

    One listing, since asking for each name of each track is slow on network disks; and YouTube's ids differ in case
    alone, which some disks would not tell apart.
    """
    if "://" in audio:
        import fsspec

        try:
            disk, root = fsspec.core.url_to_fs(audio)
            paths = disk.find(root)
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"cannot list the audio folder {audio}: {error}") from error
        return audio.rstrip("/"), {str(PurePosixPath(path).relative_to(root)) for path in paths}
    folder = Path(audio).resolve()
    if not folder.is_dir():
        raise UserError(f"there is no audio folder {audio}")
    there: set[str] = set()
    for at, _, names in os.walk(folder):
        below = Path(at).relative_to(folder).as_posix()
        there.update(names if below == "." else (f"{below}/{name}" for name in names))
    return str(folder), there


def _row(track: Track, uri: str, dataset: Dataset) -> dict[str, Any]:
    """A row of the manifest; names are cleaned, since who imports them did not type them."""
    texts = [
        {"source": source, "text": text}
        for source, source_texts in track.texts.items()
        for text in source_texts
        if text.strip()
    ]
    return {
        "track_id": track.track_id,
        "uri": uri,
        "start_s": track.start_s,
        "duration_s": track.duration_s,
        "split": track.split,
        "dataset": dataset.name,
        "title": clean_name("title", track.title or "") or None,
        "texts": texts,
        "labels": list(dict.fromkeys(filter(None, (clean_name("labels", name) for name in track.labels))))[:MAX_LABELS],
        "license": track.license or dataset.license,
        "artist": clean_name("artist", track.artist or "") or None,
    }

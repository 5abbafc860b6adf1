"""The tables of a catalogue as its workspace keeps them: checked, with absolute uris and the files' marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mulan_core.config import PrepareConfig
from mulan_core.data.shards import MANIFEST, PLAYLISTS
from mulan_core.data.tracks import open_manifest, read_playlists
from mulan_core.data.uris import fingerprints, locate
from mulan_core.files import write_whole


def write_catalogue(
    manifest: str | Path,
    playlists: str | Path | None,
    catalogue: Path,
    config: PrepareConfig,
    *,
    split: str | None = None,
) -> None:
    """Write the tables of a catalogue into its folder, checked, and beside it what was not taken.

    Args:
        manifest: a table of tracks or a folder of audio.
        playlists: a table of playlists; without one the folder has none.
        catalogue: the folder.
        config: the numbers of prepare.
        split: the split of tracks without one.

    Raises:
        UserError: for a missing or wrong manifest or playlists.
    """
    left_out = _write_manifest(manifest, catalogue / MANIFEST, config, split=split)
    path = catalogue / PLAYLISTS
    path.unlink(missing_ok=True)
    if playlists:
        pq.write_table(read_playlists(playlists), path)
    if left_out is None:
        _report(catalogue).unlink(missing_ok=True)
    else:
        write_whole(_report(catalogue), json.dumps({"left_out": left_out}, indent=1))


def read_report(catalogue: Path) -> dict[str, Any]:
    """What was not taken into a catalogue: of a folder ``left_out``, what it holds besides audio; else nothing."""
    path = _report(catalogue)
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return report


def _report(catalogue: Path) -> Path:
    """Beside the folder rather than in it: DVC should not prepare anew because a picture was added."""
    return catalogue.with_name(f"{catalogue.name}.json")


def _write_manifest(
    manifest: str | Path, path: Path, config: PrepareConfig, *, split: str | None
) -> dict[str, Any] | None:
    """Copy a manifest with absolute uris and the files' marks, so that DVC sees when one has changed; returns what is
    left out of it.
    """
    building = path.with_suffix(".building")
    outside, private, moved = config.allow_outside, config.allow_private, config.moved
    with open_manifest(manifest, allow_outside=outside, allow_private=private, split=split, moved=moved) as opened:
        carried = [field for field in opened.schema if field.name != "file_mark"]
        schema = pa.schema([*carried, pa.field("file_mark", pa.string())])
        uri = schema.get_field_index("uri")
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(building, schema) as file:
            for batch in opened.batches:
                uris = [locate(value, opened.root) for value in batch.column("uri").to_pylist()]
                columns = [batch.column(field.name) for field in carried]
                columns[uri] = pa.array(uris)
                columns.append(pa.array(fingerprints(uris, allow_private=private), pa.string()))
                file.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    building.replace(path)
    return opened.left_out

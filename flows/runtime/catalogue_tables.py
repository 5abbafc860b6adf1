"""The tables of a catalogue as its workspace keeps them: checked, with absolute uris and the files' marks."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mulan_core.config import PrepareConfig
from mulan_core.data.shards import PLAYLISTS
from mulan_core.data.tracks import open_manifest, read_playlists
from mulan_core.data.uris import fingerprints, locate


def write_playlists(playlists: str | Path | None, catalogue: Path) -> None:
    """Copy a table of playlists into the folder of a catalogue, checked; without one the folder has none."""
    path = catalogue / PLAYLISTS
    path.unlink(missing_ok=True)
    if playlists:
        pq.write_table(read_playlists(playlists), path)


def write_manifest(manifest: str | Path, path: Path, config: PrepareConfig, *, split: str | None = None) -> None:
    """Copy a manifest with absolute uris and the files' marks, so that DVC sees when one has changed."""
    building = path.with_suffix(".building")
    outside, private = config.allow_outside, config.allow_private
    with open_manifest(manifest, allow_outside=outside, allow_private=private, split=split) as opened:
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

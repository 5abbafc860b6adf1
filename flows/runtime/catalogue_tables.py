"""The tables of a catalogue as its workspace keeps them: checked, with absolute uris and the files' marks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mulan_core.config import PrepareConfig
from mulan_core.data.playlist_files import is_playlist_file
from mulan_core.data.playlist_match import Matched, add_titles, match_playlists
from mulan_core.data.shards import MANIFEST, PLAYLISTS
from mulan_core.data.tables import Problems
from mulan_core.data.tracks import PLAYLIST_SCHEMA, open_manifest, read_playlists
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
        playlists: a table of playlists, a file of a player, or a folder of those; without one the folder has none.
        catalogue: the folder.
        config: the numbers of prepare.
        split: the split of tracks without one.

    Raises:
        UserError: for a missing or wrong manifest or playlists.
    """
    left_out = _write_manifest(manifest, catalogue / MANIFEST, config, split=split)
    report: dict[str, Any] = {} if left_out is None else {"left_out": left_out}
    path = catalogue / PLAYLISTS
    path.unlink(missing_ok=True)
    if playlists:
        matched = matched_in(playlists, catalogue / MANIFEST, config, split=split)
        if matched:
            report["playlists"] = matched.report
            _add_titles(catalogue / MANIFEST, matched.titles)
        table = pa.Table.from_pylist(matched.rows, PLAYLIST_SCHEMA) if matched else read_playlists(playlists)
        pq.write_table(table, path)
    if report:
        write_whole(_report(catalogue), json.dumps(report, indent=1))
    else:
        _report(catalogue).unlink(missing_ok=True)


def matched_in(
    playlists: str | Path | None,
    manifest: str | Path,
    config: PrepareConfig,
    *,
    allow_outside: bool = True,
    split: str | None = None,
) -> Matched | None:
    """Playlists of players, with their songs found in a manifest; None for a table of playlists, and for none.

    Raises:
        UserError: if none can be read, or none of their songs is there.
    """
    if playlists is None or not is_playlist_file(playlists):
        return None
    problems = Problems(str(manifest))  # they are told by whoever reads the manifest for its own sake
    limits: dict[str, Any] = {"allow_outside": allow_outside, "allow_private": config.allow_private}
    with open_manifest(manifest, problems=problems, moved=config.moved, **limits) as opened:
        rows = (row | {"uri": locate(row["uri"], opened.root)} for b in opened.batches for row in b.to_pylist())
        return match_playlists(playlists, rows, split=split)


def read_report(catalogue: Path) -> dict[str, Any]:
    """What was not taken into a catalogue: of a folder ``left_out``, what it holds besides audio; of players' playlists
    ``playlists``, as ``match_playlists`` reports; else nothing.
    """
    path = _report(catalogue)
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return report


def _report(catalogue: Path) -> Path:
    """Beside the folder rather than in it: DVC should not prepare anew because a picture was added."""
    return catalogue.with_name(f"{catalogue.name}.json")


def _add_titles(path: Path, titles: Mapping[str, list[str]]) -> None:
    """Put titles of playlists among the texts of a manifest's tracks."""
    building = path.with_suffix(".building")
    table = pq.ParquetFile(path)
    with pq.ParquetWriter(building, table.schema_arrow) as file:
        for batch in table.iter_batches():
            rows = batch.select(["track_id", "split", "texts"]).to_pylist()
            field = batch.schema.field("texts")
            texts = pa.array([add_titles(row, titles)["texts"] for row in rows], field.type)
            file.write_batch(batch.set_column(batch.schema.get_field_index("texts"), field, texts))
    building.replace(path)


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

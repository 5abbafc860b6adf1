"""The stage ``prepare``: DVC's stages over the catalogue, then a push to the DVC remote.

The last of these stages turns any audio into shards of 16 kHz mono FLAC, with Ray Data pipelines over a plan that lies
on disk. First each shard to be is compared with the last run; then the clips that are missing stream through read,
decode, encode and keep; then each shard is put together. Rows stream in all three, so memory does not grow with the
catalogue, and every finished clip is on disk, so a killed run goes on where it was (docs/decisions/0012-prepare.md). A
file that cannot be used goes to quarantine with its reason and the job goes on.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.pipeline import data
from flows.pipeline.prepare_worker import find_work, make_clips, write_shards
from flows.runtime.catalogue_tables import read_report
from flows.runtime.catalogues import note_use
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.progress import bar, console
from flows.runtime.session import Session, open_session
from flows.runtime.stack import ray_for_stage
from flows.runtime.storage import open_storage
from flows.runtime.workspace import SET_CATALOGUES, Workspace
from mulan_core.config import PrepareConfig
from mulan_core.data import shards
from mulan_core.data.overlap import check_splits
from mulan_core.data.playlists import check_known
from mulan_core.data.shard_builder import ShardBuilder, work_folder
from mulan_core.data.shard_plan import Shard, plan_shards, shard_counts
from mulan_core.data.tracks import open_manifest
from mulan_core.errors import UserError, without_secrets

CHANGES = ("new", "changed", "removed", "unchanged")
ROWS_PER_GROUP = 16_384

Progress = Callable[[int, int], None]


@flow(name="prepare", description="Any audio and its texts to versioned shards.", **FAILURE_HOOKS)
def prepare(manifest: str | None = None, playlists: str | None = None, params: str | None = None) -> dict[str, Any]:
    """Prepare a catalogue; a second run with nothing changed does nothing.

    Args:
        manifest: table of tracks; null takes the working folder's catalogue (the demo in a checkout).
        playlists: table of playlists, from now on.
        params: the numbers, for an own manifest.
    """
    with open_session(manifest, playlists, params) as session, session.stage("prepare"):
        if remote := session.settings.dvc_remote:
            open_storage(remote, variable="MULAN_DVC_REMOTE")  # now, rather than after the work
        counts = data.reproduce(session.workspace)
        # Now that they are found right: wrong ones would be in the way of every later command.
        note_use(session.settings.home, session.workspace.folder, playlists=playlists)
        push_data(session)
        workspace = session.workspace
        report = read_report(workspace.folder / workspace.config.catalogue)
        return counts | {"data_hash": workspace.data_hash, "prepared": str(workspace.prepared)} | report


@task(name="push data", retries=2, retry_delay_seconds=5, timeout_seconds=3600, cache_policy=NO_CACHE)
def push_data(session: Session) -> None:
    """Copy new shards to the DVC remote."""
    data.push(session.workspace)


def prepare_catalogue(workspace: Workspace) -> dict[str, Any]:
    """Prepare a workspace's catalogue into its ``prepared``; see ``build_shards``."""
    config, texts = workspace.config, workspace.texts / shards.TEXTS
    return _build("prepare", workspace.folder / config.catalogue, workspace.prepared, config.prepare, texts=texts)


def prepare_set(workspace: Workspace, name: str) -> dict[str, Any]:
    """Prepare one of a workspace's ``evaluate.sets`` into its folder below ``sets``; see ``build_shards``."""
    config = workspace.config
    clip_s = config.evaluate.sets[name].clip_s or config.prepare.clip_s
    catalogue = workspace.folder / SET_CATALOGUES / name
    return _build(f"prepare {name}", catalogue, workspace.sets / name, replace(config.prepare, clip_s=clip_s))


def _build(
    title: str, catalogue: Path, out: Path, config: PrepareConfig, *, texts: Path | None = None
) -> dict[str, Any]:
    with ray_for_stage(), bar(title) as update:
        counts = build_shards(catalogue.resolve(), out, config, texts=texts, progress=update)
    changes = ", ".join(f"{number:,} {change}" for change, number in counts["changes"].items())
    console.print(f"{title}: {changes}")
    return counts


def build_shards(
    catalogue: Path,
    out: Path,
    config: PrepareConfig,
    *,
    texts: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Turn a catalogue into a prepared folder; only what is new, changed or removed since the last run is worked on.

    The result is that of a run from scratch, byte for byte.

    Args:
        catalogue: folder with ``manifest.parquet`` and maybe ``playlists.parquet``.
        out: the prepared folder; replaced as a whole once everything is written.
        config: clip length, limits, size of shards.
        texts: a table of judged texts, a row a track (``track_id``, ``texts`` with source, text, drop); null judges
            the manifest's texts by rules.
        progress: called with (tracks done, tracks in all).

    Returns:
        The counts, as in ``counts.json``, and ``changes``: new, changed, removed, unchanged tracks; one
        that has another split is removed from the one and new in the other.

    Raises:
        UserError: if the manifest is wrong, if a playlist names a track that it does not have, if not one track is
            usable, or if splits share recordings.
    """
    manifest, work, replaced = catalogue / "manifest.parquet", work_folder(out), _replaced(out)
    if replaced.exists() and not out.exists():
        replaced.rename(out)  # the last run was killed between its last two moves
    playlists = catalogue / shards.PLAYLISTS
    if playlists.exists():
        ids = pq.ParquetFile(manifest).iter_batches(columns=["track_id"])
        check_known(pq.read_table(playlists).to_pylist(), (batch["track_id"].to_pylist() for batch in ids))
    plan = plan_shards(manifest, work / "plan", config, texts=texts)
    with open_manifest(manifest) as opened:
        schema = shards.shard_schema(opened.schema)
    folders = {"before": out, "ledger": work / "ledger", "shards": work / "shards"}
    counts = {name: shard_counts(folder) for name, folder in folders.items()}
    builder = ShardBuilder(work=work, before=out, config=config, counts=counts, schema=schema)
    num_tracks = pq.read_metadata(manifest).num_rows
    _make_clips(builder, plan, num_tracks, progress)
    results = write_shards(builder, plan)
    built = work / "shards"
    summary = _summarise(results, config) | {"tracks": num_tracks}
    _write_tables(builder, plan, summary)
    if not summary["usable"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in summary["quarantined"].items())
        raise UserError(f"not one track of {manifest} is usable ({reasons}); see {built / shards.QUARANTINE}")
    check_splits(built / shards.MANIFEST, allow=config.allow_overlap)
    if playlists.exists():
        shutil.copyfile(playlists, built / shards.PLAYLISTS)
    else:
        (built / shards.PLAYLISTS).unlink(missing_ok=True)
    _publish(work, out)
    changes = dict(sum((Counter(result["changes"]) for result in results), Counter()))
    return summary | {"changes": {name: changes.get(name, 0) for name in CHANGES}}


def _make_clips(builder: ShardBuilder, plan: list[Shard], num_tracks: int, progress: Progress | None) -> None:
    todo = builder.work / "todo"
    shutil.rmtree(todo, ignore_errors=True)
    counts = find_work(builder, plan, todo)
    done = num_tracks - sum(counts.values())
    if progress:
        progress(done, num_tracks)
    if not counts:
        return
    for count in make_clips(builder, sorted(counts)):
        done += count
        if progress:
            progress(done, num_tracks)
    shutil.rmtree(todo)


def _summarise(results: list[dict[str, Any]], config: PrepareConfig) -> dict[str, Any]:
    splits: Counter[str] = Counter()
    quarantined: Counter[str] = Counter()
    clips: Counter[str] = Counter()
    texts: dict[str, Any] = {}
    for result in results:
        splits.update(result["splits"])
        quarantined.update(result["quarantined"])
        clips.update(result["clips"])
        for source, counted in result["texts"].items():
            sums = texts.setdefault(source, {"before": 0, "after": 0, "dropped": Counter()})
            sums["before"] += counted["before"]
            sums["after"] += counted["after"]
            sums["dropped"].update(counted["dropped"])
    return {
        "usable": splits.total(),
        "splits": dict(sorted(splits.items())),
        "hours": round(sum(result["samples"] for result in results) / config.sample_rate_hz / 3600, 3),
        "quarantined": dict(sorted(quarantined.items(), key=lambda item: (-item[1], item[0]))),
        "texts": {
            source: sums | {"dropped": dict(sorted(sums["dropped"].items()))} for source, sums in sorted(texts.items())
        },
        "clips": dict(sorted(clips.items())),
        "clip_s": config.clip_s,
    }


def _replaced(out: Path) -> Path:
    """Where the prepared folder of the last run lies while the new one takes its place."""
    return out.with_name(f".{out.name}.replaced")


def _publish(work: Path, out: Path) -> None:
    """Put what was built in the place of the prepared folder, and remove what it was made from."""
    replaced = _replaced(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        out.rename(replaced)
    (work / "shards").rename(out)
    for leftover in (replaced, work / "plan", work / "clips", work / "downloads"):
        shutil.rmtree(leftover, ignore_errors=True)


def _write_tables(builder: ShardBuilder, plan: list[Shard], summary: dict[str, Any]) -> None:
    """Write the tables of the whole folder shard by shard, and remove what belongs to other plans."""
    built, ledger = builder.work / "shards", builder.work / "ledger"
    for folder in (built, ledger):
        stale = {path.relative_to(folder) for path in folder.glob("*/*")} - {shard.path for shard in plan}
        for path in stale:
            (folder / path).unlink()
    metadata = shards.without_audio(builder.schema)
    tables = (pq.read_table(built / s.path, columns=metadata.names) for s in plan if (built / s.path).exists())
    _stream(tables, metadata, built / shards.MANIFEST)
    quarantine = pa.schema([(name, pa.string()) for name in ("track_id", "uri", "reason", "detail")])
    kept = (pq.read_table(ledger / s.path, columns=quarantine.names) for s in plan if (ledger / s.path).exists())
    _stream(
        (_for_people(table.filter(table["reason"].is_valid())) for table in kept), quarantine, built / shards.QUARANTINE
    )
    (built / shards.COUNTS).write_text(json.dumps(summary, indent=1), encoding="utf-8")


def _for_people(quarantined: pa.Table) -> pa.Table:
    """The quarantine is a report, which people pass on: without the passwords that uris may hold."""
    uris = pa.array([without_secrets(uri) for uri in quarantined["uri"].to_pylist()], pa.string())
    return quarantined.set_column(quarantined.schema.get_field_index("uri"), "uri", uris)


def _stream(tables: Iterator[pa.Table], schema: pa.Schema, path: Path) -> None:
    """Write many small tables as one file, a few thousand rows at a time."""
    with pq.ParquetWriter(path, schema) as file:
        pending: list[pa.Table] = []
        for table in tables:
            pending.append(table.cast(schema))
            if sum(map(len, pending)) >= ROWS_PER_GROUP:
                file.write_table(pa.concat_tables(pending))
                pending = []
        if pending:
            file.write_table(pa.concat_tables(pending))

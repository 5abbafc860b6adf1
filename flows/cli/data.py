"""The commands ``mulan data``: look at a catalogue before work starts, read public data sets, compare versions."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.catalogue import CatalogueName, Moved, look
from flows.cli.reporting import AsJson, print_json
from flows.runtime.terminal import Table, console
from mulan_core.counts import counted
from mulan_core.errors import UserError

if TYPE_CHECKING:
    from mulan_core.readers.dataset import Dataset

app = typer.Typer(help="Catalogues and data sets: check, list, import, diff.", no_args_is_help=True)


@app.command()
def check(
    manifest: Annotated[str, typer.Argument(help="A table of tracks or a folder of audio, by path or URL.")],
    playlists: Annotated[
        Path | None, typer.Option(help="Its playlists: a table, a file of a player, a folder.")
    ] = None,
    params: Annotated[Path | None, typer.Option(help="YAML of what differs from your catalogue's numbers.")] = None,
    *,
    allow_outside: Annotated[bool, typer.Option("--allow-outside", help="Take files outside its folder.")] = False,
    moved: Moved = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Pass recordings that train and valid or test share.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what would go wrong, before any work and without decoding. Exit code 1 if `mulan run` would refuse the
    catalogue, or a row or file is bad.

    Example: mulan data check tracks.csv
    """
    import psutil

    from flows.cli.reporting import show_check
    from flows.runtime.catalogue_tables import matched_in
    from flows.runtime.progress import bar, quiet_libraries
    from flows.runtime.settings import read_settings
    from flows.runtime.workspace import numbers_of, workspace_of
    from mulan_core.data.check import check_manifest
    from mulan_core.data.places import parse_moves
    from mulan_core.data.tracks import read_playlists
    from mulan_core.outlook import Outlook

    home = read_settings().home
    config = numbers_of(workspace_of(home, manifest), params)
    allow_overlap = allow_overlap or config.prepare.allow_overlap
    moves = {**config.prepare.moved, **parse_moves(moved)}
    config = replace(config, prepare=replace(config.prepare, allow_overlap=allow_overlap, moved=moves))
    outside = allow_outside or config.prepare.allow_outside
    matched = matched_in(playlists, manifest, config.prepare, allow_outside=outside)
    rows = matched.rows if matched else read_playlists(playlists).to_pylist() if playlists else ()
    outlook, titles = Outlook(config, rows), matched.titles if matched else {}
    with quiet_libraries(), bar("check") as update:
        report = check_manifest(
            manifest, config.prepare, allow_outside=outside, outlook=outlook, titles=titles, progress=update
        )
    report["playlists"] = matched and matched.report
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    room = {"disk_free": shutil.disk_usage(there).free, "memory": psutil.virtual_memory().total}
    report |= outlook.report(seconds=3600 * report["hours"], **room)
    if as_json:
        print_json(report)
    else:
        show_check(report)
    if report["bad_rows"] or report["bad_files"] or report["refusals"]:
        raise typer.Exit(1)


@app.command("list")
def list_datasets(
    name: Annotated[str | None, typer.Argument(help="Tell all about this one.")] = None, as_json: AsJson = False
) -> None:
    """List the public data sets that can be imported, with their licences and where they are.

    Example: mulan data list magnatagatune
    """
    from mulan_core.readers import DATASETS, find_dataset

    if as_json:
        chosen = [find_dataset(name)] if name else list(DATASETS.values())
        print_json([_facts(dataset) for dataset in chosen])
    elif name:
        _show_dataset(find_dataset(name))
    else:
        table = Table("name", title="Public data sets")
        table.add_column("tracks", justify="right", no_wrap=True)
        for heading in ("licence", "audio", "its files"):
            table.add_column(heading)
        for dataset in DATASETS.values():
            files = "fetch" if dataset.downloads else "by hand"
            table.add_row(dataset.name, dataset.tracks, dataset.license, dataset.size, files)
        console.print(table)
        for dataset in DATASETS.values():
            console.print(f"{dataset.name:<16}{dataset.home}")
        console.print(
            "`mulan data fetch NAME` gets what is openly given; `mulan data list NAME` tells what an import needs"
        )


@app.command("sets")
def list_sets(
    name: Annotated[str | None, typer.Argument(help="Tell all about this one.")] = None,
    manifest: Annotated[str | None, typer.Option(help="Whose sets. Default: those of the catalogue used last.")] = None,
    params: Annotated[Path | None, typer.Option(help="YAML of what differs from your catalogue's numbers.")] = None,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """List the evaluation sets: what is measured on each, what it needs, and where it is prepared.

    Example: mulan data sets audioset-gen25
    """
    from flows.pipeline.sets import describe_sets

    settings, workspace, _ = look(manifest, catalogue, params)
    rows = describe_sets(workspace, name, home=settings.home)
    if as_json:
        print_json(rows)
        return
    if name:
        table = Table(title=rows[0]["title"], show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for key in ("suites", "split", "class_list", "needs", "prepared"):
            value = rows[0][key]
            shown = ", ".join(value) if isinstance(value, list) else value
            if shown or key == "prepared":
                table.add_row(key.replace("_", " "), shown or "not yet")
        console.print(table)
        return
    table = Table("name", "what it measures", "classes", "prepared", title="Evaluation sets")
    for row in rows:
        table.add_row(
            row["name"], ", ".join(row["suites"]), str(row["classes"] or ""), "yes" if row["prepared"] else ""
        )
    console.print(table)
    console.print(
        "`mulan data sets NAME` tells what one needs; `mulan evaluate MODEL --on NAME,NAME` measures them; "
        "--on NAME=PATH takes a prepared folder, or a table of titles and descriptions, of yours",
    )


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    to: Annotated[Path | None, typer.Option(help="Folder. Default: datasets/NAME under .mulan.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the openly given files of a data set, never its audio; each is checked where its checksum is known.

    Example: mulan data fetch mtg_jamendo
    """
    from flows.runtime.progress import bar
    from flows.runtime.settings import read_settings
    from mulan_core.readers import find_dataset
    from mulan_core.readers.downloads import check_fetchable, fetch_file

    dataset = find_dataset(name)
    check_fetchable(dataset)
    folder = to or read_settings().home / "datasets" / dataset.name
    fetched, failed = [], []
    for download in dataset.downloads:
        try:
            with bar(download.file) as update:
                fetched.append(fetch_file(download, folder, progress=update))
        except UserError as error:  # the others may be there
            failed.append(str(error))
            continue
        if not as_json:
            file = fetched[-1]
            state = "fetched" if file.is_new else "was there"
            check = "checksum fits" if file.is_verified else "not verified, no checksum is known"
            console.print(f"{file.file}: {state}, {file.bytes:,} bytes, {check}")
            console.print(f"  sha256 {file.sha256}")
    if failed:
        others = f" ({len(failed)} of {len(dataset.downloads)} files are not here)" if len(failed) > 1 else ""
        raise UserError(failed[0] + others)
    if as_json:
        print_json({"folder": str(folder), "files": [asdict(file) for file in fetched], "by_hand": dataset.by_hand})
        return
    if dataset.by_hand:
        console.print(f"by hand, at {dataset.home}: {dataset.by_hand}")
    console.print(f"next: mulan data import {dataset.name} {folder} --audio DIR --out {dataset.name}.parquet")


@app.command("import")
def import_dataset(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    folder: Annotated[Path, typer.Argument(help="Folder with its official files.")],
    *,
    audio: Annotated[str, typer.Option(help="Folder with its audio: a path, or a URL such as s3://bucket/audio.")],
    out: Annotated[Path, typer.Option(help="The manifest to write, a .parquet file.")],
    keep_missing: Annotated[
        bool, typer.Option("--keep-missing", help="Keep tracks whose audio is not there; prepare quarantines them.")
    ] = False,
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, as `mulan data list` tells them; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a public data set into a manifest; tracks without audio are counted and left out.

    Example: mulan data import musiccaps musiccaps/ --audio clips/ --out musiccaps.parquet
    """
    from flows.runtime.progress import bar
    from mulan_core.readers import find_dataset
    from mulan_core.readers.importing import check_manifest_name, import_tracks, write_manifest

    dataset = find_dataset(name)
    check_manifest_name(out)
    options = dataset.parse_options(option or [])
    with bar(f"import {dataset.name}") as update:
        imported = import_tracks(dataset, folder, audio, keep_missing=keep_missing, options=options, progress=update)
    write_manifest(imported.table, out)
    counts = imported.counts()
    if as_json:
        print_json({"manifest": str(out), **counts, "notes": imported.notes})
        return
    table = Table("", title=dataset.title)
    table.add_column("count", justify="right")
    for row in ("tracks", "with_audio", "missing", "repeated", "written"):
        if counts[row] or row != "repeated":
            table.add_row(row.replace("_", " "), f"{counts[row]:,}")
    for split, number in counts["splits"].items():
        table.add_row(f"split {split}", f"{number:,}")
    for source, number in counts["texts"].items():
        table.add_row(f"texts {source}", f"{number:,}")
    table.add_row("different labels", f"{counts['labels']:,}")
    console.print(table)
    console.print(f"wrote {out}")
    if imported.missing:
        kept = "kept" if keep_missing else "left out"
        first = ", ".join(imported.missing[:3])
        console.print(f"without audio, {kept}: {first}{', ...' if len(imported.missing) > 3 else ''}")
    for note in imported.notes:
        console.print(f"note: {note}")


@app.command("overlap")
def overlap(
    train: Annotated[Path, typer.Argument(help="Manifest of what is trained on.")],
    evaluation: Annotated[Path, typer.Argument(help="Manifest of what is evaluated on.")],
    as_json: AsJson = False,
) -> None:
    """Find recordings that two manifests share, by audio, by id, and across data sets; exit code 1 where there are any.

    All rows of both count, whatever their split. The audio is compared where both have ``sha256``, which prepare
    writes.

    Example: mulan data overlap audioset.parquet musiccaps.parquet
    """
    from mulan_core.data.overlap import find_overlaps
    from mulan_core.data.tracks import read_manifest

    tables = [read_manifest(train), read_manifest(evaluation)]
    overlaps = find_overlaps(*tables)
    unhashed = sum(table["sha256"].null_count for table in tables)
    if as_json:
        print_json({"overlaps": [asdict(pair) for pair in overlaps], "tracks_without_sha256": unhashed})
    else:
        for pair in overlaps:
            console.print(str(pair))
        rows = " and ".join(f"{len(table):,}" for table in tables)
        summary = f"{len(overlaps):,} overlap{'' if len(overlaps) == 1 else 's'}"
        console.print(f"{summary} between {rows} tracks")
        if unhashed:
            console.print(f"note: {counted(unhashed, 'track has', 'tracks have')} no sha256, not compared by audio")
    if overlaps:
        raise typer.Exit(1)


def _facts(dataset: Dataset) -> dict[str, Any]:
    names = ("name", "title", "tracks", "about", "license", "size", "home", "files", "by_hand", "options")
    facts = {name: getattr(dataset, name) for name in names}
    return facts | {"downloads": [asdict(download) for download in dataset.downloads]}


def _show_dataset(dataset: Dataset) -> None:
    table = Table(title=dataset.title, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("tracks", f"{dataset.tracks}: {dataset.about}")
    table.add_row("licence", dataset.license)
    table.add_row("audio", dataset.size)
    table.add_row("needs", "\n".join(dataset.files))
    if dataset.downloads:
        fetched = ", ".join(Path(download.file).name for download in dataset.downloads[:5])
        more = ", ..." if len(dataset.downloads) > 5 else ""
        table.add_row("mulan data fetch", f"{fetched}{more}")
    if dataset.by_hand:
        table.add_row("by hand", dataset.by_hand)
    for name, default in dataset.defaults().items():
        table.add_row(f"--option {name}=", f"{dataset.options[name]} (default: {_shown(default)})")
    console.print(table)
    console.print(dataset.home)


def _shown(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default) or "none"

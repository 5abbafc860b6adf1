"""The commands ``mulan catalogue``, and which catalogue the other commands mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.reporting import AsJson, print_json
from flows.runtime.settings import Settings, read_settings
from flows.runtime.terminal import Table, console, errors, moment
from mulan_core.errors import UserError

if TYPE_CHECKING:
    from flows.registry import Registry
    from flows.runtime.catalogues import Catalogue
    from flows.runtime.workspace import Workspace

app = typer.Typer(help="Your catalogues by name: list, edits, rename, remove.", no_args_is_help=True)

Moved = Annotated[
    list[str] | None,
    typer.Option("--map", help="FROM=TO: a folder as the table names it, and where it lies here; prepare keeps it."),
]
CatalogueName = Annotated[
    str | None,
    typer.Option("--catalogue", help="By name, see `mulan catalogue list`. Default: the one that was used last."),
]
Name = Annotated[str, typer.Argument(help="As `mulan catalogue list` shows it.")]


def manifest_of(manifest: str | Path | None, catalogue: str | None) -> str | None:
    """The table of the catalogue that a command means, as flows take it; None for the working folder's.

    Raises:
        UserError: if both are given, there is no such catalogue, or nobody knows where its table is.
    """
    if manifest is not None:
        _name_one(manifest, catalogue)
        return str(manifest)
    record = chosen(catalogue)
    if record.workspace and not record.manifest:
        raise UserError(
            f"where the table of the catalogue {record.name} is was not kept by the version of MuLan that made it; "
            "give it once more with --manifest"
        )
    return record.manifest


def look(
    manifest: str | Path | None, catalogue: str | None, params: str | Path | None = None
) -> tuple[Settings, Workspace, Registry]:
    """Settings, workspace and models of the catalogue that a command means, for one that reads.

    Raises:
        UserError: as of ``manifest_of`` and ``find_workspace``.
    """
    from flows.registry import Registry
    from flows.runtime.catalogues import read_records
    from flows.runtime.workspace import find_workspace

    settings = read_settings()
    if manifest is None:
        record = chosen(catalogue)
        workspace = find_workspace(settings.home, folder=record.folder(settings.home), params=params)
    else:
        _name_one(manifest, catalogue)
        workspace = find_workspace(settings.home, manifest=manifest, params=params)
        record = read_records(settings.home).of_folder(settings.home, workspace.folder)
    return settings, workspace, Registry.of(settings, record)


def models_of(catalogue: str | None) -> Registry:
    """The models of the catalogue that a command means, which need not be prepared here.

    Raises:
        UserError: if there is no such catalogue.
    """
    from flows.registry import Registry

    return Registry.of(read_settings(), chosen(catalogue))


def chosen(catalogue: str | None) -> Catalogue:
    """The catalogue of that name, else the last one used; said where another could be meant.

    Raises:
        UserError: if there is none of that name.
    """
    from flows.runtime.catalogues import read_records

    records = read_records(read_settings().home)
    if catalogue is not None:
        return records.named(catalogue)
    if records.last is not None and len(records.by_name) > 1:
        errors.print(f"mulan: the catalogue is {records.last}, the last one used; --catalogue NAME takes another")
    return records.current


def endpoint_of(url: str | None, catalogue: str | None) -> str:
    """The endpoint that a command asks: that of the catalogue; by default the last one used, else of those
    that are served the last one used.

    Raises:
        UserError: if there is no such catalogue, or it is not served where another one is.
    """
    from flows.runtime.catalogues import read_records
    from flows.runtime.endpoint import endpoint_url, served

    settings = read_settings()
    if url or settings.url:
        return str(url or settings.url)
    records, here = read_records(settings.home), served(settings.home)
    record = records.current if catalogue is None else records.named(catalogue)
    if catalogue is None and here and record.name not in here:
        name = str(records.latest(here))
        errors.print(
            f"mulan: {record.name} is not served here; {name} is, and is asked (--catalogue NAME asks another)"
        )
        return here[name]
    if catalogue is None and len(here) > 1:
        errors.print(f"mulan: the catalogue is {record.name}, the last one used; --catalogue NAME asks another")
    if endpoint := endpoint_url(settings, record):
        return endpoint
    raise UserError(
        f"the catalogue {record.name} is not served here; start it with `mulan serve --catalogue {record.name}`"
    )


def _name_one(manifest: str | Path, catalogue: str | None) -> None:
    if catalogue is not None:
        raise UserError(f"--manifest {manifest} and --catalogue {catalogue} both say which catalogue; give one of them")


@app.command("list")
def list_catalogues(as_json: AsJson = False) -> None:
    """List the catalogues with their tables, models and champions, the last used first.

    Example: mulan catalogue list
    """
    from flows.upkeep import describe

    rows = describe(read_settings())
    if as_json:
        print_json(rows)
        return
    table = Table("name", "manifest", "tracks", "champion", "served at", "last used")
    for row in rows:
        tracks = "" if row["tracks"] is None else f"{row['tracks']:,}"
        champion = f"version {row['champion']} of {row['model']}" if row["champion"] else "none"
        manifest = row["manifest"] or ("the working folder's" if row["name"] == "demo" else "not kept")
        table.add_row(row["name"], manifest, tracks, champion, row["endpoint"] or "", moment(row["used"] or ""))
    console.print(table)


@app.command()
def rename(old: Name, new: Annotated[str, typer.Argument(help="Small letters, digits, dashes.")]) -> None:
    """Give a catalogue another name, and its registered model with it.

    Example: mulan catalogue rename tracks jazz
    """
    from flows.runtime.catalogues import check_free, read_records

    records = read_records(read_settings().home)
    records.named(old)
    check_free(records, new)  # told in a moment; the next import takes seconds
    from flows.upkeep import rename as rename_catalogue

    renamed = rename_catalogue(read_settings(), old, new)
    console.print(f"{old} is {new} now, its registered model {renamed.model}")


@app.command()
def remove(
    name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, as_json: AsJson = False
) -> None:
    """Remove a catalogue's workspace, collections and models; your own files and the runs in MLflow stay.

    Example: mulan catalogue remove tracks
    """
    from flows.upkeep import remove as remove_catalogue

    def ask(goes: dict[str, Any]) -> bool:
        for what in ("workspace", "model", "versions", "collections", "edits"):
            value = goes[what]
            shown = ", ".join(value) if isinstance(value, list) else value
            named = "added or deleted over the API" if what == "edits" else what
            errors.print(f"{named}: {shown or 'none'}")
        return yes or typer.confirm(f"Remove the catalogue {name} with all of these?", err=True)

    done = remove_catalogue(read_settings(), name, ask)
    if as_json:
        print_json(done)
    else:
        console.print(f"{name} is removed" if done["removed"] else "nothing was removed")
    if not done["removed"]:
        raise typer.Exit(1)


@app.command()
def edits(
    undo: Annotated[
        list[str] | None, typer.Option("--undo", metavar="ID", help="Take back what was done to this track.")
    ] = None,
    *,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """List the tracks that were added and deleted over the API, or take back what was done to some.

    Example: mulan catalogue edits --undo song-1
    """
    from flows.runtime.storage import open_edits

    record = chosen(catalogue)
    made = open_edits(read_settings(), record)
    for track_id in undo or ():
        if not made.forget(track_id):
            raise UserError(
                f"the track {track_id!r} was not added or deleted over the API; see `mulan catalogue edits`"
            )
        errors.print(f"mulan: {track_id} is again what the catalogue says, from the next `mulan index` on")
    recorded = made.all()
    titles = _titles(record, {edit.track_id for edit in recorded if edit.kind == "deleted"})
    if as_json:
        print_json(
            [{"track_id": edit.track_id, "kind": edit.kind, "when": edit.when} | edit.fields for edit in recorded]
        )
        return
    table = Table("title", "artist", "what", "when", "track")
    for edit in recorded:
        fields = titles.get(edit.track_id, {}) | edit.fields
        table.add_row(fields.get("title", ""), fields.get("artist", ""), edit.kind, moment(edit.when), edit.track_id)
    console.print(table if recorded else "nothing was added or deleted over the API")


def _titles(record: Catalogue, track_ids: set[str]) -> dict[str, dict[str, str]]:
    """Titles and artists of tracks as the prepared data has them; a record of a deletion holds none."""
    import pyarrow.parquet as pq

    from flows.runtime.workspace import made_workspace
    from mulan_core.data.names import title_of_file
    from mulan_core.data.shards import MANIFEST

    workspace = made_workspace(read_settings().home, record)
    if not track_ids or workspace is None or not (workspace.prepared / MANIFEST).is_file():
        return {}
    rows = pq.read_table(workspace.prepared / MANIFEST, filters=[("track_id", "in", track_ids)]).to_pylist()
    return {
        row["track_id"]: {"title": row["title"] or title_of_file(row["uri"]) or "", "artist": row.get("artist") or ""}
        for row in rows
    }

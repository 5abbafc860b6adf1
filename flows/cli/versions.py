"""The commands that follow data through its versions: ``mulan data diff``, ``mulan data pull``, ``mulan lineage``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.catalogue import CatalogueName, look, manifest_of
from flows.cli.reporting import AsJson, print_json
from flows.runtime.terminal import Table, console

Manifest = Annotated[Path | None, typer.Option(help="The catalogue's table. Default: the one that was used last.")]
Revision = Annotated[
    str, typer.Argument(help="A data hash, an alias or version of the model, or a git revision of dvc.lock.")
]


def diff(
    revision: Revision,
    manifest: Manifest = None,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Tell what the prepared data has that an earlier version had not: tracks, and texts by source.

    Example: mulan data diff champion
    """
    from flows.pipeline.versions import read_version, resolve_data
    from mulan_core.data.changes import compare_versions

    _, workspace, registry = look(manifest, catalogue)
    before = resolve_data(revision, workspace, registry)
    changes = compare_versions(read_version(workspace, before), read_version(workspace, workspace.data_hash))
    changes = {"before": before, "after": workspace.data_hash, **changes}
    if as_json:
        print_json(changes)
        return
    console.print(f"{before[:8]} -> {workspace.data_hash[:8]}")
    table = Table("", "tracks", "such as")
    for name in ("added", "removed"):
        table.add_row(name, str(len(changes[name])), ", ".join(changes[name][:3]))
    shown = [f"{track} ({', '.join(aspects)})" for track, aspects in list(changes["changed"].items())[:3]]
    table.add_row("changed", str(len(changes["changed"])), ", ".join(shown))
    console.print(table)
    table = Table("", "before", "after", "difference")
    for kind in ("splits", "texts"):
        for name, count in changes[kind].items():
            label = f"tracks {name}" if kind == "splits" else f"texts {name}, kept"
            table.add_row(label, str(count["before"]), str(count["after"]), f"{count['after'] - count['before']:+d}")
    console.print(table)


def pull(manifest: Manifest = None, catalogue: CatalogueName = None) -> None:
    """Fetch the data that dvc.lock names from the DVC remote (MULAN_DVC_REMOTE, else the workspace's).

    Example: MULAN_DVC_REMOTE=s3://music/mulan mulan data pull
    """
    from flows.pipeline.data import pull as pull_data
    from flows.runtime.settings import read_settings
    from flows.runtime.workspace import open_workspace
    from flows.upkeep import use

    settings, table = read_settings(), manifest_of(manifest, catalogue)
    workspace = open_workspace(settings.home, manifest=table)
    use(settings, workspace, manifest=table)
    pull_data(workspace)
    console.print(f"{workspace.prepared} holds the data {workspace.data_hash[:8]}")


def lineage(
    what: Annotated[str, typer.Argument(help="A release (alias or version of the model), or a track's id.")],
    manifest: Manifest = None,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Walk from a release back to its run, code and data; or from a track to its file, texts and releases.

    Example: mulan lineage champion
    """
    from flows.pipeline.lineage import release_lineage, track_lineage
    from flows.runtime.moved import read_places

    settings, workspace, registry = look(manifest, catalogue)
    places = read_places(settings.home)
    facts = release_lineage(what, workspace, registry) or track_lineage(what, workspace, registry, places=places)
    if as_json:
        print_json(facts)
    else:
        _show(facts)


def _show(facts: dict[str, Any]) -> None:
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        for i, line in enumerate(value if isinstance(value, list) else [value]):
            table.add_row("" if i else name, str(line))
    console.print(table)

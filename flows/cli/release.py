"""The commands ``mulan release ...``: what is served, what else could be, and the switch from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.catalogue import CatalogueName, endpoint_of, look, manifest_of, models_of
from flows.cli.reporting import AsJson, print_json, show_edits
from flows.pipeline.words import gate_words, served_words
from flows.runtime.numbers import CountOrNone, number
from flows.runtime.terminal import Table, console, moment
from mulan_core.config import Share
from mulan_core.errors import UserError

if TYPE_CHECKING:
    from flows.registry import Registry

app = typer.Typer(help="What is served: model version, preprocessing and index as one unit.", no_args_is_help=True)

Manifest = Annotated[str | None, typer.Option(help="The catalogue's table. Default: the one that was used last.")]
Params = Annotated[str | None, typer.Option(help="YAML of what differs from your catalogue's numbers.")]
Version = Annotated[str, typer.Argument(help="champion, candidate, or a version.")]
MAX_SHOWN = 5


@app.command("list")
def list_releases(catalogue: CatalogueName = None, as_json: AsJson = False) -> None:
    """List the registered versions with the gate's word and their collections.

    Example: mulan release list
    """
    registry = models_of(catalogue)
    versions = [registry.summary(version) for version in registry.versions()]
    if as_json:
        print_json(versions)
        return
    table = Table("version", "aliases", "gate", "collection", "data", "commit", "made")
    for version in versions:
        table.add_row(
            *(str(version[key]) for key in ("version", "aliases")),
            gate_words(version),
            *(str(version[key]) for key in ("collection", "data_hash", "git_commit")),
            moment(str(version["created"])),
        )
    console.print(table)


@app.command()
def show(
    version: Annotated[
        str | None, typer.Argument(help="champion, candidate, or a version. Default: what the endpoint serves.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The endpoint.")] = None,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Show a release: its parts, the gate's word, its metrics and its index; without a name, the one that is served.

    Example: mulan release show champion
    """
    from flows.runtime.settings import read_settings
    from serving.client import MulanClient

    if version is None:
        print_json(MulanClient(endpoint_of(url, catalogue), key=read_settings().key).release())
        return
    from flows.pipeline.lineage import show_release

    release = show_release(version, models_of(catalogue))
    if as_json:
        print_json(release)
        return
    table = Table(show_header=False, title=f"Release {release['version']}")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    index = {key: value for key, value in (release["index"] or {}).items() if key != "changes"}
    lines = release | {
        "gate": gate_words(release),
        "metrics": [f"{metric} {value:.3f}" for metric, value in release["metrics"].items()],
        "index": [f"{key} {value}" for key, value in index.items()] or "not built",
    }
    del lines["judged_on"]  # which stands behind the gate's word
    for name, value in lines.items():
        for i, line in enumerate(value if isinstance(value, list) else [value]):
            table.add_row("" if i else name, "" if line is None else str(line))
    console.print(table)


@app.command()
def diff(
    a: Version,
    b: Version,
    manifest: Manifest = None,
    params: Params = None,
    *,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Tell what differs between two releases: parts, tracks and metrics. `mulan compare` says which metrics stand.

    Example: mulan release diff champion candidate
    """
    from flows.pipeline.lineage import compare_releases

    _, workspace, registry = look(manifest, catalogue, params)
    comparison = compare_releases(a, b, workspace, registry)
    if as_json:
        print_json(comparison)
        return
    table = Table("", comparison["a"], comparison["b"], title=f"Release {comparison['a']} -> {comparison['b']}")
    for part, values in comparison["parts"].items():
        table.add_row(part, *(str(value or "") for value in values))
    for name, values in comparison["metrics"].items():
        table.add_row(name, *("" if value is None else f"{value:.3f}" for value in values))
    console.print(table)
    for change, ids in comparison["tracks"].items():
        if change == "unknown":
            console.print(f"tracks: unknown, {ids}")
        else:
            such = f": {', '.join(ids[:MAX_SHOWN])}{' ...' if len(ids) > MAX_SHOWN else ''}" if ids else ""
            console.print(f"tracks {change}: {len(ids):,}{such}")


@app.command()
def promote(
    version: Version,
    manifest: Manifest = None,
    params: Params = None,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Make a release that the gate passed champion, and switch the endpoint to it if one runs.

    Example: mulan release promote 4
    """
    asked = manifest_of(manifest, catalogue)
    done = _run("promote", asked, params, lambda models: models.check_gate(version), version=version)
    _show_switch(done, as_json=as_json)


@app.command()
def rollback(
    manifest: Manifest = None, params: Params = None, catalogue: CatalogueName = None, as_json: AsJson = False
) -> None:
    """Go back to the champion before this one, in the registry and on the endpoint if one runs.

    Example: mulan release rollback
    """
    done = _run("rollback", manifest_of(manifest, catalogue), params, lambda models: models.champion_before())
    _show_switch(done, as_json=as_json)


@app.command()
def shadow(
    version: Annotated[str | None, typer.Argument(help="A version whose collection is built.")] = None,
    *,
    share: Annotated[float, number(Share, "Share of the searches.")] = 0.1,
    stop: Annotated[bool, typer.Option("--stop", help="Stop it.")] = False,
    manifest: Manifest = None,
    params: Params = None,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Have a candidate answer a share of the searches too, unseen; /metrics compares answers and times.

    Example: mulan release shadow 4 --share 0.1
    """
    if (version is None) != stop:
        raise UserError("give either a version to try, or --stop")
    asked = manifest_of(manifest, catalogue)
    done = _run("shadow", asked, params, lambda models: version and models.find(version), version=version, share=share)
    if as_json:
        print_json(done)
    elif done["shadow"]:
        which = f"version {done['shadow']['model_version']} answers {share:.0%} of the searches too"
        console.print(f"{which}; see mulan_shadow_* at {done['url']}/metrics")
    else:
        console.print(f"version {done['release']['model_version']} answers alone")


@app.command()
def prune(
    keep: Annotated[int, number(CountOrNone, "Champions before this one whose collections stay.")] = 2,
    manifest: Manifest = None,
    params: Params = None,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Drop the collections of releases that nobody goes back to; models and reports stay.

    Example: mulan release prune --keep 2
    """
    done = _run("prune", manifest_of(manifest, catalogue), params, lambda models: models.find("champion"), keep=keep)
    if as_json:
        print_json(done)
        return
    for what, names in done.items():
        console.print(f"{what}: {', '.join(names) or 'none'}")


def _run(name: str, manifest: str | None, params: str | None, check: Callable[[Registry], object], **more: Any) -> Any:
    """Run a flow; what ``check`` refuses, by the registry alone, is refused before anything is started."""
    from importlib import import_module

    from flows.runtime.session import open_session

    if (registry := _settled_registry(manifest)) is not None:
        check(registry)
    with open_session(manifest, None, params, ahead="flows.pipeline.release"):
        return getattr(import_module("flows.pipeline.release"), name)(manifest, params, **more)


def _settled_registry(manifest: str | None) -> Registry | None:
    """The models of a workspace as the flow will find them; None where it changes them first.

    It gives the catalogues of a home of an earlier version models of their own, and ends a switch that was cut off.
    """
    from flows.registry import Registry
    from flows.runtime.catalogues import find_catalogue, has_records
    from flows.runtime.journal import unfinished_switch
    from flows.runtime.settings import read_settings
    from flows.runtime.workspace import find_workspace

    settings = read_settings()
    if not has_records(settings.home):
        return None
    catalogue = find_catalogue(settings.home, find_workspace(settings.home, manifest=manifest).folder)
    return None if unfinished_switch(settings.home, catalogue) else Registry.of(settings, catalogue)


def _show_switch(done: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    release = done["release"]
    console.print(f"champion: version {release['model_version']} ({release['collection']})")
    show_edits(done["edits"])
    console.print(served_words(done))

"""The commands that set models beside each other: ``ablate``, ``tune`` and ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.catalogue import CatalogueName, models_of
from flows.cli.reporting import AsJson, print_json, show_comparison
from flows.cli.stages import Manifest, Params, Playlists, arguments_of, run_flow
from flows.runtime.numbers import number
from flows.runtime.terminal import console
from mulan_core.config import Runs

Measured = "champion, candidate, a version, or a folder that `mulan evaluate --out` wrote."


def ablate(
    rows: Annotated[
        str | None,
        typer.Option(help="Rows to run, separated by commas: the paper's or your own. Default: params.yaml."),
    ] = None,
    seeds: Annotated[int | None, number(Runs, "Runs of each row. Default: params.yaml.")] = None,
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    *,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Train and evaluate each set of text sources with several seeds, and say which differences stand.

    Started again after a kill it goes on with what is missing.

    Example: mulan ablate --rows aset,all --seeds 3
    """
    from flows.cli.reporting import show_study

    names = [name.strip() for name in rows.split(",")] if rows else None
    result = run_flow("ablate", arguments_of(manifest, playlists, params, catalogue), rows=names, seeds=seeds)
    if as_json:
        print_json(result)
    else:
        show_study(result)


def tune(
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Search the hyper-parameters of tune.space in params.yaml, judged on the validation split.

    Started again after a kill it goes on with what is missing.

    Example: mulan tune
    """
    from flows.cli.reporting import show_search

    result = run_flow("tune", arguments_of(manifest, playlists, params, catalogue))
    if as_json:
        print_json(result)
    else:
        show_search(result)


def compare(
    a: Annotated[str, typer.Argument(help=f"The model that stands: {Measured}")],
    b: Annotated[str, typer.Argument(help="The model that is held against it, named in the same way.")],
    on: Annotated[str | None, typer.Option("--on", help="The set. Default: the folder's, else your own.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for compare.md, compare.html and compare.json.")] = None,
    *,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Compare two evaluated models: every metric, its difference with a paired interval, and which differences stand.

    Example: mulan compare champion candidate --out comparison
    """
    from flows.pipeline.compare import compare_named
    from mulan_core.evaluation.compare_report import write_comparison

    comparison = compare_named(a, b, models_of(catalogue), on=on)
    if out is not None:
        write_comparison(comparison, out)
    if as_json:
        print_json(comparison.as_mapping())
        return
    show_comparison(comparison)
    if out is not None:
        console.print(f"the page: {out / 'compare.html'}")

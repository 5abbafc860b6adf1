"""The command ``mulan compare``: two models on one set, on the same resamples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.reporting import AsJson, console, print_json, show_comparison

Measured = "champion, candidate, a version, or a folder that `mulan evaluate --out` wrote."


def compare(
    a: Annotated[str, typer.Argument(help=f"The model that stands: {Measured}")],
    b: Annotated[str, typer.Argument(help="The model that is held against it, named in the same way.")],
    on: Annotated[str | None, typer.Option("--on", help="The set. Default: the folder's, else your own.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for compare.md, compare.html and compare.json.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two evaluated models: every metric, its difference with a paired interval, and which differences stand.

    Example: mulan compare champion candidate --out comparison
    """
    from flows.settings import read_settings
    from flows.steps.compare import compare_named
    from mulan_core.evaluation.compare_report import write_comparison

    found = compare_named(a, b, on=on, mlflow_uri=read_settings().mlflow_uri)
    if out is not None:
        write_comparison(found, out)
    if as_json:
        print_json(found.as_mapping())
        return
    show_comparison(found)
    if out is not None:
        console.print(f"the page: {out / 'compare.html'}", highlight=False, soft_wrap=True)

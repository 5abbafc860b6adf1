"""The commands ``mulan data``: look at a catalogue before work starts, read public data sets, compare versions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Catalogues and data sets: check, list, import, diff.", no_args_is_help=True)


@app.command()
def check(
    manifest: Annotated[str, typer.Argument(help="A table of tracks or a folder of audio, by path or URL.")],
    params: Annotated[Path | None, typer.Option(help="Numbers. Default: configs/own.yaml.")] = None,
    allow_outside: Annotated[bool, typer.Option("--allow-outside", help="Take files outside its folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every row and file.")] = False,
) -> None:
    """Tell what prepare would say of a manifest, without decoding: exit code 1 if any row or file is bad.

    Example: mulan data check tracks.csv
    """
    from flows.progress import bar, quiet_libraries
    from flows.reporting import show_check
    from flows.workspace import PROJECT
    from mulan_core.config import load_config
    from mulan_core.data.check import check_manifest

    config = load_config(params or PROJECT / "configs" / "own.yaml").prepare
    with quiet_libraries(), bar("check") as update:
        report = check_manifest(manifest, config, allow_outside=allow_outside or config.allow_outside, progress=update)
    if as_json:
        json.dump(report, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        show_check(report)
    if report["bad_rows"] or report["bad_files"]:
        raise typer.Exit(1)

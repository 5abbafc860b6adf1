"""The commands ``mulan data``: look at a catalogue before work starts, read public data sets, compare versions."""

from __future__ import annotations

import typer

app = typer.Typer(help="Catalogues and data sets: check, list, import, diff.", no_args_is_help=True)

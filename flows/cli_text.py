"""The commands ``mulan text``: label lines, train the classifier that filters LF text, report what filters do."""

from __future__ import annotations

import typer

app = typer.Typer(help="Text mining: label, train, report.", no_args_is_help=True)

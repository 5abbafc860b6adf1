"""``mulan feedback``: what people asked and chose, as an evaluation set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.catalogue import CatalogueName, chosen
from flows.cli.reporting import AsJson, print_json
from flows.runtime.numbers import Count, number
from flows.runtime.settings import read_settings
from flows.runtime.terminal import console
from mulan_core.counts import counted
from mulan_core.errors import UserError

app = typer.Typer(help="The query log: what people asked, and what they chose of the answers.", no_args_is_help=True)


@app.callback()
def feedback() -> None:
    """The query log: what people asked, and what they chose of the answers."""


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Table of playlists to write, .jsonl.")],
    log: Annotated[
        Path | None, typer.Option(help="Folder of the query log. Default: that of the catalogue's endpoint.")
    ] = None,
    catalogue: CatalogueName = None,
    least: Annotated[int, number(Count, "How often a track must have been chosen for a query.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Write each query with the tracks chosen for it as a playlist, to be evaluated or trained on.

    Example: mulan feedback export queries.jsonl
    """
    from serving.query_log import read_query_log
    from serving.query_log_export import to_playlists  # their errors' FastAPI would cost each command half its start

    folder = log or chosen(catalogue).query_log(read_settings().home)
    if not folder.is_dir():
        raise UserError(f"there is no query log in {folder}; set serve.query_log to full and serve")
    if out.suffix != ".jsonl":
        raise UserError(f"{out} is no .jsonl; playlists are written as JSON lines")
    rows, counts = to_playlists(read_query_log(folder), least=least)
    try:
        out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    if as_json:
        print_json({"playlists": len(rows), **counts})
        return
    console.print(
        f"{counted(len(rows), 'query', 'queries')} in {out}, from {counts['used']:,} of "
        f"{counted(counts['choices'], 'choice')} "
        f"({counts['unseen']:,} not among the hits, {counts['other']:,} not of one text)",
    )

"""The commands that ask the endpoint: ``mulan search``, ``tag`` and ``embed``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.catalogue import CatalogueName, endpoint_of
from flows.cli.reporting import AsJson, print_json
from flows.runtime.numbers import number
from flows.runtime.settings import read_settings
from flows.runtime.terminal import Table, console
from mulan_core.errors import UserError
from mulan_core.files import why_no_file
from mulan_core.ranges import Range

if TYPE_CHECKING:
    from serving.client import MulanClient


HowMany = Annotated[int, Range(ge=1, le=100)]
Skipped = Annotated[int, Range(ge=0, lt=1_000)]


def search(
    text: Annotated[str, typer.Argument(help="What to look for, in words.")],
    k: Annotated[int, number(HowMany, "How many tracks.")] = 10,
    away_from: Annotated[str | None, typer.Option("--not", help="What they should be away from, in words.")] = None,
    offset: Annotated[int, number(Skipped, "How many of the best to skip, for the next page.")] = 0,
    *,
    url: Annotated[
        str | None, typer.Option(help="The endpoint. Default: MULAN_URL, or the one on this machine.")
    ] = None,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Ask the endpoint for tracks; MULAN_KEY is the API key, where it wants one.

    Example: mulan search "piano" --not "sad" --k 5
    """
    from flows.cli.reporting import show_hits

    answer = _client(url, catalogue).search_text(text, k=k, offset=offset, negative_text=away_from)
    if as_json:
        print_json(answer)
    else:
        show_hits(text, answer)


def tag(
    file: Annotated[Path, typer.Argument(help="An audio file.")],
    labels: Annotated[str | None, typer.Option(help="Labels to choose from, separated by commas.")] = None,
    url: Annotated[str | None, typer.Option(help="The endpoint.")] = None,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Ask the endpoint which labels fit an audio file.

    Example: mulan tag song.mp3 --labels "jazz,techno,piano"
    """
    _must_exist(file)
    answer = _client(url, catalogue).tag(audio=file, labels=labels.split(",") if labels else None)
    if as_json:
        print_json(answer)
        return
    table = Table("label", "score", title=str(file))
    for item in answer["labels"][:15]:
        table.add_row(item["label"], f"{item['score']:.3f}")
    console.print(table)


def embed(
    what: Annotated[str, typer.Argument(help="An audio file, or a text.")],
    url: Annotated[str | None, typer.Option(help="The endpoint.")] = None,
    catalogue: CatalogueName = None,
) -> None:
    """Print the vector of an audio file or a text as JSON.

    Example: mulan embed "calm piano"
    """
    path = Path(what)
    client = _client(url, catalogue)
    print_json(client.embed(audio=path) if path.is_file() else client.embed(texts=[what]))


def _client(url: str | None, catalogue: str | None) -> MulanClient:
    from serving.client import MulanClient

    return MulanClient(endpoint_of(url, catalogue), key=read_settings().key)


def _must_exist(file: Path) -> None:
    if reason := why_no_file(file):
        raise UserError(reason)

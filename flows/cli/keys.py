"""``mulan keys``: who may ask the endpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.reporting import AsJson, print_json
from flows.runtime.numbers import number
from flows.runtime.settings import read_settings
from flows.runtime.terminal import Table, console, moment
from mulan_core.config import RatePerSecond
from serving.key import Scope
from serving.keys import KeyFile

app = typer.Typer(help="API keys of the endpoint: once there is one, nobody gets in without.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What you will know it by, such as the program that uses it.")],
    scope: Annotated[
        Scope, typer.Option(help="read: ask; write: also add and delete tracks; admin: also /metrics.")
    ] = "read",
    rate: Annotated[float | None, number(RatePerSecond, "Requests a second. Default: serve.rate_per_s.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once: the file keeps a hash.

    Example: mulan keys create website --scope read
    """
    keys = KeyFile(read_settings().keys_file)
    secret, key = keys.create(name, scope, rate_per_s=rate)
    if as_json:
        print_json({"key": secret} | key.about())
        return
    console.print(secret)
    console.print(
        f"for {scope}, by the name {name!r}. It is shown this once; give it as MULAN_KEY, or as the header "
        "Authorization: Bearer KEY",
    )


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys, without their secrets.

    Example: mulan keys list
    """
    keys = [key.about() for key in KeyFile(read_settings().keys_file).list()]
    if as_json:
        print_json(keys)
        return
    table = Table("id", "name", "scope", "rate", "made", "revoked")
    for key in keys:
        table.add_row(
            *(
                moment(str(key[column] or ""))
                for column in ("key_id", "name", "scope", "rate_per_s", "created_at", "revoked_at")
            )
        )
    console.print(table)


@app.command()
def revoke(which: Annotated[str, typer.Argument(help="Id or name of the key.")]) -> None:
    """End a key; a running endpoint refuses it within a second.

    Example: mulan keys revoke website
    """
    key = KeyFile(read_settings().keys_file).revoke(which)
    console.print(f"revoked {key.key_id} ({key.name})")


@app.command()
def reset() -> None:
    """Start anew where the file of keys is gone for good: without this, nobody gets in until it is back.

    Example: mulan keys reset
    """
    keys = KeyFile(read_settings().keys_file)
    keys.reset()
    console.print(
        f"there are no keys in {keys.path}; an endpoint that runs stays closed until there is one or you start it anew"
    )

"""``mulan status``: runs, champion, what is served, and what does not agree."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from flows.reporting import AsJson, console, print_json
from flows.settings import read_settings


def status(as_json: AsJson = False) -> None:
    """Show the latest trainings, champion and candidate, what the endpoint serves, and what does not agree.

    Example: mulan status
    """
    from flows.steps.status import find_status

    found = find_status(read_settings())
    if as_json:
        print_json(found)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    stack, endpoint = found["stack"], found["endpoint"]
    table.add_row("running", f"process {stack['pid']} since {stack['started']}" if stack else "nothing of this home")
    table.add_row("champion", _version(found["champion"]) or "none yet: `mulan run` makes one")
    table.add_row("candidate", _version(found["candidate"]) or "none")
    served = (
        endpoint and f"version {endpoint['model_version']}, {endpoint['num_tracks']:,} tracks, at {endpoint['url']}"
    )
    table.add_row("served", served or "nothing answers; `mulan serve` would")
    for run in found["runs"]:
        where = f"step {run['step']:,}, loss {run['loss']:.3f}" if run["step"] else "no step yet"
        table.add_row(run["kind"], f"{run['started'][:16]}  {run['status']}, {where}  {run['run_id']}")
    for sentence in found["differences"]:
        table.add_row("[yellow]look[/yellow]", escape(sentence))
    console.print(table)


def _version(one: dict[str, Any] | None) -> str | None:
    if one is None:
        return None
    return (
        f"version {one['version']}, gate {one['gate']}, {one['collection'] or 'no collection'}, made {one['created']}"
    )

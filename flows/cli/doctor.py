"""``mulan doctor``: is the machine fit, does every address answer, and what to do where not."""

from __future__ import annotations

from dataclasses import asdict

import typer

from flows.cli.reporting import AsJson, print_json
from flows.runtime.settings import read_settings
from flows.runtime.terminal import Table, console, words

MARKS = {"ok": ("ok", "green"), "warning": ("look", "yellow"), "failure": ("wrong", "red")}


def doctor(as_json: AsJson = False) -> None:
    """Look at the machine and at every configured address; say what to do. Exit code 1 where something is wrong.

    Example: mulan doctor
    """
    from flows.doctor import examine

    findings = examine(read_settings())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table("", "what", "found", box=None, pad_edge=False)
        for finding in findings:
            todo = ("\n", ("->", "bold"), f" {finding.todo}") if finding.todo else ()
            table.add_row(words(MARKS[finding.level]), finding.check, words(finding.said, *todo))
        console.print(table)
    if any(finding.level == "failure" for finding in findings):
        raise typer.Exit(1)

"""How the help shows options: a flag by its names alone, others by what they take, in the words of ``numbers``."""

from __future__ import annotations

from typing import Any

import typer

KINDS = {"str": "TEXT", "path": "PATH", "list[str]": "TEXT, more than once"}
"""What typer calls a type, and what the help does."""


def command_of(app: typer.Typer) -> Any:
    """The command of an app, with its help as we have it."""
    command = typer.main.get_command(app)
    _name_options(command)
    return command


def _name_options(command: Any) -> None:
    for param in command.get_params(command.context_class(command)):  # with --help, which it keeps once it is made
        if param.param_type_name == "option" and param.metavar is None:
            kind = param.display_type(None).strip("<>")
            param.metavar = "" if param.is_flag else KINDS.get(kind, kind)
    for under in getattr(command, "commands", {}).values():
        _name_options(under)

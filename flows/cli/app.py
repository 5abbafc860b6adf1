"""The command ``mulan``: thin over flows and the endpoint's client.

Exit codes: 0 done; 1 done, but the answer is no (the gate refused, a check query failed); 2 a mistake of
the user or a server that is away, told in one sentence without a traceback; 130, 143, 129 ended by Ctrl-C, SIGTERM or a
closed terminal (flows/runtime/ending.py).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from flows.cli import catalogue as cli_catalogue
from flows.cli import data as cli_data
from flows.cli import doctor as cli_doctor
from flows.cli import dvc_stage as cli_stage
from flows.cli import estimate as cli_estimate
from flows.cli import export as cli_export
from flows.cli import feedback as cli_feedback
from flows.cli import keys as cli_keys
from flows.cli import query as cli_query
from flows.cli import release as cli_release
from flows.cli import stages as cli_flow
from flows.cli import status as cli_status
from flows.cli import study as cli_study
from flows.cli import text as cli_text
from flows.cli import versions as cli_versions
from flows.cli.help import command_of
from flows.runtime import ending
from flows.runtime.damage import damage_behind, folders_of
from flows.runtime.project import VERSION, code_version
from flows.runtime.settings import read_settings
from flows.runtime.terminal import console, end_quietly, errors, open_outputs, words
from mulan_core.errors import UserError
from serving.loopback import keep_loopback_direct

FULL_BYTES = 32 * 2**20
"""With less left than this, a disk counts as full: what failed on it has been cleaned away by the time we look."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command(hidden=True)(cli_stage.stage)
app.add_typer(cli_release.app, name="release")
app.add_typer(cli_catalogue.app, name="catalogue")
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_text.app, name="text")
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_feedback.app, name="feedback")
cli_data.app.command()(cli_versions.diff)
cli_data.app.command()(cli_versions.pull)


@app.callback(invoke_without_command=True)
def about(
    shown: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    """Search a music catalogue by meaning: prepare, train, evaluate, index, serve, search."""
    if shown:
        console.print(VERSION if (code := code_version()) == VERSION else f"{VERSION} ({code})")
        raise typer.Exit


def main() -> None:
    """Run the command; the console script's entry is ``flows.cli.start``, which comes here."""
    try:
        ending.watch()
        open_outputs()
        for sentence in keep_loopback_direct():
            errors.print(words(("mulan:", "yellow"), f" {sentence}"))
        read_settings()  # sets quiet defaults, which count only before the libraries are imported
        code = command_of(app)(prog_name="mulan", standalone_mode=False)  # typer returns the code of an Exit
    except BaseException as error:
        ending.end_if_signalled()  # whatever a library has made of the interrupt
        if not isinstance(error, Exception):
            raise
        _tell(error)
    ending.end_if_signalled()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        end_quietly()
    sys.exit(code or 0)


def _tell(error: Exception) -> NoReturn:
    """Say what went wrong, in one sentence wherever that can be."""
    if isinstance(error, UserError):
        _fail(str(error))
    if isinstance(error, typer.Abort):  # a question that was answered by the end of the input
        _fail("stopped", code=130)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    if hasattr(error, "format_message"):  # click's usage errors
        _fail(_usage(error))
    if os.environ.get("MULAN_DEBUG"):
        raise error
    cause = _behind(error, UserError) or damage_behind(error, folders_of(read_settings().home))
    if cause:
        _fail(str(cause))
    _fail(f"unexpected {type(error).__name__}: {error} (set MULAN_DEBUG=1 for the traceback)", code=1)


def _usage(error: Any) -> str:
    """Click's error as one sentence, with the command whose help says more."""
    message = " ".join(error.format_message().split()).rstrip(".")
    message = re.sub(r"Input should be a valid integer.*", "it must be a whole number", message)
    message = re.sub(r"Input should be a valid number.*", "it must be a number", message)
    context = getattr(error, "ctx", None)
    return f"{message}; see {context.command_path} --help" if context else message


def _fail(sentence: str, code: int = 2) -> NoReturn:
    sentence += _of_a_full_disk()
    errors.print(words(("mulan:", "red"), " " + sentence.replace("\n", " ")))
    sys.exit(code)


def _of_a_full_disk() -> str:
    """What errors do not say of themselves: SQLite, Ray and MLflow each have words of their own for a full disk."""
    home = read_settings().home
    with suppress(OSError):
        if shutil.disk_usage(home).free < FULL_BYTES:
            return f"; the disk of {home} is full: free some of it and run this again, it goes on where it stopped"
    return ""


def _behind(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """Find an exception of a kind, such as the sentence for the user, behind what Ray or Prefect wrapped round it."""
    while error is not None:
        if isinstance(error, kind):
            return error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return None


# The help lists commands in this order: the path first, then what asks and looks back.
for command in (
    cli_flow.demo,
    cli_flow.run,
    cli_flow.prepare,
    cli_flow.train,
    cli_flow.evaluate,
    cli_flow.index,
    cli_study.ablate,
    cli_study.tune,
    cli_flow.serve,
    cli_export.export,
    cli_query.search,
    cli_query.tag,
    cli_query.embed,
    cli_study.compare,
    cli_versions.lineage,
    cli_status.status,
    cli_status.ui,
    cli_estimate.estimate,
    cli_doctor.doctor,
):
    app.command()(command)


if __name__ == "__main__":
    main()

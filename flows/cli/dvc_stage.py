"""``mulan stage``, as DVC calls the stages of ``dvc.yaml``; our own flows run them without a process."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from flows.runtime import ending
from serving.supervised_process import die_with_parent


def stage(
    name: Annotated[str, typer.Argument(help="corpus, judge, text, prepare or set.")],
    key: Annotated[str | None, typer.Argument(help="The evaluation set, for set.")] = None,
) -> None:
    """Run a stage of the working folder's dvc.yaml, as DVC does."""
    die_with_parent(signal.SIGINT)  # to SIGTERM Ray answers with a dump of its stack
    ending.be_quiet()
    from flows.pipeline.data import run_stage
    from flows.runtime.workspace import Workspace

    run_stage(Workspace(Path.cwd()), name, key)

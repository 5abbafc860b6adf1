"""What libraries say of themselves: into ``mulan.log`` of the home, so that the screen has our words alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from flows.runtime.settings import read_settings

NAME = "mulan.log"
PROCESS = "mulan.library_log"


def log_warnings() -> None:
    """Have Python's warnings, and what libraries log without a handler of their own, written there; once a process."""
    warnings, root = logging.getLogger("py.warnings"), logging.getLogger()
    if any(handler.name == PROCESS for handler in warnings.handlers):
        return
    handler = logging.FileHandler(_path(), encoding="utf-8", delay=True)
    handler.name = PROCESS
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    handler.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    warnings.addHandler(handler)
    warnings.propagate = False
    root.addHandler(handler)


@contextmanager
def into_log() -> Iterator[None]:
    """Send all that is written to stderr there, by C++ too; for calls that print what no setting of theirs silences."""
    real = os.dup(2)
    try:
        with _path().open("a", encoding="utf-8") as log, redirect_stderr(log):
            os.dup2(log.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(real, 2)
    finally:
        os.close(real)


def _path() -> Path:
    home = read_settings().home
    home.mkdir(parents=True, exist_ok=True)
    return home / NAME

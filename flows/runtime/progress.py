"""Progress of long work on the terminal: one bar a stage, plain lines where nobody watches."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flows.runtime.terminal import errors, visible

console = errors


@contextmanager
def bar(title: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show a bar; yields ``update(done, total=None, note="")``."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(visible(title), total=total, note="")

        def update(done: int, total: int | None = None, note: str = "") -> None:
            progress.update(task, completed=done, note=visible(note))
            if total is not None:
                progress.update(task, total=total)

        yield update


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what C libraries print off the terminal; mpg123 comments on every broken file. Ours still gets there."""
    ours = os.fdopen(os.dup(2), "w")
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        with redirect_stderr(ours):
            yield
    finally:
        os.dup2(ours.fileno(), 2)
        ours.close()
        os.close(null)


@contextmanager
def polled(poll: Callable[[], None], *, every_s: float = 2.0) -> Iterator[None]:
    """Call ``poll`` again and again in the background while the body works."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(every_s):
            poll()

    thread = threading.Thread(target=loop, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()

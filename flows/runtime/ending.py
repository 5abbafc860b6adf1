"""How a command ends before its time: by Ctrl-C, SIGTERM or a closed terminal, at any moment, with all it has started.

Python raises KeyboardInterrupt wherever the main thread happens to be, and libraries swallow it there: in a callback,
in an ``except BaseException``, by handlers of their own that nobody takes down. So a signal is noted below all
handlers, by the file descriptor that the interpreter writes it to, and a thread sees to it that the command does end:
it reminds the main thread, and where that does not end in time it ends the process and its children itself.

Nothing here is imported that takes long: it is the first thing that a command does.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import psutil

ENDED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDS_WITHIN_S = 7.0
"""Servers have this long to close their files; then they are killed, which they survive, too."""

_REMIND = signal.SIGUSR2
_REMIND_AFTER_S = (2.0, 3.5, 5.0)
"""Where nothing has begun to end by then, the first KeyboardInterrupt was swallowed."""
_LOOK_EVERY_S = 0.25
_KILLED_AFTER_S = 1.5
_PR_SET_CHILD_SUBREAPER = 36


class _State:
    """Of this process; there is one command in it."""

    def __init__(self) -> None:
        self.pipe: tuple[int, int] | None = None
        self.screen = 2
        self.signum: int | None = None
        self.since = 0.0
        self.has_raised = self.is_ending = False
        self.is_quiet = False
        self.leftovers: list[Path] = []
        self.descendants: set[psutil.Process] = set()
        self.noting, self.ending = threading.Lock(), threading.Lock()


_state = _State()


def watch() -> None:
    """See to it that this command ends when it is told to; the main thread's first act. May be called twice.

    Call it inside a ``try`` whose handler calls ``end_if_signalled``: a signal may come before this returns.
    """
    if _state.pipe is not None:
        return
    with suppress(OSError):
        _state.screen = os.dup(2)  # 2 may be sent to a log by the time it is needed
    _state.pipe = os.pipe()
    for end in _state.pipe:
        os.set_blocking(end, False)
    signal.set_wakeup_fd(_state.pipe[1], warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_forget)
    sys.unraisablehook = _say_nothing_of_interrupts
    threading.Thread(target=_see_to_it, args=_state.pipe[:1], daemon=True, name="ending").start()
    _take_signals()


def take_back() -> None:
    """Have signals come to us again, after a library that handles them in C has been started, as Ray's does."""
    if _state.pipe is not None and threading.current_thread() is threading.main_thread():
        _take_signals()


def signalled() -> bool:
    """Whether the command has been told to end."""
    _note()
    return _state.signum is not None


def check() -> None:
    """End here if the command has been told to and that was swallowed: between stages, in loops that wait.

    Raises:
        KeyboardInterrupt: if so.
    """
    if signalled() and not _state.is_ending:
        _state.has_raised = True
        raise KeyboardInterrupt


@contextmanager
def shielded() -> Iterator[None]:
    """Clean up without being interrupted: a signal is noted, and its time runs."""
    before, _state.is_ending = _state.is_ending, True
    try:
        yield
    finally:
        _state.is_ending = before or signalled()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let the body, of milliseconds, come to its end: a file that is written in place would be cut off.

    Raises:
        KeyboardInterrupt: after it, if a signal came meanwhile.
    """
    before, _state.is_ending = _state.is_ending, True
    try:
        yield
    finally:
        _state.is_ending = before
    check()


def remove_at_end(path: Path) -> None:
    """Have a file removed even where the command has to be ended hard."""
    _state.leftovers.append(path)


def be_quiet() -> None:
    """Say nothing when ended: whoever started this command says it."""
    _state.is_quiet = True


def end_if_signalled() -> None:
    """End the process if it has been told to, whatever became of the exception; returns if not."""
    if signalled():
        _end()


def _interrupt(signum: int, _: Any) -> None:
    if _state.is_ending or (_state.has_raised and signum != _REMIND):
        return  # a second Ctrl-C would only disturb the first
    _state.has_raised = True
    raise KeyboardInterrupt


def _take_signals() -> None:
    for signum in (*ENDED_BY, _REMIND):
        if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _interrupt)  # nohup's commands outlive the terminal


def _say_nothing_of_interrupts(unraisable: Any) -> None:
    """Python tells with a traceback of what it cannot raise, as in a finaliser; we are about to end anyway."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _forget() -> None:
    """A forked child is no command; its signals are not ours."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGHUP, _REMIND):
        if signal.getsignal(signum) is _interrupt:
            signal.signal(signum, signal.SIG_DFL)


def _note() -> None:
    """Read which signals have come."""
    if _state.pipe is None:
        return
    with _state.noting, suppress(BlockingIOError):
        while came := os.read(_state.pipe[0], 64):
            for signum in came:
                if _state.signum is None and signum in ENDED_BY:
                    _state.signum, _state.since = signum, time.monotonic()


def _see_to_it(pipe: int) -> None:
    while _state.signum is None:
        select.select([pipe], [], [])
        _note()
    _adopt_orphans()
    reminders = list(_REMIND_AFTER_S)
    while (passed := time.monotonic() - _state.since) < ENDS_WITHIN_S:
        _look()
        if reminders and passed >= reminders[0]:
            reminders.pop(0)
            if not _state.is_ending:
                signal.pthread_kill(threading.main_thread().ident, _REMIND)  # type: ignore[arg-type]  # it has started
        time.sleep(_LOOK_EVERY_S)
    _end()


def _adopt_orphans() -> None:
    """Have the kernel give us the children of a child that dies, such as a stage's when DVC is killed; Linux only."""
    import ctypes

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _look() -> None:
    """Note who belongs to us; elsewhere than on Linux an orphan is nobody's any more."""
    import psutil

    with suppress(psutil.Error):
        _state.descendants.update(psutil.Process().children(recursive=True))


def _end() -> NoReturn:
    _state.is_ending = True
    if not _state.ending.acquire(blocking=False):
        time.sleep(2 * ENDS_WITHIN_S)  # the other thread is at it
    _kill()
    for path in _state.leftovers:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    if not _state.is_quiet:
        with suppress(OSError):
            os.write(_state.screen, b"mulan: stopped\n")
    with suppress(Exception):
        sys.stdout.flush()
    # Libraries' exit hooks have nothing left to do, and could wait for ever for what is gone.
    os._exit(128 + (_state.signum or signal.SIGINT))


def _kill() -> None:
    import psutil

    # Not SIGTERM first: whatever is connected to Ray answers that with a dump of its stack.
    for how, patience_s in ((signal.SIGINT, _KILLED_AFTER_S), (signal.SIGKILL, 1.0)):
        _look()
        left = [process for process in _state.descendants if _runs(process)]
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(how)
        deadline = time.monotonic() + patience_s
        while any(map(_runs, left)) and time.monotonic() < deadline:
            time.sleep(0.05)


def _runs(process: psutil.Process) -> bool:
    import psutil

    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False

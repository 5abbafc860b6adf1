"""Servers of ours as child processes: started, waited for, and never left behind."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mulan_core.errors import UserError

_PR_SET_PDEATHSIG = 1
_PAUSE_S = 1.0
"""Before a server that ended is started again."""

logger = logging.getLogger("mulan.serving")
# Opened before the fork: a child may not load libraries. Other systems than Linux have no such signal.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class SupervisedProcess:
    """A running server that ends when this process does.

    It is in a session of its own, so Ctrl-C in the terminal reaches us first, and the kernel ends it when
    this process dies, however it dies.

    Args:
        name: what errors call it.
        command: program and arguments.
        log_path: file to which its words are added; its folder is made.
        env: variables beside our own.
        reasons: words in its log -> the sentence that explains why it ended.
        restart: start it again when it ends, however often, once it has answered.

    Raises:
        UserError: if the program cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        reasons: Mapping[str, str] | None = None,
        restart: bool = False,
    ) -> None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self._name, self._log_path, self._reasons = name, log_path, reasons or {}
        self._log_start = log_path.stat().st_size if log_path.exists() else 0
        self._command, self._env = command, os.environ | {"PYTHONUNBUFFERED": "1"} | dict(env or {})
        self._restart, self._has_answered = restart, False
        self._stopping, self._starting = threading.Event(), threading.Lock()
        self._spawn()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def _spawn(self) -> None:
        """Start from a thread that lives as long as the child.

        The kernel's death signal fires when the *thread* that forked ends, not the process, and a caller
        may well sit in a short-lived worker thread.
        """
        ready = threading.Event()
        failed: list[BaseException] = []

        def own() -> None:
            try:
                self._process = self._start()
            except BaseException as error:
                failed.append(error)
                return
            finally:
                ready.set()
            self._keep()

        threading.Thread(target=own, name=self._name, daemon=True).start()
        ready.wait()
        if failed:
            raise UserError(f"cannot start {self._command[0]}: {failed[0]}") from failed[0]

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_prepare,  # noqa: PLW1509 - only a prctl and a signal reset in there
                env=self._env,
            )

    def _keep(self) -> None:
        """Return when it has ended for good."""
        while True:
            status = self._process.wait()
            if not (self._restart and self._has_answered) or self._stopping.wait(_PAUSE_S):
                return
            logger.warning("%s ended (%d) and is started again; see %s", self._name, status, self._log_path)
            with self._starting:
                if self._stopping.is_set():
                    return
                self._process = self._start()

    def wait_until(self, answers: Callable[[], bool], *, timeout_s: float) -> None:
        """Return once it answers; stop it if it does not.

        Raises:
            UserError: if it ends, or does not answer in time.
        """
        try:
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline:
                if self._process.poll() is not None:
                    raise UserError(self._why_it_ended())
                if answers():
                    self._has_answered = True
                    return
                time.sleep(0.1)
            raise UserError(f"{self._name} did not answer within {timeout_s:.0f} s; see {self._log_path}")
        except BaseException:
            self.stop()
            raise

    def _why_it_ended(self) -> str:
        words = self._log_path.read_bytes()[self._log_start :].decode(errors="replace").strip()
        for mark, sentence in self._reasons.items():
            if mark in words:
                return sentence
        last = words.splitlines()[-1] if words else "no message"
        return f"{self._name} ended as it started ({last}); see {self._log_path}"

    def begin_stop(self) -> None:
        """Ask it to end, and do not wait: ``stop`` does. Several end at once so."""
        with self._starting:
            if not self._stopping.is_set():
                self._stopping.set()
                # SIGINT first: Milvus Lite closes its files on that one only. Both servers survive the harder ways.
                self._process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """Stop it; returns when the process is gone. May be called twice."""
        self.begin_stop()
        for how, patience_s in ((None, 8), (signal.SIGTERM, 3), (signal.SIGKILL, None)):
            if how:
                self._process.send_signal(how)
            try:
                self._process.wait(patience_s)
                return
            except subprocess.TimeoutExpired:
                continue


def die_with_parent(how: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel end this process when its parent ends; for a ``preexec_fn``, or a child's first act.

    Linux only: elsewhere a child outlives a parent that is killed outright.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, how)


def _prepare() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a parent started in the background would pass on "ignore"

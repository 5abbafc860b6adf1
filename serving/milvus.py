"""A Milvus Lite server as a child process: started, waited for, and never left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import grpc

from mulan_core.errors import UserError
from serving.ports import check_port_free, free_port

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # opened before the fork: a child may not load libraries


class MilvusServer:
    """``milvus-lite server`` over one folder; a context manager.

    One process may have a folder open at a time. The server is in a session of its own, so Ctrl-C in the
    terminal reaches us first, and the kernel ends it when this process dies, however it dies.

    Args:
        data_dir: the folder of the data; made if it is not there.
        host: address to bind. Lite knows no passwords, so keep it on loopback.
        port: 0 takes a free one.
        log_path: where the server's words go; default ``data_dir`` + ``.log``.
        start_timeout_s: how long it may take to answer.
    """

    def __init__(
        self,
        data_dir: str | Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        log_path: str | Path | None = None,
        start_timeout_s: float = 90.0,
    ) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.log_path = Path(log_path) if log_path else self.data_dir.with_name(self.data_dir.name + ".log")
        self._host, self._port = host, port
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def uri(self) -> str:
        """Where clients find it."""
        return f"http://{self._host}:{self._port}"

    @property
    def pid(self) -> int | None:
        """Process id, or None while it does not run."""
        return self._process.pid if self._process else None

    def __enter__(self) -> MilvusServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            UserError: if the port is taken, the folder is in use, or the program is missing or fails.
        """
        program = Path(sys.executable).with_name("milvus-lite")
        if not program.is_file():
            raise UserError(f"there is no {program}; install MuLan's dependencies (pip install milvus-lite)")
        self._port = self._port or free_port(self._host)
        check_port_free(self._host, self._port)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        command = [str(program), "server", "--data-dir", str(self.data_dir)]
        self._process = self._spawn([*command, "--host", self._host, "--port", str(self._port)])
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start the child from a thread that lives as long as the child.

        The kernel's death signal fires when the *thread* that forked ends, not the process, and a caller
        may well sit in a short-lived worker thread.
        """
        started: list[subprocess.Popen[bytes]] = []
        failed: list[BaseException] = []
        ready = threading.Event()

        def own() -> None:
            try:
                with self.log_path.open("ab") as log:
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        preexec_fn=_die_with_parent,  # noqa: PLW1509 - only a prctl and a signal reset in there
                        env=os.environ | {"PYTHONUNBUFFERED": "1"},
                    )
            except BaseException as error:
                failed.append(error)
                ready.set()
                return
            started.append(process)
            ready.set()
            process.wait()

        threading.Thread(target=own, name="milvus-lite", daemon=True).start()
        ready.wait()
        if failed:
            raise UserError(f"cannot start {command[0]}: {failed[0]}") from failed[0]
        return started[0]

    def _wait(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        process = self._process
        while process is not None and time.monotonic() < deadline:
            if process.poll() is not None:
                raise UserError(self._why_it_ended())
            if _answers(self._host, self._port):
                return
            time.sleep(0.1)
        raise UserError(f"Milvus Lite did not answer within {self._start_timeout_s:.0f} s; see {self.log_path}")

    def _why_it_ended(self) -> str:
        words = self.log_path.read_bytes()[self._log_start :].decode(errors="replace").strip()
        if "DataDirLockedError" in words:
            return f"the Milvus folder {self.data_dir} is in use by another process; stop that one first"
        last = words.splitlines()[-1] if words else "no message"
        return f"Milvus Lite ended as it started ({last}); see {self.log_path}"

    def stop(self) -> None:
        """Stop the server; returns when the process is gone. May be called twice."""
        if self._process is None:
            return
        # Lite closes its files on SIGINT only; after that the harder ways, which its log of writes survives.
        for how, patience_s in ((signal.SIGINT, 8), (signal.SIGTERM, 3), (signal.SIGKILL, None)):
            self._process.send_signal(how)
            try:
                self._process.wait(patience_s)
                break
            except subprocess.TimeoutExpired:
                continue
        self._process = None


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a parent started in the background would pass on "ignore"


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=0.5).close()
    except OSError:
        return False
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=2)
        except grpc.FutureTimeoutError:
            return False
    return True

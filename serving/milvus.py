"""A Milvus Lite server over one folder, as a child process."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from mulan_core.errors import UserError
from serving.ports import check_port_free, free_port
from serving.supervised_process import SupervisedProcess


class MilvusServer:
    """``milvus-lite server`` over one folder; a context manager. It ends with this process, and before that is started
    again wherever it ends (``SupervisedProcess``).

    One process may have a folder open at a time.

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
        self._process: SupervisedProcess | None = None

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
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the process; ``wait`` says when it answers.

        Raises:
            UserError: if the port is taken, the program is missing, or files are (``check_folder``).
        """
        program = Path(sys.executable).with_name("milvus-lite")
        if not program.is_file():
            raise UserError(f"there is no {program}; install MuLan's dependencies (pip install milvus-lite)")
        self._port = self._port or free_port(self._host)
        check_port_free(self._host, self._port)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        check_folder(self.data_dir)
        command = [str(program), "server", "--data-dir", str(self.data_dir)]
        in_use = f"the Milvus folder {self.data_dir} is in use by another process; stop that one first"
        self._process = SupervisedProcess(
            "Milvus Lite",
            [*command, "--host", self._host, "--port", str(self._port)],
            log_path=self.log_path,
            reasons={"DataDirLockedError": in_use},
            restart=True,
        )

    def wait(self) -> None:
        """Return once it answers.

        Raises:
            UserError: if it ends (the folder is in use), or does not answer in time.
        """
        if self._process is not None:
            self._process.wait_until(lambda: _answers(self._host, self._port), timeout_s=self._start_timeout_s)

    def begin_stop(self) -> None:
        """Ask the server to end, and do not wait."""
        if self._process is not None:
            self._process.begin_stop()

    def stop(self) -> None:
        """Stop the server; returns when the process is gone. May be called twice."""
        if self._process is not None:
            self._process.stop()
        self._process = None


def check_folder(folder: Path) -> None:
    """Refuse a folder that Milvus Lite would not start with, or whose rows it would miss without a word.

    Raises:
        UserError: naming what is damaged or gone, and what to do.
    """
    aliases = folder / "aliases.json"
    if aliases.exists() and not isinstance(_read(aliases), dict):
        raise UserError(
            f"{aliases} is damaged; move it away, and `mulan index` or `mulan release promote` names the live "
            "collection again"
        )
    for collection in sorted(path for path in (folder / "collections").glob("*") if path.is_dir()):
        schema, manifest = collection / "schema.json", _read(collection / "manifest.json")
        wrong = None if isinstance(_read(schema), dict) else f"{schema} is damaged or gone"
        for part, files in _parts(manifest):
            gone = [name for name in files if not (collection / "partitions" / part / name).is_file()]
            wrong = wrong or (f"{collection / 'partitions' / part / gone[0]} is gone" if gone else None)
        if wrong:
            raise UserError(
                f"{wrong}; put a copy of it back, or move the folder {collection} away and run `mulan index`, which "
                "builds it anew"
            )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _parts(manifest: Any) -> list[tuple[str, list[str]]]:
    """Partition -> files, of a manifest; nothing of one that is damaged, beside which Lite has the one before."""
    try:
        return [(str(part), list(entry["data_files"])) for part, entry in manifest["partitions"].items()]
    except (TypeError, KeyError, AttributeError):
        return []


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=0.5).close()
    except OSError:
        return False
    with grpc.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=2)
        except grpc.FutureTimeoutError:
            return False
    return True

"""What was asked, what was shown and what was chosen, where ``serve.query_log`` says so: one line of JSON each.

    {"time": ..., "kind": "search", "request_id": ..., "release": ..., "query": ..., "hits": [...]}
    {"time": ..., "kind": "feedback", "request_id": ..., "track_id": ...}

``hashed`` keeps no words: an HMAC of them under a salt that only this folder has, so that equal queries can be counted
and nobody can try words out without the salt. ``full`` keeps them. Uploads are never kept. The folder is its owner's
alone; every replica has a file of its own, a new one each day, and begins the day by deleting what is too old.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from mulan_core.errors import UserError
from serving.errors import StoreError

Mode = Literal["off", "hashed", "full"]

logger = logging.getLogger("mulan.serving")


class QueryLog:
    """The log of one replica; does nothing where it is off.

    Args:
        folder: of the logs; made if it is not there.
        mode: what is kept.
        model_version: the release's.
        days: files of days before these last ones, of whichever replica, are deleted; None keeps them.

    Raises:
        UserError: if the folder cannot be made.
    """

    def __init__(
        self, folder: str | Path | None, mode: Mode, *, model_version: str = "", days: int | None = None
    ) -> None:
        self.mode: Mode = mode if folder is not None else "off"
        self._folder, self._model_version, self._days = Path(folder or "."), model_version, days
        self._today = ""
        if self.mode == "off":
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._salt = _salt(self._folder)
        except OSError as error:
            raise UserError(f"cannot keep the query log in {self._folder}: {error.strerror or error}") from error

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self.mode != "off"

    def search(self, request_id: str, query: Sequence[dict[str, Any]], hits: Sequence[str], offset: int) -> None:
        """Note a search: its parts as ``text`` or ``track_id`` with ``weight``, and the ids that were shown.

        It goes missing, and the endpoint's log says so, where it cannot be written: people are to be answered all the
        same.
        """
        if self.mode == "hashed":
            query = [{_hashed(n): self._hash(v) if n == "text" else v for n, v in part.items()} for part in query]
        line = {"kind": "search", "request_id": request_id, "release": self._model_version, "query": list(query)}
        try:
            self._write(line | {"offset": offset, "hits": list(hits)})
        except StoreError as error:
            logger.warning("a search is missing in the query log: %s", error)

    def feedback(self, request_id: str, track_id: str) -> None:
        """Note that a track was chosen.

        Raises:
            StoreError: if it cannot be written, as on a full disk.
        """
        self._write({"kind": "feedback", "request_id": request_id, "track_id": track_id})

    def _hash(self, text: str) -> str:
        return hmac.new(self._salt, text.strip().lower().encode(), hashlib.sha256).hexdigest()

    def _write(self, line: dict[str, Any]) -> None:
        if self.mode == "off":
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        if stamp[:10] != self._today:
            self._today = stamp[:10]
            self._forget(now)
        path = self._folder / f"{self._today}-{os.getpid()}.jsonl"
        data = json.dumps({"time": stamp} | line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            # One write each, so that whoever reads meanwhile finds whole lines.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(handle, data)
            finally:
                os.close(handle)
        except OSError as error:
            raise StoreError(f"the query log cannot be written: {error.strerror or error}") from error

    def _forget(self, now: float) -> None:
        if self._days is None:
            return
        first = time.strftime("%Y-%m-%d", time.gmtime(now - (self._days - 1) * 86_400))
        for path in self._folder.glob("????-??-??-*.jsonl"):
            if path.name[:10] < first:
                path.unlink(missing_ok=True)  # another replica may be doing the same


def read_query_log(folder: str | Path) -> Iterator[dict[str, Any]]:
    """All lines of all replicas, day by day; a line that a crash cut off is left out."""
    for path in sorted(Path(folder).glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    value = json.loads(line)
                except ValueError:
                    continue
                if isinstance(value, dict):
                    yield value


def _hashed(name: str) -> str:
    return "text_hash" if name == "text" else name


def _salt(folder: Path) -> bytes:
    path = folder / "salt"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
    except FileExistsError:
        pass
    for _ in range(50):  # another replica may be writing it
        if len(salt := path.read_bytes()) == 32:
            return salt
        time.sleep(0.02)
    raise UserError(f"the salt in {path} is damaged; delete it: hashes before and after will differ")

"""The file of API keys: made, listed and revoked by ``mulan keys``, looked up by the endpoint, never storing a key.

A key is ``mulan_ID_SECRET``. The file keeps ID, name, scope and an HMAC of the secret under a salt of its own. The
secret is 256 random bits, so there is nothing to guess at, and a hash that is slow on purpose would only slow requests.

The endpoint looks at the file again when it changes, so that a revoked key ends within a second. Where the file cannot
be trusted, nobody gets in until it can be. A mark beside it tells those who have never seen it that it was there
(docs/decisions/0024-keys-fail-closed.md).
"""

from __future__ import annotations

import fcntl
import math
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from mulan_core.data.names import why_no_name
from mulan_core.errors import UserError
from serving.key import SCOPES, Key, Scope, digest_of, find_key, parse_keys, write_keys
from serving.loopback import is_loopback

RECHECK_S = 0.25
"""How long an answer about the file is good for."""
_SETTLES_S = 2.0
"""From when on an unchanged stamp means an unchanged file: the coarsest clocks of file systems tick in seconds."""
_MAX_BYTES = 2**24
_MAX_NAME_BYTES = 256
_ON_THE_MARK = b"There have been API keys here. `mulan keys reset` forgets them once their file is gone.\n"


@dataclass(frozen=True)
class Keys:
    """What the file said when it was last looked at."""

    needed: bool
    """Whether nobody gets in without a key: where there are keys, or were, revoked ones included."""
    by_id: Mapping[str, Key] = field(default_factory=dict)
    fault: str | None = None
    """Why no key can be checked, a sentence for the operator: it names the file. Nobody gets in then."""

    def find(self, presented: str) -> Key | None:
        """The key in use that someone presents, or None."""
        return find_key(presented, self.by_id)


class KeyFile:
    """The keys of a home. Looking is cheap: the file is read when it has changed.

    Args:
        path: of the file; it need not exist.
        had_keys: the file was there before, so where it is not, that is a fault; by default the mark beside it tells,
            which whoever sees the file leaves there.
        recheck_s: how long an answer about the file is good for, seconds.
    """

    def __init__(self, path: str | Path, *, had_keys: bool = False, recheck_s: float = RECHECK_S) -> None:
        self.path = Path(path)
        self._recheck_s, self._checked = recheck_s, -math.inf
        self._now = Keys(needed=had_keys)
        self._stamp: tuple[int, ...] | None = None
        self._stamp_seen, self._is_settled = 0.0, False

    def look(self) -> Keys:
        """What the file says now."""
        began = time.monotonic()
        if began - self._checked >= self._recheck_s:
            try:
                self._now = self._look(began)
            except UserError as error:
                self._now = Keys(needed=True, fault=str(error))
            except OSError as error:
                self._now = Keys(needed=True, fault=_unreadable(self.path, error))
            if self._now.fault or not self._now.needed:
                self._stamp = None
            self._checked = began
        return self._now

    def find(self, presented: str) -> Key | None:
        """The key in use that someone presents, or None."""
        return self.look().find(presented)

    def active(self) -> list[Key]:
        """Keys that open the endpoint.

        Raises:
            UserError: if the file cannot be trusted.
        """
        return [key for key in self.list() if key.revoked_at is None]

    def list(self) -> list[Key]:
        """All keys as the file has them at this moment, the oldest first.

        Raises:
            UserError: if the file cannot be trusted.
        """
        self._checked = -math.inf
        keys = self.look()
        if keys.fault:
            raise UserError(keys.fault)
        return [*keys.by_id.values()]

    def create(self, name: str, scope: Scope, *, rate_per_s: float | None = None) -> tuple[str, Key]:
        """Make a key.

        Returns:
            The key itself, which is nowhere else and cannot be had again, and what is kept of it.

        Raises:
            UserError: for an unknown scope, a rate or name that is none, a name that a key in use has, or a file that
                cannot be trusted or written, or is gone.
        """
        if scope not in SCOPES:
            raise UserError(f"there is no scope {scope!r}; a key is for {', '.join(SCOPES)}")
        if rate_per_s is not None and not (rate_per_s > 0 and math.isfinite(rate_per_s)):
            raise UserError(f"a rate of {rate_per_s:g} requests a second is none; give a number above 0")
        if refused := why_no_name(name, _MAX_NAME_BYTES) or (None if name else "a value is required"):
            raise UserError(f"the name of a key: {refused}")
        with self._alone():
            keys = self.list()
            if any(key.name == name and key.revoked_at is None for key in keys):
                raise UserError(f"there is a key {name!r} already; revoke it first, or give another name")
            key_id, secret, salt = secrets.token_hex(4), secrets.token_urlsafe(32), secrets.token_hex(16)
            key = Key(key_id, name, scope, salt, digest_of(secret, salt), _now(), rate_per_s)
            self._write([*keys, key])
        return f"mulan_{key_id}_{secret}", key

    def revoke(self, which: str) -> Key:
        """End a key.

        Args:
            which: its id or its name.

        Raises:
            UserError: if no key in use is called so, or the file cannot be trusted or written.
        """
        with self._alone():
            keys = self.list()
            matches = [key for key in keys if key.revoked_at is None and which in (key.key_id, key.name)]
            if not matches:
                raise UserError(f"no key in use has the id or name {which!r}; `mulan keys list` shows them")
            revoked = replace(matches[0], revoked_at=_now())
            self._write([revoked if key.key_id == revoked.key_id else key for key in keys])
        return revoked

    def reset(self) -> None:
        """Forget that there have been keys, once their file is gone.

        Raises:
            UserError: if anything is in the file's place, or the mark cannot be deleted.
        """
        with self._alone():
            if _is_there(self.path):
                raise UserError(f"{self.path} is still there; move it away first, or end keys with `mulan keys revoke`")
            self._mark.unlink(missing_ok=True)

    def _look(self, began: float) -> Keys:
        try:
            return Keys(needed=True, by_id=self._read(began))
        except FileNotFoundError as error:
            if self.path.is_symlink():
                raise UserError(
                    f"the keys in {self.path} cannot be read: it is a link to nothing; put its file back"
                ) from error
            if self._now.needed or _is_there(self._mark):
                raise UserError(
                    f"the keys in {self.path} are gone; put the file back, or run `mulan keys reset` and start the "
                    "endpoint anew to go on without them"
                ) from error
            return Keys(needed=False)

    def _read(self, began: float) -> Mapping[str, Key]:
        """The keys of the file; those of the last look where it has not changed since.

        A stamp does not tell two writes within one tick of the file system's clock apart, so an unchanged stamp is
        believed once the file was read some time after the stamp was first seen.
        """
        if self._is_settled and self._stamp == _stamp(self.path.stat()):
            return self._now.by_id
        self._leave_mark()
        content, status = _take(self.path)
        try:
            keys = parse_keys(content)
        except ValueError as error:
            raise UserError(
                f"the keys in {self.path} cannot be read: {error}; put its copy back, or move it away and run "
                "`mulan keys reset` to make new ones"
            ) from error
        if self._stamp != _stamp(status):
            self._stamp, self._stamp_seen = _stamp(status), began
        self._is_settled = began - self._stamp_seen >= _SETTLES_S
        return keys

    @property
    def _mark(self) -> Path:
        return self.path.with_name(f".{self.path.name}.mark")

    def _leave_mark(self) -> None:
        with suppress(OSError):  # it is there, no file is, or the endpoint may only read here, as in mounted secrets
            if _is_there(self.path):
                with self._mark.open("xb") as mark:
                    mark.write(_ON_THE_MARK)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Change the file while no other process does: else one of two changes is lost, and it may be a revocation."""
        try:
            path = Path(os.path.realpath(self.path))  # homes whose links lead to one file take turns too
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_name(f".{path.name}.lock").open("a") as lock:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise UserError(f"the keys in {self.path} cannot be written: {error.strerror or error}") from error

    def _write(self, keys: Iterable[Key]) -> None:
        path = self.path.resolve()  # through a link, which stays one
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            with suppress(OSError):  # the endpoint's user may be another one than who makes the key
                status = path.stat()
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
                os.fchmod(file.fileno(), status.st_mode & 0o660)
            file.write(write_keys(keys))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        self.list()


def check_exposed(host: str, keys: KeyFile | None, *, allow_open: bool) -> None:
    """Refuse to open an endpoint that could check no key, or to others one that asks nobody who they are.

    Raises:
        UserError: if the file of keys cannot be trusted, or the address is wider than loopback and there is no key
            in use.
    """
    in_use = keys.active() if keys is not None else []
    if not is_loopback(host) and not allow_open and not in_use:
        raise UserError(
            f"{host} can be reached by others and there is no API key; make one with `mulan keys create NAME`, "
            "or say --open where a firewall keeps strangers out"
        )


def _is_there(path: Path) -> bool:
    """Whether a name leads anywhere; unlike ``exists``, not False for what cannot be told."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _unreadable(path: Path, error: OSError) -> str:
    return f"the keys in {path} cannot be read: {error.strerror or error}; see that the endpoint's user may read them"


def _take(path: Path) -> tuple[bytes, os.stat_result]:
    """Content and state of a file that its owner alone can change and read.

    Raises:
        UserError: if it is no file, too large, open to others, or being written.
        OSError: if it cannot be read.
    """
    # A pipe in the file's place would let an ordinary open wait for its writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # What was opened is judged and read, whatever the path leads to by now.
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise UserError(f"{path} is no file of keys; move it away and put the file's copy back")
        if others := status.st_mode & 0o007:
            can = "changed" if others & 0o002 else "read"
            raise UserError(f"the keys in {path} may be {can} by anyone on this machine; run chmod 600 on it")
        content = b"".join(iter(lambda: os.read(handle, 2**20), b""))
        if _stamp(os.fstat(handle)) != _stamp(status):
            raise UserError(f"the keys in {path} cannot be read: the file is being written; wait for that to end")
    finally:
        os.close(handle)
    return content, status


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """What differs when a file was written, replaced, or given to others."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
        status.st_uid,
        status.st_gid,
    )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

"""API keys: made, listed and revoked by ``mulan keys``, looked up by the endpoint, never stored.

A key is ``mulan_ID_SECRET``. The file keeps ID, name, scope and an HMAC of the secret under a salt of its own. The
secret is 256 random bits, so there is nothing to guess at, and a hash that is slow on purpose would only slow requests.

The endpoint looks at the file again when it changes, so that a revoked key ends within a second.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mulan_core.errors import UserError

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each holds those before it."""

_FORM = re.compile(r"mulan_([0-9a-f]{8})_([\w-]{43})")
_RECHECK_S = 1.0


@dataclass(frozen=True)
class Key:
    """What the file knows of a key."""

    key_id: str
    name: str
    scope: Scope
    salt: str
    digest: str
    created_at: str
    rate_per_s: float | None = None
    """Requests a second; None takes ``serve.rate_per_s``."""
    revoked_at: str | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether the key is good for what needs this scope."""
        return SCOPES.index(scope) <= SCOPES.index(self.scope)

    def about(self) -> dict[str, Any]:
        """What may be shown."""
        return {name: value for name, value in asdict(self).items() if name not in ("salt", "digest")}


class KeyFile:
    """The keys of a home. Reading is cheap: the file is parsed when it has changed.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._keys: dict[str, Key] = {}
        self._stamp: tuple[int, int] | None = None
        self._checked = float("-inf")

    @property
    def exists(self) -> bool:
        """Whether there have ever been keys; where there have, nobody gets in without one, revoked or not."""
        self._refresh()
        return self._stamp is not None

    def active(self) -> list[Key]:
        """Keys that open the endpoint."""
        return [key for key in self.list() if key.revoked_at is None]

    def list(self) -> list[Key]:
        """All keys, the oldest first.

        Raises:
            UserError: if the file is damaged, or others may read it.
        """
        self._checked = float("-inf")
        self._refresh()
        return list(self._keys.values())

    def create(self, name: str, scope: Scope, *, rate_per_s: float | None = None) -> tuple[str, Key]:
        """Make a key.

        Returns:
            The key itself, which is nowhere else and cannot be had again, and what is kept of it.

        Raises:
            UserError: for an unknown scope, or a name that a key in use has.
        """
        if scope not in SCOPES:
            raise UserError(f"there is no scope {scope!r}; a key is for {', '.join(SCOPES)}")
        if rate_per_s is not None and not rate_per_s > 0:
            raise UserError(f"a rate of {rate_per_s:g} requests a second lets nobody in; give more than 0")
        if any(key.name == name for key in self.active()):
            raise UserError(f"there is a key {name!r} already; revoke it first, or give another name")
        key_id, secret, salt = secrets.token_hex(4), secrets.token_urlsafe(32), secrets.token_hex(16)
        key = Key(key_id, name, scope, salt, _digest(secret, salt), _now(), rate_per_s)
        self._write(self._keys | {key_id: key})
        return f"mulan_{key_id}_{secret}", key

    def revoke(self, which: str) -> Key:
        """End a key.

        Args:
            which: its id or its name.

        Raises:
            UserError: if no key in use is called so.
        """
        found = [key for key in self.active() if which in (key.key_id, key.name)]
        if not found:
            raise UserError(f"no key in use has the id or name {which!r}; `mulan keys list` shows them")
        revoked = Key(**asdict(found[0]) | {"revoked_at": _now()})
        self._write(self._keys | {revoked.key_id: revoked})
        return revoked

    def find(self, presented: str) -> Key | None:
        """The key in use that someone presents, or None."""
        form = _FORM.fullmatch(presented)
        self._refresh()
        key = self._keys.get(form[1]) if form else None
        if form is None or key is None or key.revoked_at is not None:
            return None
        return key if hmac.compare_digest(_digest(form[2], key.salt), key.digest) else None

    def _refresh(self) -> None:
        if time.monotonic() - self._checked < _RECHECK_S:
            return
        self._checked = time.monotonic()
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._keys = {}  # a file that was there and is gone still keeps everybody out
            return
        except OSError as error:
            raise UserError(f"cannot read the keys in {self.path}: {error.strerror or error}") from error
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        if status.st_mode & 0o007:
            raise UserError(f"the keys in {self.path} may be read by anyone on this machine; run chmod 600 on it")
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))["keys"]
            self._keys = {row["key_id"]: Key(**row) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"the keys in {self.path} cannot be read; put its copy back, or delete it") from error
        self._stamp = stamp

    def _write(self, keys: Mapping[str, Key]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.partial")
        content = json.dumps({"keys": [asdict(key) for key in keys.values()]}, indent=1)
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
        partial.replace(self.path)
        self.list()


def check_exposed(host: str, keys: KeyFile | None, *, allow_open: bool) -> None:
    """Refuse to open an endpoint to others that asks nobody who they are.

    Raises:
        UserError: if the address is wider than loopback and there is no key in use.
    """
    if not is_loopback(host) and not allow_open and not (keys is not None and keys.active()):
        raise UserError(
            f"{host} can be reached by others and there is no API key; make one with `mulan keys create NAME`, "
            "or say --open where a firewall keeps strangers out"
        )


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _digest(secret: str, salt: str) -> str:
    return hmac.new(bytes.fromhex(salt), secret.encode(), hashlib.sha256).hexdigest()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

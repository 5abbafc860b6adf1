"""An API key as the file keeps it: whom it was made for, what it opens, a hash of its secret; and the file's form.

A file says all of it rightly or nothing: a row that cannot be read may be the one that was revoked.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each holds those before it."""

_PRESENTED = re.compile(r"mulan_([0-9a-f]{8})_([\w-]{43})")


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


def digest_of(secret: str, salt: str) -> str:
    """What is kept of a secret."""
    return hmac.new(bytes.fromhex(salt), secret.encode(), hashlib.sha256).hexdigest()


def find_key(presented: str, keys: Mapping[str, Key]) -> Key | None:
    """The key in use that someone presents, or None."""
    form = _PRESENTED.fullmatch(presented)
    key = keys.get(form[1]) if form else None
    if form is None or key is None or key.revoked_at is not None:
        return None
    return key if hmac.compare_digest(digest_of(form[2], key.salt), key.digest) else None


def write_keys(keys: Iterable[Key]) -> bytes:
    """The content of a file of these keys."""
    return json.dumps({"keys": [asdict(key) for key in keys]}, indent=1).encode()


def parse_keys(content: bytes) -> dict[str, Key]:
    """The keys of a file, by their ids.

    Raises:
        ValueError: with what is wrong and in which row, and nothing of what the row keeps secret.
    """
    try:
        whole = json.loads(content.decode("utf-8"), object_pairs_hook=_each_name_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not whole JSON (line {error.lineno})" if content.strip() else "it is empty") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError("it is not JSON") from error
    rows = whole.get("keys") if isinstance(whole, dict) else None
    if not isinstance(rows, list) or set(whole) != {"keys"}:
        raise ValueError('it must be {"keys": [...]} and nothing else')
    keys: dict[str, Key] = {}
    for number, row in enumerate(rows, start=1):
        key = _read_row(number, row)
        if key.key_id in keys:
            raise ValueError(f"key {number} has the id of another one")
        keys[key.key_id] = key
    return keys


def _is_hex(least: int, most: int) -> re.Pattern[str]:
    return re.compile(rf"(?:[0-9a-f]{{2}}){{{least},{most}}}")


_FORMS = {"key_id": _is_hex(4, 4), "salt": _is_hex(8, 64), "digest": _is_hex(32, 32)}
_NEEDED = {field.name for field in fields(Key) if field.default is MISSING}
_KNOWN = {field.name for field in fields(Key)}


def _read_row(number: int, row: Any) -> Key:
    if not isinstance(row, dict):
        raise ValueError(f"key {number} is not an object")
    if missing := sorted(_NEEDED - set(row)):
        raise ValueError(f"key {number} has no {missing[0]}")
    if unknown := sorted(set(row) - _KNOWN):
        raise ValueError(f"key {number} has the field {unknown[0]!r}, which no key has")
    for name, value in row.items():
        if not _fits(name, value):
            raise ValueError(f"key {number} has a {name} that is none")
    return Key(**row)


def _fits(name: str, value: Any) -> bool:
    if name == "rate_per_s":
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value is None or (is_number and value > 0 and math.isfinite(value))
    if name == "revoked_at" and value is None:
        return True
    if not isinstance(value, str):
        return False
    if name == "scope":
        return value in SCOPES
    return name not in _FORMS or _FORMS[name].fullmatch(value) is not None


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("it has a name twice in one object")
    return members

"""Who may ask for what, and how often; decided by the head of a request, before its body is read.

With a file of keys every request but probes and pages needs one, and where the file cannot be trusted nobody gets in
until it can be. Without keys, the endpoint is for this machine alone: it
answers to loopback names only, and not to pages of other sites, so that no web page that someone here looks at can use
or change the catalogue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from starlette.datastructures import Headers

from serving.errors import RETRY_AFTER, ApiError
from serving.key import Key, Scope
from serving.keys import KeyFile, Keys
from serving.loopback import is_loopback
from serving.origins import is_same_site, parse_host
from serving.prefix import announced_prefix

OPEN_PATHS = ("", "/livez", "/readyz", "/docs", "/openapi.json")
CLOSED = "API keys cannot be checked now, so nobody gets in; the endpoint's operator finds the reason in its log"
ONCE = (
    *("host", "origin", "sec-fetch-site", "authorization"),
    *("content-type", "content-length", "idempotency-key"),
)
"""Headers that decide who asks and what is done: with two of one, a proxy may go by another than we do."""
_MAX_BUCKETS = 10_000
_SHOWN = 100
"""Characters of a caller's header that an error repeats."""

logger = logging.getLogger("mulan.serving")


def scope_needed(method: str, path: str) -> Scope | None:
    """What a request needs; None where anyone may ask."""
    bare = path.rstrip("/")
    if bare in OPEN_PATHS or path.startswith("/page/"):
        return None
    if bare == "/metrics":
        return "admin"
    if method == "DELETE" or (method == "POST" and bare == "/v1/tracks"):
        return "write"
    return "read"


def check_lines(headers: Headers) -> None:
    """Of the headers in ``ONCE`` each comes once at most (RFC 9112, section 3.2, says so of Host).

    Raises:
        ApiError: 400 where one comes twice.
    """
    twice = next((name for name in ONCE if len(headers.getlist(name)) > 1), None)
    if twice:
        raise ApiError(400, f"the header {twice.title()} comes more than once; send it once")


@dataclass
class Bucket:
    """A token bucket: so many requests at once, refilled at a steady rate."""

    rate_per_s: float
    burst: float
    tokens: float = field(init=False)
    filled: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now: float) -> float:
        """Take a token; returns the seconds until there is one, 0 if there was."""
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate_per_s)
        self.filled = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / self.rate_per_s


class Access:
    """The door.

    Args:
        keys: the file of keys; None knows none.
        host: address that the endpoint is bound to.
        allow_open: let everybody in where there are no keys, from wherever they come.
        rate_per_s: requests a second of a key without a rate of its own, on each replica.
        origins: sites whose pages may ask.
    """

    def __init__(
        self,
        keys: KeyFile | None = None,
        *,
        host: str = "127.0.0.1",
        allow_open: bool = False,
        rate_per_s: float = 50.0,
        origins: Collection[str] = (),
    ) -> None:
        self._keys, self._allow_open, self._rate_per_s = keys, allow_open, rate_per_s
        self._origins = frozenset(origins)
        self._is_local = is_loopback(host)
        self._buckets: dict[str, Bucket] = {}
        self._fault: str | None = None

    def look(self) -> Keys:
        """What the file of keys says now; what is wrong with it is logged as it begins and as it ends."""
        keys = self._keys.look() if self._keys is not None else Keys(needed=False)
        if keys.fault != self._fault:
            if keys.fault:
                logger.error("nobody gets in: %s", keys.fault)
            else:
                logger.warning("the file of API keys is right again; who has a key gets in")
            self._fault = keys.fault
        return keys

    def admit(self, method: str, path: str, headers: Headers) -> Key | None:
        """Let a request in, by its key if it needs one.

        Raises:
            ApiError: 401 without a good key, 403 for a scope it lacks or a foreign page, 429 above its rate, 503 while
                no key can be checked.
        """
        needed = scope_needed(method, path)
        announced_prefix(headers)
        if needed is not None or method not in ("GET", "HEAD"):  # what is open holds nothing that is not public
            self._check_origin(headers)
        keys = self.look()
        if not keys.needed:
            if self._is_local and not self._allow_open:
                self._check_host(headers)
            elif not self._allow_open:
                raise ApiError(401, "the endpoint has no keys and lets nobody in; see `mulan keys create`")
            return None
        if needed is None:
            return None
        if keys.fault:  # its words are the operator's alone
            raise ApiError(503, CLOSED, code="keys_unavailable", headers=RETRY_AFTER)
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        key = keys.find(presented.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            message = "give an API key in the header Authorization: Bearer KEY"
            raise ApiError(401, message, headers={"WWW-Authenticate": "Bearer"})
        if not key.allows(needed):
            raise ApiError(403, f"this needs a key of scope {needed}; yours is for {key.scope}")
        self._check_rate(key)
        return key

    def _check_rate(self, key: Key) -> None:
        rate = key.rate_per_s or self._rate_per_s
        bucket = self._buckets.get(key.key_id)
        if bucket is None or bucket.rate_per_s != rate:
            if len(self._buckets) >= _MAX_BUCKETS:
                self._buckets.clear()
            bucket = self._buckets[key.key_id] = Bucket(rate, burst=max(1.0, 2 * rate))
        wait_s = bucket.take(time.monotonic())
        if wait_s:
            raise ApiError(
                429, f"this key may ask {rate:g} times a second", headers={"Retry-After": str(int(wait_s) + 1)}
            )

    def _check_origin(self, headers: Headers) -> None:
        origin, host = headers.get("origin"), headers.get("host", "")
        if origin is None or origin in self._origins or is_same_site(origin, host):
            return
        # No page can set this header. Where a proxy gives the request another Host, it is the browser's word that the
        # page came from the address that it asks; see docs/decisions/0029-behind-a-proxy.md.
        if headers.get("sec-fetch-site") == "same-origin" and origin != "null":
            return
        raise ApiError(
            403,
            f"pages of other sites may not ask: Origin is {_shown(origin)}, Host is {_shown(host)}; if that page is "
            "MuLan's own behind a proxy, have the proxy pass on the Host it was asked for (nginx: proxy_set_header "
            "Host $http_host;), else see serve.cors_origins",
        )

    def _check_host(self, headers: Headers) -> None:
        text = headers.get("host", "")
        host = parse_host(text)
        if host is None or not is_loopback(host.name):
            raise ApiError(
                403,
                f"without keys the endpoint answers to 127.0.0.1 and localhost alone, and Host is {_shown(text)}; to "
                "serve other names make a key with `mulan keys create NAME`, or start it with --open where a firewall "
                "keeps strangers out",
            )


def _shown(value: str) -> str:
    return repr(value[:_SHOWN]) if value else "missing"

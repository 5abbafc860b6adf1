"""The path under which a reverse proxy shows the endpoint, as its header ``X-Forwarded-Prefix`` says.

Pages and the API's document hold relative addresses alone and need none of this. The prefix is for what callers join
to an address themselves (``audio_url``), and for proxies that pass the path on as they got it.
"""

from __future__ import annotations

import re
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import ApiError

HEADER = "x-forwarded-prefix"
_MAX_LENGTH = 200
_PLAIN = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
_OWN = re.compile(r"/(?:(?:v1|page)/.+|livez|readyz|metrics|docs/?|openapi\.json)?", re.DOTALL)


def announced_prefix(headers: Headers) -> str:
    """The prefix without a slash at its end; empty where no proxy tells one.

    Several proxies in a row each add theirs, the outermost first.

    Raises:
        ApiError: 400 for anything but a plain path: it goes into answers, so nothing in it may lead elsewhere.
    """
    parts = [part.strip() for value in headers.getlist(HEADER) for part in value.split(",")]
    prefix = "".join(part.rstrip("/") for part in parts)
    if len(prefix) > _MAX_LENGTH or (prefix and not _PLAIN.fullmatch(prefix)):
        raise ApiError(
            400,
            "the proxy's header X-Forwarded-Prefix must be a plain path such as /music (letters, digits and ._~-, "
            f"at most {_MAX_LENGTH} characters)",
        )
    return prefix


def without_prefix(scope: Scope) -> Scope:
    """The request as the routes know it: the prefix, if the path still begins with it, goes from path to state.

    A path of ours may begin like the prefix (one called ``/v1``); then it is cut off only if what is left is ours too.
    """
    state = scope.get("state", {})
    if scope["type"] != "http" or "prefix" in state:
        return scope
    try:
        prefix = announced_prefix(Headers(scope=scope))
    except ApiError:  # ``Access`` refuses it, in the frame that all answers have
        prefix = ""
    path: str = scope["path"]
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        rest = path[len(prefix) :] or "/"
        if _OWN.fullmatch(rest) or not _OWN.fullmatch(path):
            path = rest
    return {**scope, "path": path, "state": {**state, "prefix": prefix}}


def put_before(prefix: str, content: Any) -> Any:
    """What an answer holds, with each ``audio_url`` under the prefix."""
    if not prefix:
        return content
    if isinstance(content, list):
        return [put_before(prefix, item) for item in content]
    if not isinstance(content, dict):
        return content
    return {
        name: prefix + value if name == "audio_url" and value else put_before(prefix, value)
        for name, value in content.items()
    }


class Prefix:
    """ASGI middleware that takes the prefix off; the outermost, so that all others see our own paths."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        await self._app(without_prefix(scope), receive, send)

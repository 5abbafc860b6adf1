"""What a route owes to HTTP beyond its own method: HEAD beside GET, all methods in Allow, a slash too many forgiven."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Mount, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "POST", "DELETE")


class Methods:
    """ASGI middleware that answers HEAD as GET without the body, and says of a 405 what the address does take.

    Args:
        app: the API.
        router: its routes.
    """

    def __init__(self, app: ASGIApp, *, router: Router) -> None:
        self._app, self._router = app, router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A route with a HEAD of its own, such as audio, need not make a body that nobody reads.
        is_head = scope["method"] == "HEAD" and not _takes(self._router, scope, "HEAD")
        # A copy: the server looks at its own for whether a body goes out.
        inner = {**scope, "method": "GET"} if is_head else scope

        async def send_fit(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                message = {**message, "headers": self._with_allow(scope, message["headers"])}
            elif message["type"] == "http.response.body" and is_head:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(inner, receive, send_fit)
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]

    def _with_allow(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        allowed = [method for method in _METHODS if _takes(self._router, scope, method)]
        if not allowed:  # a mounted application has said it itself
            return headers
        if "GET" in allowed:
            allowed.insert(1, "HEAD")
        return [
            *((name, value) for name, value in headers if name.lower() != b"allow"),
            (b"allow", ", ".join(allowed).encode()),
        ]


def _takes(router: Router, scope: Scope, method: str) -> bool:
    probe = {**scope, "method": method}
    return any(not isinstance(route, Mount) and route.matches(dict(probe))[0] == Match.FULL for route in router.routes)


def forgive_slashes(router: Router) -> None:
    """Send ``/v1/search/`` on to ``/v1/search``.

    By a relative address, unlike the framework's own redirect: what the caller sees of scheme, name and path is the
    proxy's business.
    """

    async def no_route(scope: Scope, receive: Receive, send: Send) -> None:
        bare = scope["path"].removesuffix("/")  # of several, clients differ in where a relative address leads
        if (
            not bare.strip("/")
            or bare == scope["path"]
            or not any(_takes(router, {**scope, "path": bare}, m) for m in _METHODS)
        ):
            raise HTTPException(404)
        query = f"?{scope['query_string'].decode('latin-1')}" if scope.get("query_string") else ""
        location = f"../{bare.rpartition('/')[2]}{query}"
        await Response(status_code=307, headers={"Location": location})(scope, receive, send)

    router.default = no_route

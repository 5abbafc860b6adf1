"""The outermost layer around the API: whatever becomes of a request, it is counted, logged and traced once.

Every answer leaves from here with its request's name and the security headers, errors of our own included. A caller
that hangs up is 499: nothing failed, and nobody is woken for it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access import check_lines
from serving.access_log import Record, Recorder
from serving.errors import ApiError, error_response, internal
from serving.metrics import HUNG_UP, Metrics
from serving.timing import Timing

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Nothing here is a page but those two, which say themselves what they need.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


@dataclass
class _Fate:
    """What has become of a request so far."""

    status: int = 0
    """Of the answer that has begun; 0 before."""
    is_complete: bool = False
    has_left: bool = False
    """The caller, before the answer was out."""


class RequestGuard:
    """ASGI middleware; it refuses WebSockets, and requests that say twice what may be said once.

    Args:
        app: all other layers, and the API.
        metrics: where requests are counted.
        recorders: told of every answer: the log, traces.
        cors: pages of other sites may read answers.
        names_requests: put the request's name on the answer. Ray Serve's proxy does so itself, but for WebSockets.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, recorders: list[Recorder], cors: bool, names_requests: bool
    ) -> None:
        self._app, self._metrics, self._recorders = app, metrics, recorders
        self._cors, self._names_requests = cors, names_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or note that nobody waits for the answer any more."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if is_socket := scope["type"] == "websocket":
            scope, send = _as_request(scope, send)
        began = time.time_ns()
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")[:128] or uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state.update(request_id=request_id, timing=Timing(), key=None, error_code=None)
        fate = _Fate()

        async def receive_and_note() -> Message:
            message = await receive()
            # Servers say the same once the answer is out.
            fate.has_left |= message["type"] == "http.disconnect" and not fate.is_complete
            return message

        async def send_and_note(message: Message) -> None:
            if fate.has_left:
                return
            if message["type"] == "http.response.start":
                fate.status = message["status"]
                named = request_id if self._names_requests or is_socket else None
                self._complete(named, MutableHeaders(scope=message))
            # Noted before it is sent: servers wake whoever listens for a hang-up as soon as the answer is out.
            fate.is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            try:
                await send(message)
            except OSError:  # how some servers say that the connection is gone
                fate.has_left = True
                raise

        try:
            if is_socket:
                raise ApiError(400, "there are no WebSockets here; ask by plain HTTP requests")
            check_lines(headers)
            await self._app(scope, receive_and_note, send_and_note)
            if not (fate.status or fate.has_left):
                raise RuntimeError("nothing has answered")
        except asyncio.CancelledError:  # Ray Serve ends the work of a caller that has gone
            fate.has_left = not fate.is_complete
            raise
        except ClientDisconnect:
            fate.has_left = True
        except Exception as error:
            if not fate.has_left:
                api_error = error if isinstance(error, ApiError) else internal(error, request_id)
                state["error_code"] = api_error.code
                if not fate.status:
                    await error_response(api_error, request_id)(scope, receive, send_and_note)
                fate.status = api_error.status  # of an answer cut off in the middle, too: its connection is closed
        finally:
            self._record(scope, headers, began, fate)

    def _record(self, scope: Scope, headers: Headers, began_ns: int, fate: _Fate) -> None:
        state, timing = scope["state"], scope["state"]["timing"]
        seconds = time.perf_counter() - timing.started
        status, error = (HUNG_UP, "hung_up") if fate.has_left else (fate.status, state["error_code"])
        # The route is known by now; unknown addresses share one name, so that nobody can make up names.
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.count_request(route, scope["method"], status, seconds)
        if error and not fate.has_left:
            self._metrics.errors.labels(error).inc()
        record = Record(
            request_id=state["request_id"],
            method=scope["method"],
            route=route,
            status=status,
            began_ns=began_ns,
            seconds=seconds,
            spans=[(name, start - timing.started, end - timing.started) for name, start, end in timing.spans],
            error=error,
            key_id=state["key"].key_id if state["key"] else None,
            traceparent=tuple(headers.getlist("traceparent")),
            tracestate=tuple(headers.getlist("tracestate")),
        )
        for recorder in self._recorders:
            recorder(record)

    def _complete(self, request_id: str | None, headers: MutableHeaders) -> None:
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        if self._cors:  # whose pages may read is said by the CORS headers then
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        if request_id:
            headers["X-Request-ID"] = request_id


def _as_request(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """The opening of a WebSocket as the GET that it is on the wire; its answer is a refusal."""
    can_tell = "websocket.http.response" in scope.get("extensions", {})

    async def refuse(message: Message) -> None:
        if can_tell:
            await send({**message, "type": f"websocket.{message['type']}"})
        elif message["type"] == "http.response.start":  # a server that cannot pass on why
            await send({"type": "websocket.close", "code": 1008})

    return {**scope, "type": "http", "method": "GET"}, refuse

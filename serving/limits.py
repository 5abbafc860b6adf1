"""The outermost layer around the API, before anything is parsed: who asks, how much and how fast, and what came of it.

Ray Serve reads a body of any size and answers overflow with plain text, so both limits are kept here. Every answer
leaves with security headers, is counted, and makes one line in the log and one trace.
"""

from __future__ import annotations

import asyncio
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mulan_core.config import ServeConfig
from serving.access import Access
from serving.errors import RETRY_AFTER, ApiError, answer
from serving.metrics import Metrics
from serving.records import Record, Recorder
from serving.timing import Timing

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Nothing here is a page but the search page, which says so itself, and FastAPI's /docs, whose scripts are remote.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware.

    Args:
        app: the API.
        access: who may ask for what.
        metrics: where requests are counted.
        recorders: told of every answer: the log, traces.
        config: ``max_body_mb``: larger bodies get a 413, by their header or as soon as they have sent that much;
            ``body_timeout_s``: slower ones a 408. ``max_ongoing_requests`` POST requests are worked on at once, and
            ``max_queued_requests`` more wait their turn; the rest get a 503. Other requests are cheap and never
            wait, so probes are answered under load.
    """

    def __init__(
        self, app: ASGIApp, *, access: Access, metrics: Metrics, recorders: list[Recorder], config: ServeConfig
    ) -> None:
        self._app, self._access, self._metrics, self._recorders = app, access, metrics, recorders
        self._max_body_bytes, self._body_timeout_s = config.max_body_mb * 2**20, config.body_timeout_s
        self._cors = bool(config.cors_origins)
        self._max_waiting = config.max_queued_requests
        self._turns = asyncio.Semaphore(config.max_ongoing_requests)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, began = time.perf_counter(), time.time_ns()
        headers = Headers(scope=scope)
        # Ray Serve names every request, by the caller's header or a new id, and puts the name on the answer.
        request_id = headers.get("x-request-id", "")[:128] or uuid.uuid4().hex
        timing = Timing(started)
        state = scope.setdefault("state", {})
        state.update(request_id=request_id, timing=timing, key=None, error_code=None)
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._protect(scope["path"], MutableHeaders(scope=message))
            await send(message)

        try:
            state["key"] = self._access.admit(scope["method"], scope["path"], headers)
            await self._admit(scope, headers, receive, send_and_note)
        except ApiError as error:
            state["error_code"] = error.code
            await answer(error, request_id)(scope, receive, send_and_note)
        finally:
            # The route is known by now; unknown addresses share one name, so that nobody can make up names.
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - started
            self._metrics.count_request(route, scope["method"], status, seconds)
            if state["error_code"]:
                self._metrics.errors.labels(state["error_code"]).inc()
            record = Record(
                request_id=request_id,
                method=scope["method"],
                route=route,
                status=status,
                began_ns=began,
                seconds=seconds,
                spans=[(name, start - started, end - started) for name, start, end in timing.spans],
                error=state["error_code"],
                key_id=state["key"].key_id if state["key"] else None,
                traceparent=tuple(headers.getlist("traceparent")),
                tracestate=tuple(headers.getlist("tracestate")),
            )
            for recorder in self._recorders:
                recorder(record)

    def _protect(self, path: str, headers: MutableHeaders) -> None:
        for name, value in _HEADERS.items():
            if not (path == "/docs" and name == "Content-Security-Policy"):
                headers.setdefault(name, value)
        if self._cors:  # whose pages may read is said by the CORS headers then
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"

    async def _admit(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise self._too_large()
        limited = self._limit(receive)
        if scope["method"] != "POST":
            await self._app(scope, limited, send)
            return
        if self._turns.locked() and self._waiting >= self._max_waiting:
            raise ApiError(
                503, "too many requests are waiting; try again later", code="overloaded", headers=RETRY_AFTER
            )
        self._waiting += 1
        self._metrics.waiting.set(self._waiting)
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
            self._metrics.waiting.set(self._waiting)
        try:
            await self._app(scope, limited, send)
        finally:
            self._turns.release()

    def _limit(self, receive: Receive) -> Receive:
        received, is_whole, deadline = 0, False, time.monotonic() + self._body_timeout_s

        async def limited() -> Message:
            nonlocal received, is_whole
            if is_whole:  # what comes now is that the caller hangs up, whenever that is
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    message = await receive()
            except TimeoutError as error:
                raise ApiError(
                    408,
                    f"the request did not arrive within {self._body_timeout_s:g} s",
                    headers={"Connection": "close"},
                ) from error
            received += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if received > self._max_body_bytes:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the request is too large; at most {self._max_body_bytes / 2**20:g} MB are taken")

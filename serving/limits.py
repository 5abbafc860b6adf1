"""The outermost layer around the API, before anything is parsed: request id, body cap, admission, metrics.

Ray Serve reads a body of any size and answers overflow with plain text, so both limits are kept here.
"""

from __future__ import annotations

import asyncio
import time
import uuid

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import RETRY_AFTER, ApiError, answer
from serving.metrics import Metrics
from serving.timing import Timing


class Guard:
    """ASGI middleware.

    Args:
        app: the API.
        metrics: where requests are counted.
        max_body_bytes: larger bodies get a 413, by their header or as soon as they have sent that much.
        max_ongoing: POST requests worked on at once; more wait their turn.
        max_queued: POST requests that wait; more get a 503. Other requests are cheap and never wait, so
            probes are answered under load.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, max_body_bytes: int, max_ongoing: int, max_queued: int
    ) -> None:
        self._app, self._metrics = app, metrics
        self._max_body_bytes = max_body_bytes
        self._max_waiting = max_queued
        self._turns = asyncio.Semaphore(max_ongoing)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = Headers(scope=scope)
        # Ray Serve names every request, by the caller's header or a new id, and puts the name on the answer.
        request_id = headers.get("x-request-id", "")[:128] or uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id, timing=Timing(started))
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._admit(scope, headers, receive, send_and_note)
        except ApiError as error:
            await answer(error, request_id)(scope, receive, send_and_note)
        finally:
            # The route is known by now; unknown addresses share one name, so that nobody can make up names.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.count_request(route, scope["method"], status, time.perf_counter() - started)

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
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the request is too large; at most {self._max_body_bytes / 2**20:g} MB are taken")

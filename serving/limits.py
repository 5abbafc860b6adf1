"""What a request must pass before the API looks at it: who asks, how much and how fast it sends, and its turn.

Ray Serve reads a body of any size and answers overflow with plain text, so both limits are kept here. A body is
received before its request takes a turn: who sends slowly keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Awaitable
from typing import IO

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mulan_core.config import ServeConfig
from serving.access import Access
from serving.errors import RETRY_AFTER, ApiError, error_response, internal
from serving.metrics import Metrics

_IN_MEMORY_BYTES = 2**20
"""Of a body; what is larger is on disk until its turn comes."""
_CHUNK_BYTES = 2**18
_CHANGES = ("/v1/tracks", "/v1/feedback")

logger = logging.getLogger("mulan.serving")


class Admission:
    """ASGI middleware.

    Args:
        app: the API.
        access: who may ask for what.
        metrics: where those who wait are counted.
        config: ``max_body_mb``: larger bodies get a 413, by their header or as soon as they have sent that much;
            ``body_timeout_s``: slower ones a 408, counted from when their reading begins. ``max_ongoing_requests``
            POST requests are worked on at once, and ``max_queued_requests`` more wait their turn, each for at most
            ``queue_timeout_s``; the rest get a 503. Other requests are cheap and never wait, so probes are answered
            under load.
    """

    def __init__(self, app: ASGIApp, *, access: Access, metrics: Metrics, config: ServeConfig) -> None:
        self._app, self._access, self._metrics = app, access, metrics
        self._max_body_bytes, self._body_timeout_s = config.max_body_mb * 2**20, config.body_timeout_s
        self._max_waiting, self._queue_timeout_s = config.max_queued_requests, config.queue_timeout_s
        self._max_receiving = config.max_ongoing_requests + config.max_queued_requests
        self._turns = asyncio.Semaphore(config.max_ongoing_requests)
        self._waiting = self._receiving = 0
        self._unfinished: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._admit(scope, receive, send_and_note)
        except ClientDisconnect:
            raise
        except Exception as error:
            if has_started:
                raise
            request_id = scope["state"]["request_id"]
            api_error = error if isinstance(error, ApiError) else internal(error, request_id)
            scope["state"]["error_code"] = api_error.code
            await error_response(api_error, request_id)(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, method = Headers(scope=scope), scope["method"]
        scope["state"]["key"] = self._access.admit(method, scope["path"], headers)
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise self._too_large()
        if method == "DELETE":
            await self._to_the_end(self._app(scope, receive, send))
        elif method != "POST":
            await self._app(scope, receive, send)
        else:
            # Closed by ``_work``, which may go on after this, or with the object where it is not reached.
            body = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
            await self._receive(receive, body)
            body.seek(0)
            await self._in_turn(scope, body, receive, send)

    async def _receive(self, receive: Receive, body: IO[bytes]) -> None:
        """Take a whole body in.

        Raises:
            ApiError: 413, 408, or 503 where too many are sending already.
            ClientDisconnect: if the caller hangs up.
        """
        if self._receiving >= self._max_receiving:
            raise _overloaded("too many requests are arriving; try again later")
        self._receiving += 1
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    try:
                        body.write(message.get("body", b""))
                    except OSError as error:
                        sentence = f"the endpoint has no room to take the request in ({error.strerror or error})"
                        raise ApiError(503, sentence, headers=RETRY_AFTER) from error
                    if body.tell() > self._max_body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return
        except TimeoutError as error:
            sentence = f"the request did not arrive within {self._body_timeout_s:g} s"
            raise ApiError(408, sentence, headers={"Connection": "close"}) from error
        finally:
            self._receiving -= 1

    async def _in_turn(self, scope: Scope, body: IO[bytes], receive: Receive, send: Send) -> None:
        """Wait for a turn, work, and stop both where the caller hangs up, but for what changes something."""
        gone = asyncio.create_task(_hang_up(receive))
        try:
            await self._take_turn(gone)
        except BaseException:
            gone.cancel()
            raise
        work = self._work(scope, body, gone, send)
        if scope["path"].rstrip("/") in _CHANGES:
            await self._to_the_end(work)
        else:
            await _while_wanted(work, gone)

    async def _work(self, scope: Scope, body: IO[bytes], gone: asyncio.Task[None], send: Send) -> None:
        """Have the API answer; it owns the turn, and the body, until it is done."""
        has_turn, was_read = True, False

        def give_back() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                self._turns.release()

        async def receive() -> Message:
            nonlocal was_read
            if was_read:
                await asyncio.wait([gone])
                return {"type": "http.disconnect"}
            chunk = body.read(_CHUNK_BYTES)
            was_read = len(chunk) < _CHUNK_BYTES
            return {"type": "http.request", "body": chunk, "more_body": not was_read}

        async def send_and_give_back(message: Message) -> None:
            give_back()  # the work is done; what is left is the speed of the caller's network
            await send(message)

        try:
            with body:
                await self._app(scope, receive, send_and_give_back)
        finally:
            give_back()
            gone.cancel()

    async def _take_turn(self, gone: asyncio.Task[None]) -> None:
        if not self._turns.locked():
            await self._turns.acquire()
            return
        if self._waiting >= self._max_waiting:
            raise _overloaded("too many requests are waiting; try again later")
        self._waiting += 1
        self._metrics.waiting.set(self._waiting)
        turn = asyncio.create_task(self._turns.acquire())
        try:
            await asyncio.wait([turn, gone], timeout=self._queue_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise ClientDisconnect
            if not turn.done():
                raise _overloaded(f"no turn came within {self._queue_timeout_s:g} s; try again later")
        except BaseException:
            if turn.done():
                self._turns.release()
            turn.cancel()
            raise
        finally:
            self._waiting -= 1
            self._metrics.waiting.set(self._waiting)

    async def _to_the_end(self, work: Awaitable[None]) -> None:
        """Work that changes something: begun, it is finished, whether or not somebody waits for the answer."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:  # from here on nobody else hears of a failure
            task.add_done_callback(_tell_failure)
            raise

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the request is too large; at most {self._max_body_bytes / 2**20:g} MB are taken")


def _tell_failure(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ClientDisconnect):
        logger.error("a change failed after its caller had left", exc_info=error)


async def _hang_up(receive: Receive) -> None:
    """Return when the caller hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _while_wanted(work: Awaitable[None], gone: asyncio.Task[None]) -> None:
    """Work until it is done or nobody waits for it.

    Raises:
        ClientDisconnect: if the caller hung up first.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            return
        raise ClientDisconnect
    finally:
        task.cancel()


def _overloaded(message: str) -> ApiError:
    return ApiError(503, message, code="overloaded", headers=RETRY_AFTER)

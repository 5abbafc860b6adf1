"""A candidate release that answers a share of the searches too, unseen, to be compared in answers and time.

The live release answers as ever. What it was asked is put to the candidate's own API in this process afterwards, one
question at a time, so nobody waits for it; questions that come while it works are skipped.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import Metrics
from serving.prefix import without_prefix

OVERLAP_K = 10
_PATH = "/v1/search"

logger = logging.getLogger("mulan.serving")


class Shadow:
    """ASGI middleware around the live API.

    Args:
        app: the live API.
        candidate: the candidate's API.
        share: of the searches, 0 to 1.
        metrics: where the comparison is counted.
    """

    def __init__(self, app: ASGIApp, *, candidate: ASGIApp, share: float, metrics: Metrics) -> None:
        self._app, self._candidate, self._share, self._metrics = app, candidate, share, metrics
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, and now and then note what was asked and answered."""
        scope = without_prefix(scope)
        if (
            scope["type"] != "http"
            or (scope["method"], scope["path"]) != ("POST", _PATH)
            or random.random() >= self._share
        ):
            await self._app(scope, receive, send)
            return
        if self._task is not None and not self._task.done():
            self._metrics.shadow_searches.labels("skipped").inc()
            await self._app(scope, receive, send)
            return
        asked = bytearray()
        # The application changes its scope; the candidate's begins as this one did. Its keys are not asked for.
        fresh = {**scope, "state": {}, "headers": [(k, v) for k, v in scope["headers"] if k != b"authorization"]}

        async def note() -> Message:
            message = await receive()
            asked.extend(message.get("body", b""))
            return message

        answered = _Answer()

        async def send_and_note(message: Message) -> None:
            answered.take(message)
            await send(message)

        await self._app(scope, note, send_and_note)
        if answered.status == 200:
            self._task = asyncio.create_task(self._compare(fresh, bytes(asked), answered))

    async def _compare(self, scope: Scope, asked: bytes, live: _Answer) -> None:
        messages = iter([{"type": "http.request", "body": asked, "more_body": False}])

        async def receive() -> Message:
            for message in messages:
                return message
            return await asyncio.get_running_loop().create_future()  # nobody hangs up here

        shadow = _Answer()

        async def send(message: Message) -> None:
            shadow.take(message)

        try:
            await self._candidate(scope, receive, send)
            if shadow.status != 200:
                raise ValueError(f"it answers {shadow.status}")
            overlap = overlap_at_k(live.ids(), shadow.ids())
        except Exception as error:
            self._metrics.shadow_searches.labels("failed").inc()
            logger.warning("the shadow failed on a search", extra={"fields": {"reason": str(error)[:200]}})
            return
        self._metrics.shadow_searches.labels("compared").inc()
        self._metrics.shadow_overlap.observe(overlap)
        for name, answer in (("live", live), ("shadow", shadow)):
            self._metrics.shadow_seconds.labels(name).observe(answer.seconds)


class _Answer:
    """What an API sent, and how long it took."""

    def __init__(self) -> None:
        self.status, self.seconds = 0, 0.0
        self._body, self._started = bytearray(), time.perf_counter()

    def take(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self._body.extend(message.get("body", b""))
        self.seconds = time.perf_counter() - self._started

    def ids(self) -> list[str]:
        return [hit["track_id"] for hit in json.loads(self._body)["hits"]]


def overlap_at_k(first: list[str], second: list[str], k: int = OVERLAP_K) -> float:
    """Share of the first k hits of two answers that both have; 1 where neither found anything.

    >>> overlap_at_k(["a", "b", "c", "d"], ["d", "a", "x", "y"])
    0.5
    """
    most = max(len(first[:k]), len(second[:k]))
    return len(set(first[:k]) & set(second[:k])) / most if most else 1.0

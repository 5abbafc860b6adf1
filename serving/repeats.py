"""A write that is asked for twice is done once: the first answer to each ``Idempotency-Key``, kept for some minutes.

A caller whose answer was lost cannot know whether the write was done. It sends the same key again, and gets what the
first request got, whatever others have done to the track since. A request that comes while the first is at work waits
for it. What did nothing (a refusal, a Milvus that is away) is not kept, so the next one tries. A key belongs to one
write: with another one, another track's too, it is refused.

Where a write began and then failed, or its process died, the answer is not known, but what was there before is: that is
noted before anything is changed, so that the next try says ``replaced`` as the first would have. Each turn has a token:
who comes back after its lease has ended finds the turn another one's, and changes nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from fastapi import Header, Request
from fastapi.responses import Response

from serving.errors import ApiError, StoreUnavailableError

KEEP_S = 600.0
LEASE_S = 15.0
"""How long others wait for a request at work before they do it themselves; its process may have died."""
MOST = 10_000
MAX_BYTES = 32 << 20
"""Of answers in memory; the oldest go first."""
REPLAYED = {"Idempotency-Replayed": "true"}

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="A name of your own for this one write. Sent again with the same name within some minutes, it is "
        "not done again: the first answer comes back, with the header Idempotency-Replayed.",
    ),
]

_at_work: set[asyncio.Task[Response]] = set()


class Answers(Protocol):
    """Who remembers; ``FirstAnswers`` in this process, or one for all replicas."""

    async def claim(self, key: str, content: str) -> dict[str, Any]:
        """Whose turn it is."""

    async def note(self, key: str, token: str, facts: dict[str, Any]) -> None:
        """What was there before the write."""

    async def keep(self, key: str, token: str, kept: dict[str, Any]) -> None:
        """The answer."""

    async def give_up(self, key: str, token: str) -> None:
        """There is none."""


@dataclass
class _Entry:
    content: str
    began: float
    busy_until: float
    token: str
    """Of the turn that is going on, or was the last."""
    facts: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class FirstAnswers:
    """First answers in the memory of one event loop."""

    def __init__(self, *, keep_s: float = KEEP_S, lease_s: float = LEASE_S, most: int = MOST) -> None:
        self._keep_s, self._lease_s, self._most = keep_s, lease_s, most
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._num_bytes = 0

    async def claim(self, key: str, content: str) -> dict[str, Any]:
        """Ask for the turn to do a write; waits while another request with the key is at work.

        Args:
            key: of the write, the caller's and the address's names in it.
            content: a hash of what is asked.

        Returns:
            ``{"turn": "mine", "token": ..., "known": ...}``, ``{"turn": "answered", "kept": ...}``, or
            ``{"turn": "other"}`` where the key belongs to another content. Only the token's owner may end the turn.
        """
        token = uuid.uuid4().hex
        while True:
            now = time.monotonic()
            self._forget(now)
            entry = self._entries.get(key)
            if entry is None:
                self._entries[key] = _Entry(content, now, now + self._lease_s, token)
                return {"turn": "mine", "token": token, "known": {}}
            if entry.content != content:
                return {"turn": "other"}
            if entry.kept is not None:
                return {"turn": "answered", "kept": entry.kept}
            if entry.busy_until <= now:
                entry.busy_until, entry.settled, entry.token = now + self._lease_s, asyncio.Event(), token
                return {"turn": "mine", "token": token, "known": dict(entry.facts)}
            try:
                async with asyncio.timeout(entry.busy_until - now):
                    await entry.settled.wait()
            except TimeoutError:
                continue

    async def note(self, key: str, token: str, facts: dict[str, Any]) -> None:
        """Keep what was there before the write, which now begins."""
        if entry := self._owned(key, token):
            entry.facts = dict(facts)

    async def keep(self, key: str, token: str, kept: dict[str, Any]) -> None:
        """Keep the answer."""
        if entry := self._owned(key, token):
            entry.kept = kept
            self._num_bytes += _size(entry)
            entry.settled.set()
            self._forget(time.monotonic())

    async def give_up(self, key: str, token: str) -> None:
        """Let the next one try; where nothing had begun, with any content."""
        if entry := self._owned(key, token):
            entry.busy_until = 0.0
            entry.settled.set()
            if not entry.facts:
                del self._entries[key]

    def _owned(self, key: str, token: str) -> _Entry | None:
        """The entry of a turn that is still its owner's and has not ended."""
        entry = self._entries.get(key)
        return entry if entry is not None and entry.token == token and entry.kept is None else None

    def _forget(self, now: float) -> None:
        while self._entries:
            oldest = next(iter(self._entries.values()))
            is_full = len(self._entries) > self._most or self._num_bytes > MAX_BYTES
            if not is_full and now - oldest.began < self._keep_s:
                return
            self._entries.popitem(last=False)
            self._num_bytes -= _size(oldest)


class Turn:
    """One try at a write.

    Attributes:
        is_again: an earlier try had begun, so what is missing now may be its work.
    """

    def __init__(
        self, answers: Answers | None = None, key: str = "", token: str = "", facts: dict[str, Any] | None = None
    ) -> None:
        self._answers, self._key, self._token, self._facts = answers, key, token, dict(facts or {})
        self.is_again = bool(facts)

    async def know(self, name: str, find: Callable[[], Awaitable[bool]]) -> bool:
        """What held before the first try; noted before anything is changed."""
        if name not in self._facts:
            self._facts[name] = await find()
            if self._answers is not None:
                await self._answers.note(self._key, self._token, self._facts)
        return bool(self._facts[name])

    async def keep(self, kept: dict[str, Any]) -> None:
        """End it with an answer."""
        if self._answers is not None:
            await self._answers.keep(self._key, self._token, kept)

    async def give_up(self) -> None:
        """End it without one."""
        if self._answers is not None:
            await self._answers.give_up(self._key, self._token)


@contextlib.asynccontextmanager
async def alone_at(answers: Answers, track_id: str) -> AsyncIterator[None]:
    """Write one track at a time, over all replicas, so that each write finds what the one before it left.

    Of several deletes of a track that come at once, one deletes it; of several adds one is the first.
    """
    name = json.dumps(["write", track_id])
    claimed = await answers.claim(name, "")  # waits while another one writes
    try:
        yield
    finally:
        with contextlib.suppress(StoreUnavailableError):  # the write is done; its lease ends by itself
            await answers.give_up(name, claimed["token"])


def hash_of(audio: bytes, fields: dict[str, Any]) -> str:
    """What tells one upload from another; the boundaries of a form differ each time."""
    content = json.dumps(fields, sort_keys=True).encode() + b"\0"
    return hashlib.sha256(content + hashlib.sha256(audio).digest()).hexdigest()


async def answer_once(
    request: Request,
    answers: Answers,
    work: Callable[[Turn], Awaitable[Response]],
    *,
    key: str | None,
    content: str = "",
) -> Response:
    """Do a write, or answer as the first request with its key was answered.

    The work goes on where the caller hangs up, so that its answer is there when it asks again.

    Args:
        request: which write, and whose.
        answers: who remembers.
        work: does it.
        key: the ``Idempotency-Key``; without one it is simply done.
        content: tells this request from another one to the same address, which is told from others anyway.

    Raises:
        ApiError: 422 where the key belongs to another request, and whatever the work raises.
    """
    if key is None:
        return await work(Turn())
    holder = request.state.key.key_id if request.state.key else ""
    name = json.dumps(["key", holder, key])
    claimed = await answers.claim(name, json.dumps([request.method, request.scope["path"], content]))
    if claimed["turn"] == "other":
        raise ApiError(422, "this Idempotency-Key was used for another request; give each write a key of its own")
    if claimed["turn"] == "answered":
        kept = claimed["kept"]
        if "error" in kept:
            raise ApiError(*kept["error"], headers=REPLAYED)
        return Response(kept["body"], media_type="application/json", headers=REPLAYED)
    task = asyncio.create_task(_work(work, Turn(answers, name, claimed["token"], claimed["known"])))
    _at_work.add(task)  # the loop itself holds tasks weakly
    task.add_done_callback(_done)
    return await asyncio.shield(task)


async def _work(work: Callable[[Turn], Awaitable[Response]], turn: Turn) -> Response:
    try:
        response = await work(turn)
    except ApiError as error:
        if error.status == 404:  # that nothing was there is a result: a retry must not find what came since
            await turn.keep({"error": [error.status, error.message]})
        else:
            await turn.give_up()
        raise
    except BaseException:
        await turn.give_up()
        raise
    await turn.keep({"body": bytes(response.body)})
    return response


def _done(task: asyncio.Task[Response]) -> None:
    _at_work.discard(task)
    if not task.cancelled():
        task.exception()  # told to the caller, if there still is one


def _size(entry: _Entry) -> int:
    return len((entry.kept or {}).get("body", b""))

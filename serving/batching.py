"""Work for many callers in one run: whoever asks while a run is on shares the next one.

Nobody waits for company: on an idle endpoint a run starts at once with the one that asked, and under load batches
grow by themselves, since more have come by the time the last run is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

X = TypeVar("X")
Y = TypeVar("Y")


class Batcher(Generic[X, Y]):
    """Call it with one item from the event loop; it answers with that item's result.

    Args:
        run: items to as many results, in order; runs in ``pool``, one run at a time. What it raises reaches all
            callers of that run.
        pool: threads.
        max_size: most items of one run.
        note: told the size of each run.
    """

    def __init__(
        self,
        run: Callable[[list[X]], Sequence[Y]],
        pool: Executor,
        *,
        max_size: int,
        note: Callable[[int], None] | None = None,
    ) -> None:
        self._run, self._pool, self._max_size, self._note = run, pool, max_size, note
        self._waiting: list[tuple[X, asyncio.Future[Y]]] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Nothing runs and nobody waits."""
        return self._worker is None and not self._waiting

    async def __call__(self, item: X) -> Y:
        """The item's result."""
        future: asyncio.Future[Y] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[: self._max_size], self._waiting[self._max_size :]
            batch = [(item, future) for item, future in batch if not future.done()]  # whose caller has gone
            if not batch:
                continue
            if self._note is not None:
                self._note(len(batch))
            try:
                results = await loop.run_in_executor(self._pool, self._run, [item for item, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)
        self._worker = None

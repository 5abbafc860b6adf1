"""First answers of all replicas: one small Ray actor, which outlives each of them.

A retry may reach another replica, and the first one may have died over the request: then only what is kept elsewhere
tells that its write was done.
"""

from __future__ import annotations

import contextlib
from typing import Any

import ray
from ray.exceptions import RayActorError

from serving.errors import StoreUnavailableError
from serving.repeats import FirstAnswers

_NAME, _NAMESPACE = "mulan-first-answers", "mulan"


class SharedAnswers:
    """``repeats.Answers`` that all replicas on this Ray share."""

    def __init__(self) -> None:
        self._actor = _open()

    async def claim(self, key: str, content: str) -> dict[str, Any]:
        """See ``FirstAnswers.claim``."""
        claimed: dict[str, Any] = await self._ask("claim", key, content)
        return claimed

    async def note(self, key: str, token: str, facts: dict[str, Any]) -> None:
        """See ``FirstAnswers.note``."""
        await self._ask("note", key, token, facts)

    async def keep(self, key: str, token: str, kept: dict[str, Any]) -> None:
        """See ``FirstAnswers.keep``."""
        await self._ask("keep", key, token, kept)

    async def give_up(self, key: str, token: str) -> None:
        """See ``FirstAnswers.give_up``."""
        await self._ask("give_up", key, token)

    async def _ask(self, method: str, *args: Any) -> Any:
        for _ in range(2):
            try:
                return await getattr(self._actor, method).remote(*args)
            except RayActorError:  # it died, and was started again or can be; what it knew is lost
                self._actor = _open()
        raise StoreUnavailableError("what was written before cannot be looked up now; try again")


def forget() -> None:
    """End the actor; does nothing where none runs."""
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(_NAME, namespace=_NAMESPACE))


def _open() -> Any:
    options = {"name": _NAME, "namespace": _NAMESPACE, "get_if_exists": True, "lifetime": "detached"}
    return ray.remote(FirstAnswers).options(num_cpus=0, max_restarts=-1, **options).remote()

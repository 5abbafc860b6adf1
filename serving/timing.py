"""How long the stages of one request take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Timing:
    """The stages of one request, as they were run."""

    started: float = field(default_factory=time.perf_counter)
    spans: list[tuple[str, float, float]] = field(default_factory=list)
    """Stage, start and end, in seconds of ``time.perf_counter``."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spans.append((name, started, time.perf_counter()))

    def finish(self) -> dict[str, float]:
        """Milliseconds of every stage and the total, rounded to microseconds."""
        stages = {"encode": 0.0, "search": 0.0}
        for name, started, ended in self.spans:
            stages[name] = stages.get(name, 0.0) + (ended - started) * 1000
        total = (time.perf_counter() - self.started) * 1000
        return {name: round(ms, 3) for name, ms in (stages | {"total": total}).items()}

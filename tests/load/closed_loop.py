"""A closed-loop driver: so many callers, each asking again as soon as it is answered.

    python tests/load/closed_loop.py http://127.0.0.1:8000 --callers 32 --seconds 20
    python tests/load/closed_loop.py http://127.0.0.1:7997 --infinity minilm --callers 32

Every text is new, so no vector comes from a cache. Written on plain sockets: httpx takes more time for a request than
the endpoint does, and would be what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

WORDS = [
    ["calm", "sad", "happy", "wild", "dark", "warm", "tense", "dreamy"],
    ["piano", "guitar", "organ", "flute", "strings", "synthesizer", "trumpet", "choir"],
    ["for a rainy night", "to dance to", "at the sea", "in the morning", "on the road", "by the fire"],
]


@dataclass
class Run:
    """What the callers met."""

    seconds: float = 0.0
    times_ms: list[float] = field(default_factory=list)
    statuses: Counter[int | str] = field(default_factory=Counter)

    def summary(self) -> dict[str, float | dict[str, int]]:
        """Requests a second, percentiles and statuses."""
        times = self.times_ms or [float("nan")]
        named = {f"p{q}_ms": round(float(np.percentile(times, q)), 2) for q in (50, 95, 99)}
        statuses = {str(status): count for status, count in self.statuses.items()}
        return {"per_s": round(len(self.times_ms) / self.seconds, 1), **named, "statuses": statuses}


def new_texts(seed: int) -> Callable[[], str]:
    """Texts of six or so words, none of them twice."""
    phrases = itertools.cycle(itertools.product(*WORDS))
    number = itertools.count(seed)
    return lambda: f"{' '.join(next(phrases))} {next(number)}"


def search_body(text: str) -> tuple[str, bytes]:
    """Path and body of a search."""
    return "/v1/search", json.dumps({"text": text, "k": 10}).encode()


def infinity_body(model: str) -> Callable[[str], tuple[str, bytes]]:
    """Path and body of an embedding as OpenAI's clients ask for it."""
    return lambda text: ("/embeddings", json.dumps({"model": model, "input": [text]}).encode())


async def drive(
    url: str,
    body_of: Callable[[str], tuple[str, bytes]],
    *,
    callers: int,
    seconds: float,
    key: str | None = None,
    seed: int | None = None,
    per_s: float | None = None,
) -> Run:
    """Keep ``callers`` requests under way for ``seconds``; with ``per_s`` at most so many a second are sent."""
    address = urlsplit(url)
    run, next_text = Run(), new_texts(int(time.time()) if seed is None else seed)
    head = f"Host: {address.netloc}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {key}\r\n" if key else ""
    started, turns = time.perf_counter(), itertools.count()

    async def call() -> None:
        reader, writer = None, None
        while time.perf_counter() < started + seconds:
            if per_s:
                await asyncio.sleep(max(0.0, started + next(turns) / per_s - time.perf_counter()))
            path, body = body_of(next_text())
            asked = time.perf_counter()
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection(address.hostname, address.port)
                writer.write(f"POST {path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                status = await _answer(reader)
            except (OSError, asyncio.IncompleteReadError) as error:
                run.statuses[type(error).__name__] += 1
                writer = None
                continue
            run.statuses[status] += 1
            if status == 200:
                run.times_ms.append((time.perf_counter() - asked) * 1000)
        if writer is not None:
            writer.close()

    await asyncio.gather(*(call() for _ in range(callers)))
    run.seconds = time.perf_counter() - started
    return run


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    if "content-length:" in head:
        await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
    else:  # chunked
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    return status


def main() -> None:
    """Drive and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--key", help="API key")
    parser.add_argument("--infinity", metavar="MODEL", help="the URL is infinity-emb's, which serves this model")
    given = parser.parse_args()
    body_of = infinity_body(given.infinity) if given.infinity else search_body
    asyncio.run(drive(given.url, body_of, callers=given.callers, seconds=2.0))  # warm up
    run = asyncio.run(drive(given.url, body_of, callers=given.callers, seconds=given.seconds, key=given.key))
    print(json.dumps(run.summary()))  # noqa: T201 - a program


if __name__ == "__main__":
    main()

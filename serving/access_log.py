"""What is known of a request once it is answered, and the log: one line of JSON for each.

No line holds a query, an address or a key; the query log, where it is on, is elsewhere.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO


@dataclass(frozen=True)
class Record:
    """One answered request."""

    request_id: str
    method: str
    route: str
    """As the API declares it, such as ``/v1/tracks/{track_id:path}``: never an address that someone made up."""
    status: int
    began_ns: int
    """Nanoseconds since 1970."""
    seconds: float
    spans: list[tuple[str, float, float]]
    """Stages with their start and end, seconds after the request came."""
    error: str | None
    key_id: str | None
    traceparent: tuple[str, ...] = ()
    """The caller's own trace, in the W3C's form, as often as the header came."""
    tracestate: tuple[str, ...] = ()
    """What the caller's tracing systems say beside it; passed on."""


Recorder = Callable[[Record], None]


class JsonLines(logging.Formatter):
    """A log record as one line of JSON; what is given as ``extra={"fields": {...}}`` becomes keys."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {"time": f"{stamp}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        line |= {"message": record.getMessage()} | getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to(stream: TextIO = sys.stderr) -> None:
    """Send the endpoint's log to a stream, once; Ray keeps a replica's stderr with its own logs."""
    logger = logging.getLogger("mulan")
    if not any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonLines())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def request_log(model_version: str, collection: str) -> Recorder:
    """A recorder that writes the log's line of a request."""
    logger = logging.getLogger("mulan.requests")

    def record(done: Record) -> None:
        fields: dict[str, Any] = {
            "request_id": done.request_id,
            "method": done.method,
            "route": done.route,
            "status": done.status,
            "ms": round(done.seconds * 1000, 2),
            "release": model_version,
            "collection": collection,
        }
        for stage, start, end in done.spans:
            fields[f"{stage}_ms"] = round(fields.get(f"{stage}_ms", 0.0) + (end - start) * 1000, 2)
        fields |= {name: value for name, value in (("error", done.error), ("key", done.key_id)) if value}
        logger.info("request", extra={"fields": fields})

    return record

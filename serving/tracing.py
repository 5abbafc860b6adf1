"""Traces of requests, sent to an OpenTelemetry collector where OTEL_EXPORTER_OTLP_ENDPOINT names one.

A request is a span, its stages are spans below it, and a caller's ``traceparent`` is taken up. They go out as OTLP over
HTTP from a thread of their own; where the collector is slow or away they are dropped, and requests do not wait.

The spans are put together here from what is known when the answer is out, so OpenTelemetry's SDK is not needed: only
its wire format, ``opentelemetry-proto``, which MLflow brings along.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import secrets
import threading
import time
from urllib.parse import unquote

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from serving.records import Record

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_MOST_QUEUED, _MOST_SENT, _EVERY_S = 2_000, 500, 1.0

logger = logging.getLogger("mulan.serving")


class TraceExporter:
    """A recorder that sends traces.

    Args:
        endpoint: the collector's address, without ``/v1/traces``.
        headers: sent with every batch, such as a collector's token.
        resource: what all spans say of their source, such as ``service.name``.
    """

    def __init__(self, endpoint: str, *, headers: dict[str, str], resource: dict[str, str]) -> None:
        self._url = f"{endpoint.rstrip('/')}/v1/traces"
        self._headers = {**headers, "Content-Type": "application/x-protobuf"}
        self._resource = [_attribute(name, value) for name, value in resource.items()]
        self._queue: queue.Queue[Record | None] = queue.Queue(_MOST_QUEUED)
        self._is_away = False
        self._thread = threading.Thread(target=self._send_all, daemon=True, name="traces")
        self._thread.start()

    def __call__(self, record: Record) -> None:
        """Take a request in; drops it where too many wait."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._warn("too many traces are waiting")

    def close(self) -> None:
        """Send what waits."""
        self._queue.put(None)
        self._thread.join(10)

    def _send_all(self) -> None:
        with httpx.Client(timeout=5.0, headers=self._headers) as client:
            is_last = False
            while not is_last:
                batch = [self._queue.get()]
                if batch[0] is not None and self._queue.qsize() < _MOST_SENT:
                    time.sleep(_EVERY_S)  # more are on their way
                while len(batch) < _MOST_SENT and not self._queue.empty():
                    batch.append(self._queue.get())
                is_last = None in batch
                records = [record for record in batch if record is not None]
                if records:
                    self._send(client, records)

    def _send(self, client: httpx.Client, records: list[Record]) -> None:
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        group.resource.attributes.extend(self._resource)
        scope = group.scope_spans.add()
        scope.scope.name = "mulan.serving"
        for record in records:
            scope.spans.extend(spans_of(record))
        try:
            client.post(self._url, content=request.SerializeToString()).raise_for_status()
            self._is_away = False
        except httpx.HTTPError as error:
            self._warn(str(error) or type(error).__name__)

    def _warn(self, reason: str) -> None:
        if not self._is_away:  # once, until it is back
            logger.warning("traces are dropped: %s", reason)
        self._is_away = True


def spans_of(record: Record) -> list[Span]:
    """The request and its stages."""
    around = _TRACEPARENT.fullmatch(record.traceparent or "")
    trace = bytes.fromhex(around[1]) if around else secrets.token_bytes(16)
    whole = Span(
        trace_id=trace,
        span_id=secrets.token_bytes(8),
        parent_span_id=bytes.fromhex(around[2]) if around else b"",
        name=f"{record.method} {record.route}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=record.began_ns,
        end_time_unix_nano=record.began_ns + int(record.seconds * 1e9),
        attributes=[
            _attribute("http.request.method", record.method),
            _attribute("http.route", record.route),
            _attribute("http.response.status_code", record.status),
            _attribute("mulan.request_id", record.request_id),
            *([_attribute("error.type", record.error)] if record.error else []),
        ],
        status=Status(code=Status.STATUS_CODE_ERROR if record.status >= 500 else Status.STATUS_CODE_UNSET),
    )
    stages = [
        Span(
            trace_id=trace,
            span_id=secrets.token_bytes(8),
            parent_span_id=whole.span_id,
            name=name,
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=record.began_ns + int(start * 1e9),
            end_time_unix_nano=record.began_ns + int(end * 1e9),
        )
        for name, start, end in record.spans
    ]
    return [whole, *stages]


def traces_from_environment(model_version: str, collection: str) -> TraceExporter | None:
    """The exporter that the environment asks for.

    Reads OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS (``name=value,...``) and OTEL_SERVICE_NAME.
    """
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        return None
    pairs = (pair.partition("=") for pair in os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",") if pair)
    resource = {"service.name": os.environ.get("OTEL_SERVICE_NAME") or "mulan"}
    resource |= {"mulan.model_version": model_version, "mulan.collection": collection}
    return TraceExporter(endpoint, headers={n.strip(): unquote(v.strip()) for n, _, v in pairs}, resource=resource)


def _attribute(name: str, value: str | int) -> KeyValue:
    kind = AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)
    return KeyValue(key=name, value=kind)

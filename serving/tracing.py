"""Traces of requests, sent to an OpenTelemetry collector where OTEL_EXPORTER_OTLP_ENDPOINT names one.

A request is a span and its stages are spans below it. They are made when the answer is out, from what was noted on the
way; OpenTelemetry's SDK then says which are kept, by the caller's ``traceparent`` and by OTEL_TRACES_SAMPLER, and sends
them from a thread of its own. Where the collector is slow or away they are dropped, and requests do not wait.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.access_log import Record
from serving.loopback import stays_here

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables that name the collector; the first is the whole address, the second goes without ``/v1/traces``."""

_CLOSE_MS = 5_000
_TALKATIVE = ("opentelemetry.exporter.otlp", "opentelemetry.exporter.http", "opentelemetry.trace.propagation")
"""Loggers that have a line for each failed batch, and for each odd header of a caller."""
_TRACE_CONTEXT = TraceContextTextMapPropagator()

logger = logging.getLogger("mulan.serving")


class Traces:
    """A recorder that makes spans of requests.

    Args:
        exporter: takes the finished spans.
        resource: what all spans say of their source, such as ``service.name``; what the environment says
            (OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME) is added, and a service that nobody has named is ``mulan``.
    """

    def __init__(self, exporter: SpanExporter, *, resource: dict[str, str]) -> None:
        source = Resource.create(resource)
        if str(source.attributes[SERVICE_NAME]).startswith("unknown_service"):
            source = source.merge(Resource({SERVICE_NAME: "mulan"}))
        # Not the process's global provider: Ray and MLflow have traces of their own.
        self._provider = TracerProvider(resource=source, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_ToldOnce(exporter)))
        self._tracer = self._provider.get_tracer("mulan.serving")

    def __call__(self, record: Record) -> None:
        """Take a request in; drops it where the sampler says so or too many wait."""
        around = _TRACE_CONTEXT.extract(_carrier(record), context=Context())
        whole = self._tracer.start_span(
            f"{record.method} {record.route}",
            context=around,
            kind=SpanKind.SERVER,
            start_time=record.began_ns,
            attributes={
                "http.request.method": record.method,
                "http.route": record.route,
                "http.response.status_code": record.status,
                "mulan.request_id": record.request_id,
                **({"error.type": record.error} if record.error else {}),
            },
        )
        if not whole.is_recording():
            return
        if record.status >= 500:
            whole.set_status(Status(StatusCode.ERROR))
        below = set_span_in_context(whole, Context())
        for name, start, end in record.spans:
            stage = self._tracer.start_span(name, context=below, start_time=record.began_ns + int(start * 1e9))
            stage.end(record.began_ns + int(end * 1e9))
        whole.end(record.began_ns + int(record.seconds * 1e9))

    def close(self) -> None:
        """Send what waits, for some seconds."""
        self._provider.force_flush(_CLOSE_MS)
        self._provider.shutdown()


class _ToldOnce(SpanExporter):
    """An exporter whose failures are told once, until it works again; the SDK would tell of every batch."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter, self._is_away = exporter, False
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # whatever it is, it costs traces and nothing else
            self._tell(f": {error}")
            return SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._is_away = False
        else:
            self._tell("")
        return result

    def shutdown(self) -> None:
        """End what is being sent."""
        self._exporter.shutdown()

    def _tell(self, reason: str) -> None:
        if not self._is_away:
            logger.warning("traces are dropped: the collector takes none%s", reason)
        self._is_away = True


def collector_address() -> str | None:
    """Where the environment has traces sent, in full; None where it wants none."""
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if is_off or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    whole, base = (os.environ.get(name, "").strip() for name in ENDPOINTS)
    return whole or (f"{base.rstrip('/')}/v1/traces" if base else None)


def traces_from_environment(model_version: str, collection: str) -> Traces | None:
    """The recorder that the environment asks for, by OpenTelemetry's own variables.

    Besides those of the address (``ENDPOINTS``) OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_TIMEOUT and the like,
    OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and OTEL_SDK_DISABLED count.
    """
    address = collector_address()
    if address is None:
        return None
    session = requests.Session()
    session.trust_env = not stays_here(address)  # no proxy of the environment reaches this machine's own
    resource = {"mulan.model_version": model_version, "mulan.collection": collection}
    return Traces(OTLPSpanExporter(endpoint=address, session=session), resource=resource)


def _carrier(record: Record) -> dict[str, list[str]]:
    """The caller's headers, as W3C Trace Context reads them: two traceparents are none."""
    if len(record.traceparent) != 1:
        return {}
    return {"traceparent": list(record.traceparent), "tracestate": list(record.tracestate)}

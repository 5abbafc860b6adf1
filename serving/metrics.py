"""Numbers of one replica for Prometheus, in its text format at /metrics.

prometheus_client comes with ``ray[serve]``.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from serving.release import Release

HUNG_UP = 499
"""The status of a request whose caller left before the answer was out, as nginx has it; nobody gets to see it."""

_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5, 10)
_BUCKETS_SHARE = tuple(i / 10 for i in range(11))
_BUCKETS_BATCH = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """What a replica has done since it started."""

    def __init__(self) -> None:
        disable_created_metrics()  # else every series comes twice, once as the time it began
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "mulan_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "mulan_request_seconds", "Time to answer.", ["route"], registry=registry, buckets=_BUCKETS_S
        )
        self._stages = Histogram(
            "mulan_stage_seconds", "Time in a stage.", ["stage"], registry=registry, buckets=_BUCKETS_S
        )
        self._release = Gauge(
            "mulan_release_info", "The release served.", ["model_version", "collection"], registry=registry
        )
        self.errors = Counter("mulan_errors", "Answers that are errors, by their code.", ["code"], registry=registry)
        self.waiting = Gauge("mulan_waiting_requests", "Requests waiting for their turn.", registry=registry)
        self.batch_size = Histogram(
            "mulan_batch_size", "Queries worked on in one run.", ["stage"], registry=registry, buckets=_BUCKETS_BATCH
        )
        self.text_cache = Counter(
            "mulan_text_cache", "Texts asked for, by whether their vector was at hand.", ["result"], registry=registry
        )
        self.index_tracks = Gauge("mulan_index_tracks", "Tracks in the collection.", registry=registry)
        self.no_good_match = Counter(
            "mulan_no_good_match", "Searches whose best hit is not likely to fit.", registry=registry
        )
        self.query_drift = Gauge(
            "mulan_query_drift",
            "How far the mean of the last text queries lies from that of the catalogue's labels: 1 - cosine.",
            registry=registry,
        )
        self.shadow_share = Gauge(
            "mulan_shadow_share",
            "Share of the searches that a candidate answers too; 0 without one.",
            registry=registry,
        )
        self.shadow_searches = Counter(
            "mulan_shadow_searches",
            "Searches put to the candidate: compared, failed, or skipped while it worked.",
            ["result"],
            registry=registry,
        )
        self.shadow_overlap = Histogram(
            "mulan_shadow_overlap",
            "Share of the first ten hits that both releases have.",
            registry=registry,
            buckets=_BUCKETS_SHARE,
        )
        self.shadow_seconds = Histogram(
            "mulan_shadow_seconds",
            "Time that each of the two took for the same search.",
            ["release"],
            registry=registry,
            buckets=_BUCKETS_S,
        )
        for result in ("compared", "failed", "skipped"):
            self.shadow_searches.labels(result)
        for which in ("live", "shadow"):
            self.shadow_seconds.labels(which)

    def name_release(self, release: Release) -> None:
        """Say what is served."""
        self._release.labels(release.model_version, release.collection).set(1)

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer."""
        method = method if method in ("GET", "HEAD", "POST", "DELETE") else "other"
        self._requests.labels(route, method, str(status)).inc()
        if status != HUNG_UP:  # nothing was answered then
            self._seconds.labels(route).observe(seconds)

    def count_stages(self, timing_ms: Mapping[str, float]) -> None:
        """Count the stages of one answer; ``total`` is counted by its route."""
        for stage, ms in timing_ms.items():
            if stage != "total":
                self._stages.labels(stage).observe(ms / 1000)

    def text(self) -> bytes:
        """All numbers in Prometheus's text format."""
        return generate_latest(self._registry)

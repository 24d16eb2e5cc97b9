"""Counters for Prometheus: requests, their time, how many texts are computed together, and the process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "staged_ulmfit_requests", "Requests answered.", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "staged_ulmfit_request_seconds", "Seconds from a request's header to the end of its answer.", ["path"],
            buckets=SECONDS, registry=registry,
        )
        self.batch_texts = Histogram(
            "staged_ulmfit_batch_texts", "Texts that were computed together.", buckets=TEXTS, registry=registry
        )
        self.batch_seconds = Histogram(
            "staged_ulmfit_batch_seconds", "Seconds to compute such a batch.", buckets=SECONDS, registry=registry
        )
        self.waiting = Gauge(
            "staged_ulmfit_waiting_requests", "Requests for predictions that wait for a batch.", registry=registry
        )

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)

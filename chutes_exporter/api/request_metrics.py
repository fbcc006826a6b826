"""The metrics about requests to the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram

from chutes_exporter.metric import Metric

if TYPE_CHECKING:
    from chutes_exporter.api.decoding import Tally

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

REQUESTS = Metric(
    "chutes_api_requests_total",
    "Requests to the Chutes API and to a node of the chain (endpoint chain) by HTTP status, or by "
    "the reason of the failure if there was no complete answer.",
    ("endpoint", "code"),
)
DURATION = Metric(
    "chutes_api_request_duration_seconds",
    "Time from a request to the Chutes API to the end of the answer.",
    ("endpoint",),
    histogram=True,
)
BYTES = Metric(
    "chutes_api_response_bytes_total",
    "Bytes of the Chutes API's answers, decompressed.",
    ("endpoint",),
)
REJECTED = Metric(
    "chutes_api_rejected_records_total",
    "Records of answers that could not be read and were left out.",
    ("endpoint",),
)
REQUEST_METRICS = (REQUESTS, DURATION, BYTES, REJECTED)


class RequestCounters:
    """Counts the requests of a client. Its registry shows the counters.

    Attributes:
        total: Number of all requests. While it is the same, so are the counters.
    """

    def __init__(self) -> None:
        self.total = 0
        self.registry = CollectorRegistry()
        self._requests = REQUESTS.register(Counter, self.registry)
        self._bytes = BYTES.register(Counter, self.registry)
        self._rejected = REJECTED.register(Counter, self.registry)
        self._durations = DURATION.register(Histogram, self.registry, buckets=_BUCKETS)

    def add(self, endpoint: str, code: str, seconds: float, tally: Tally) -> None:
        """Count a finished request, with the HTTP status or the error's reason."""
        self._requests.labels(endpoint, code).inc()
        self._bytes.labels(endpoint).inc(tally.size)
        self._rejected.labels(endpoint).inc(tally.rejected)
        self._durations.labels(endpoint).observe(seconds)
        # This comes last: a page that is made meanwhile has the old total, and is made again.
        self.total += 1

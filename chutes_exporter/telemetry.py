"""The exporter's metrics of itself: what it asked of the API, how it went, and how fresh its data is."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import prometheus_client as prom

from chutes_exporter import __version__
from chutes_exporter.metric import Metric, info

if TYPE_CHECKING:
    from chutes_exporter.api.client import Exchange

_COLLECTOR = ("collector", "hotkey")
_FEED = ("feed", "hotkey")

BUILD_INFO = info(
    "chutes_exporter_build_info",
    "Version of the exporter and of its Python.",
    ("version", "python"),
    "exporter",
)
COLLECTOR_SUCCESS = Metric(
    "chutes_scrape_collector_success",
    "Whether the collector had fresh answers to all it asked (1). With 0 its samples are older, or missing. The "
    "hotkey is empty for what is platform-wide.",
    _COLLECTOR,
    "exporter",
)
COLLECTOR_DURATION = Metric(
    "chutes_scrape_collector_duration_seconds",
    "How long the collector waited for answers and worked on them.",
    _COLLECTOR,
    "exporter",
)
COLLECTOR_DUPLICATES = Metric(
    "chutes_scrape_collector_duplicate_samples",
    "Samples left out because the answers described one series twice.",
    _COLLECTOR,
    "exporter",
)
FEED_UP = Metric(
    "chutes_feed_up",
    "Whether the feed's last request succeeded (1). Absent until the first one ended. The hotkey is empty for what "
    "is platform-wide.",
    _FEED,
    "exporter",
)
FEED_LAST_SUCCESS = Metric(
    "chutes_feed_last_success_timestamp_seconds",
    "When the newest good answer came: the age of all data built on it.",
    _FEED,
    "exporter",
)
FEED_TTL = Metric("chutes_feed_ttl_seconds", "How long an answer of the feed counts as fresh.", _FEED, "exporter")
FEED_MAX_AGE = Metric(
    "chutes_feed_max_age_seconds", "Age at which an answer of the feed is dropped.", _FEED, "exporter"
)
FEED_REQUESTS = Metric(
    "chutes_feed_requests_total",
    "Readings of the feed by how they came about: hit (cached), miss (asked), joined (waited for a request under "
    "way), stale (older data, for want of newer), failed (no data).",
    ("feed", "hotkey", "result"),
    "exporter",
    kind="counter",
)
COLLECTOR_CUT = Metric(
    "chutes_scrape_collector_cut",
    "Whether the collector's samples are left out because the page would have more series than --max-series (1).",
    ("collector",),
    "exporter",
)
SERIES = Metric("chutes_scrape_series", "Series of all collectors, those that are left out included.", (), "exporter")
SERIES_LIMIT = Metric(
    "chutes_scrape_series_limit", "Most series that collectors may have together (--max-series).", (), "exporter"
)
METRICS = (
    BUILD_INFO,
    COLLECTOR_CUT,
    SERIES,
    SERIES_LIMIT,
    COLLECTOR_SUCCESS,
    COLLECTOR_DURATION,
    COLLECTOR_DUPLICATES,
    FEED_UP,
    FEED_LAST_SUCCESS,
    FEED_TTL,
    FEED_MAX_AGE,
    FEED_REQUESTS,
)


def python_version() -> str:
    """Return the version of the running Python."""
    return platform.python_version()


class Telemetry:
    """Counts the exporter's exchanges with the API. Pass :meth:`observe` to the client as its watcher."""

    def __init__(self) -> None:
        self._registry = prom.CollectorRegistry()
        prom.ProcessCollector(registry=self._registry)
        prom.PlatformCollector(registry=self._registry)
        prom.GCCollector(registry=self._registry)
        self._requests = prom.Counter(
            "chutes_api_requests",
            "Requests to the Chutes API by HTTP status, or by the reason where there was no whole answer.",
            ("endpoint", "code"),
            registry=self._registry,
        )
        self._duration = prom.Histogram(
            "chutes_api_request_duration_seconds",
            "Time from asking the Chutes API to the end of its answer.",
            ("endpoint",),
            registry=self._registry,
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        )
        self._bytes = prom.Counter(
            "chutes_api_response_bytes",
            "Bytes of the Chutes API's answers, decompressed.",
            ("endpoint",),
            registry=self._registry,
        )
        self._rejected = prom.Counter(
            "chutes_api_rejected_records",
            "Records of answers that could not be read and were left out.",
            ("endpoint",),
            registry=self._registry,
        )
        self._offset = prom.Gauge(
            "chutes_api_clock_offset_seconds",
            "Local clock less the Chutes API's, to half a second; beyond 600 either way signatures are refused.",
            registry=self._registry,
        )
        self._clock_known = False

    def observe(self, exchange: Exchange) -> None:
        """Count an exchange with the API."""
        self._requests.labels(exchange.endpoint, exchange.code).inc()
        self._duration.labels(exchange.endpoint).observe(exchange.seconds)
        self._bytes.labels(exchange.endpoint).inc(exchange.size)
        self._rejected.labels(exchange.endpoint).inc(exchange.rejected)
        if exchange.clock_offset is not None:
            self._offset.set(exchange.clock_offset)
            self._clock_known = True

    def families(self) -> list[prom.Metric]:
        """Return what was counted, and the metrics of the process and its Python."""
        return [
            family
            for family in self._registry.collect()
            # Before the first answer the offset is unknown, which is not zero.
            if family.samples and (self._clock_known or family.name != "chutes_api_clock_offset_seconds")
        ]


def build_labels() -> tuple[str, str]:
    """Return the label values of :data:`BUILD_INFO`."""
    return __version__, python_version()

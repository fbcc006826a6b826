"""The exporter's metrics of itself: what it asked of the API, how it went, and how fresh its data is."""

from __future__ import annotations

import math
import platform
import time
from typing import TYPE_CHECKING, Any, TypeVar

import prometheus_client as prom

from chutes_exporter import __version__
from chutes_exporter.collectors.samples import Metrics
from chutes_exporter.page.exposition import render_own

if TYPE_CHECKING:
    from chutes_exporter.api.client import Exchange
    from chutes_exporter.collectors.samples import Metric, Samples
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.feeds.feed import Snapshot
    from chutes_exporter.page.exposition import Format
    from chutes_exporter.page.rendering import Rendering

METRICS = Metrics()
"""The exporter's own metrics of a page."""

API_METRICS = Metrics()
"""Metrics that prometheus-client counts, as exchanges with the API come and go."""

_COLLECTOR = ("collector", "hotkey")
_FEED = ("feed", "hotkey")

BUILD_INFO = METRICS.info(
    "chutes_exporter_build_info",
    "Version of the exporter and of its Python.",
    ("version", "python"),
    "exporter",
)
WATCHED = METRICS.gauge(
    "chutes_miner_watched",
    "1 for each miner that the exporter was told to watch: those whom alerts are about, whoever else is exported.",
    ("hotkey",),
    "exporter: --hotkey, --hotkey-file, MINER_SS58",
)
RELOAD_GOOD = METRICS.gauge(
    "chutes_exporter_config_last_reload_successful",
    "Whether the configuration could be read (1) when it was last read: at the start, at a reload, or when the web "
    "configuration changed. With 0 an older one is in force.",
    (),
    "exporter",
)
RELOAD_TIMESTAMP = METRICS.gauge(
    "chutes_exporter_config_last_reload_success_timestamp_seconds",
    "When the configuration in force was read.",
    (),
    "exporter",
)
COLLECTOR_CUT = METRICS.gauge(
    "chutes_scrape_collector_cut",
    "Whether the collector's samples are left out because the page would have more series than --max-series (1).",
    ("collector",),
    "exporter",
)
COLLECTOR_OFF = METRICS.gauge(
    "chutes_scrape_collector_off",
    "Whether the collector is off because the API answers 404 for an endpoint that it needs (1): this deployment does "
    "not have it. The exporter asks again every hour, and after a reload.",
    ("collector",),
    "exporter",
)
SERIES = METRICS.gauge(
    "chutes_scrape_series", "Series of all collectors, those that are left out included.", (), "exporter"
)
SERIES_LIMIT = METRICS.gauge(
    "chutes_scrape_series_limit", "Most series that collectors may have together (--max-series).", (), "exporter"
)
COLLECTOR_SUCCESS = METRICS.gauge(
    "chutes_scrape_collector_success",
    "Whether the collector had fresh answers to all it asked (1). With 0 its samples are older, or missing. Absent "
    "while the collector is off. The hotkey is empty for what is platform-wide.",
    _COLLECTOR,
    "exporter",
)
COLLECTOR_DURATION = METRICS.gauge(
    "chutes_scrape_collector_duration_seconds",
    "How long the collector waited for answers and worked on them.",
    _COLLECTOR,
    "exporter",
)
COLLECTOR_DUPLICATES = METRICS.gauge(
    "chutes_scrape_collector_duplicate_samples",
    "Samples left out because the answers described one series twice.",
    _COLLECTOR,
    "exporter",
)
FEED_UP = METRICS.gauge(
    "chutes_feed_up",
    "Whether the feed's last request succeeded (1). Absent until the first one ended, and like all metrics of the feed "
    "while the deployment does not have its endpoint. The hotkey is empty for what is platform-wide.",
    _FEED,
    "exporter",
)
FEED_FAILURE = METRICS.info(
    "chutes_feed_failure_info",
    "Why the feed's last request failed, in a word; only while it is down. Among them are signature_refused, "
    "not_registered, rate_limited, unavailable, timed_out, cut_off, doubted and undecodable.",
    (*_FEED, "reason"),
    "exporter",
)
FEED_LAST_SUCCESS = METRICS.gauge(
    "chutes_feed_last_success_timestamp_seconds",
    "When the newest good answer was asked for: the age of the answer, not of its data. Stats, scores and history can "
    "be 10 minutes older, because the service computes them every 10 minutes and does not say when.",
    _FEED,
    "exporter",
)
FEED_REJECTED = METRICS.gauge(
    "chutes_feed_rejected_records",
    "Records of the newest answer that could not be read and are missing from the metrics. Where there are any, "
    "counts, ranks and zeros that they could make false are absent.",
    _FEED,
    "exporter",
)
FEED_RECORDS = METRICS.gauge(
    "chutes_feed_records",
    "Records of the newest good answer.",
    _FEED,
    "exporter",
)
FEED_DOUBTED = METRICS.gauge(
    "chutes_feed_doubted",
    "Whether the newest answer is doubted (1), by reason: shrunk (the list lost more than a fifth and a second answer "
    "did not confirm it), disagrees (another endpoint names records that are missing), no_demand (every chute reports "
    "zero), no_bounties (three or more went at once), no_history (a miner lost its history). The last good answer "
    "stays in use until its maximum age; without one, the doubted answer is used and counts, ranks and "
    "zeros are absent.",
    (*_FEED, "reason"),
    "exporter",
)
FEED_TTL = METRICS.gauge(
    "chutes_feed_ttl_seconds", "How long an answer of the feed counts as fresh.", _FEED, "exporter"
)
FEED_MAX_AGE = METRICS.gauge(
    "chutes_feed_max_age_seconds", "Age at which an answer of the feed is dropped.", _FEED, "exporter"
)
FEED_REQUESTS = METRICS.counter(
    "chutes_feed_requests_total",
    "Readings of the feed by how they came about: hit (cached), miss (asked), coalesced (waited for a request under "
    "way), stale (older data, for want of newer), failed (no data).",
    ("feed", "hotkey", "result"),
    "exporter",
)

_ENDPOINT = ("endpoint",)
_CLOCK_MAX_AGE = 600.0
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

API_REQUESTS = API_METRICS.counter(
    "chutes_api_requests_total",
    "Requests to the Chutes API by HTTP status, or by the reason where there was no whole answer.",
    ("endpoint", "code"),
    "exporter",
)
API_DURATION = API_METRICS.histogram(
    "chutes_api_request_duration_seconds",
    "Time from asking the Chutes API to the end of its answer.",
    _ENDPOINT,
    "exporter",
)
API_BYTES = API_METRICS.counter(
    "chutes_api_response_bytes_total",
    "Bytes of the Chutes API's answers, decompressed.",
    _ENDPOINT,
    "exporter",
)
API_REJECTED = API_METRICS.counter(
    "chutes_api_rejected_records_total",
    "Records of answers that could not be read and were left out.",
    _ENDPOINT,
    "exporter",
)
API_CLOCK_OFFSET = API_METRICS.gauge(
    "chutes_api_clock_offset_seconds",
    "Local clock less the Chutes API's, to half a second; beyond 600 either way signatures are refused.",
    (),
    "exporter: the answers' Date",
)

_Instrument = TypeVar("_Instrument", bound=prom.metrics.MetricWrapperBase)


def _instrument(
    kind: type[_Instrument], metric: Metric, registry: prom.CollectorRegistry, **options: Any
) -> _Instrument:
    return kind(metric.name.removesuffix("_total"), metric.help, metric.labels, registry=registry, **options)


def python_version() -> str:
    """Return the version of the running Python."""
    return platform.python_version()


class Telemetry:
    """Counts the exporter's exchanges with the API. Pass :meth:`observe` to the client as its watcher.

    Attributes:
        reload_good: Whether the configuration could be read the last time.
        reloaded_at: Unix time at which the one in force was read, or None since the start.
    """

    def __init__(self) -> None:
        self.reload_good = True
        self.reloaded_at: float | None = None
        self._process = prom.CollectorRegistry()
        prom.ProcessCollector(registry=self._process)
        prom.PlatformCollector(registry=self._process)
        prom.GCCollector(registry=self._process)
        self._registry = prom.CollectorRegistry()
        self._rendered: dict[tuple[Format, bool, bool], bytes] = {}
        self._requests = _instrument(prom.Counter, API_REQUESTS, self._registry)
        self._duration = _instrument(prom.Histogram, API_DURATION, self._registry, buckets=_BUCKETS)
        self._bytes = _instrument(prom.Counter, API_BYTES, self._registry)
        self._rejected = _instrument(prom.Counter, API_REJECTED, self._registry)
        self._offset = _instrument(prom.Gauge, API_CLOCK_OFFSET, self._registry)
        self._clock_seen = -math.inf

    def observe(self, exchange: Exchange) -> None:
        """Count an exchange with the API."""
        self._rendered = {}
        self._requests.labels(exchange.endpoint, exchange.code).inc()
        self._duration.labels(exchange.endpoint).observe(exchange.seconds)
        self._bytes.labels(exchange.endpoint).inc(exchange.size)
        self._rejected.labels(exchange.endpoint).inc(exchange.rejected)
        if exchange.clock_offset is not None:
            self._offset.set(exchange.clock_offset)
            self._clock_seen = time.monotonic()

    def note_reload(self, now: float, *, good: bool) -> None:
        """Note that the configuration was read again."""
        self.reload_good = good
        if good:
            self.reloaded_at = now

    def render(self, form: Format, *, created: bool = False) -> bytes:
        """Return what was counted, and the metrics of the process and its Python, as the end of a page.

        Args:
            form: The format.
            created: Whether OpenMetrics has the times from which counters count.
        """
        # Without a recent answer the offset is unknown, which is not zero.
        clock_known = time.monotonic() - self._clock_seen < _CLOCK_MAX_AGE
        rendered = self._rendered
        ours = rendered.get((form, clock_known, created))
        if ours is None:
            # Most scrapes come between two exchanges, and histograms have many lines.
            ours = rendered[form, clock_known, created] = render_own(
                (one for one in self._registry.collect() if clock_known or one.name != API_CLOCK_OFFSET.name),
                form,
                created=created,
            )
        return render_own(self._process.collect(), form, created=created) + ours


def report(rendering: Rendering, out: Samples, *, max_series: int | None) -> None:
    """Add how the collectors of a page did.

    Args:
        rendering: The collectors' part of the page.
        out: Takes the samples.
        max_series: Maximum series of the metrics page; None for a probe, which does not report its size.
    """
    for outcome in rendering.outcomes:
        if outcome.off:
            continue
        labels = (outcome.entry.collector.name, outcome.entry.scope.hotkey)
        out.add(COLLECTOR_DUPLICATES, outcome.duplicates, *labels)
        out.add(COLLECTOR_SUCCESS, outcome.success, *labels)
        out.add(COLLECTOR_DURATION, outcome.seconds, *labels)
    off = {outcome.entry.collector for outcome in rendering.outcomes if outcome.off}
    for collector in dict.fromkeys(outcome.entry.collector for outcome in rendering.outcomes):
        out.add(COLLECTOR_CUT, collector.name in rendering.cut, collector.name)
        out.add(COLLECTOR_OFF, collector in off, collector.name)
    if max_series is not None:
        out.add(SERIES, rendering.series)
        out.add(SERIES_LIMIT, max_series)


def report_feed(state: FeedState, snapshot: Snapshot[Any] | None, out: Samples, *, since: float) -> None:
    """Add what is known of a feed; nothing where the deployment does not have its endpoint.

    Args:
        state: The feed's state.
        snapshot: Its newest good answer, or None.
        out: Takes the samples.
        since: Unix time from which readings are counted.
    """
    if state.missing:
        return
    feed = state.feed
    labels = (feed.name, feed.hotkey)
    if snapshot is not None:
        out.add(FEED_REJECTED, snapshot.answer.rejected, *labels)
        out.add(FEED_RECORDS, snapshot.answer.count, *labels)
    doubted = getattr(state.last_error, "doubt", None) or (snapshot and snapshot.answer.doubt)
    for reason in feed.doubts:
        out.add(FEED_DOUBTED, reason == doubted, *labels, reason)
    out.add(FEED_UP, state.up, *labels)
    if state.last_error is not None:
        out.add(FEED_FAILURE, 1, *labels, getattr(state.last_error, "reason", "error"))
    out.add(FEED_LAST_SUCCESS, state.last_success, *labels)
    out.add(FEED_TTL, feed.ttl, *labels)
    out.add(FEED_MAX_AGE, feed.max_age, *labels)
    for result, count in state.results.items():
        out.add(FEED_REQUESTS, count, *labels, result, created=since)


def build_labels() -> tuple[str, str]:
    """Return the label values of :data:`BUILD_INFO`."""
    return __version__, python_version()

"""The exporter's metrics about itself: requests to the API, freshness of feeds, state of collectors."""

from __future__ import annotations

import math
import platform
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from chutes_exporter import __version__
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.feed import RESULTS
from chutes_exporter.page.compression import Piece
from chutes_exporter.page.exposition import Format, header, number, render, series

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.api.client import Exchange
    from chutes_exporter.collectors.samples import Metric
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.feeds.feed import Feed, Snapshot
    from chutes_exporter.page.rendering import Rendering

METRICS = Metrics()
"""The exporter's own metrics on a page."""

API_METRICS = Metrics()
"""Metrics about exchanges with the API."""

_COLLECTOR = ("collector", "hotkey")
_FEED = ("feed", "hotkey")

BUILD_INFO = METRICS.info(
    "chutes_exporter_build_info",
    "Versions of the exporter and of Python.",
    ("version", "python"),
    "exporter",
)
WATCHED = METRICS.gauge(
    "chutes_miner_watched",
    "1 for each watched miner. Alerts are only about watched miners.",
    ("hotkey",),
    "exporter: --hotkey, --hotkey-file, MINER_SS58",
)
RELOAD_GOOD = METRICS.gauge(
    "chutes_exporter_config_last_reload_successful",
    "Whether the exporter could read its configuration the last time (1): at the start, at a reload, or after a "
    "change of the web configuration. With 0, an older configuration is in use.",
    (),
    "exporter",
)
RELOAD_TIMESTAMP = METRICS.gauge(
    "chutes_exporter_config_last_reload_success_timestamp_seconds",
    "When the configuration in use was read.",
    (),
    "exporter",
)
COLLECTOR_CUT = METRICS.gauge(
    "chutes_scrape_collector_cut",
    "Whether the collector's samples are left out (1) because the page would exceed --max-series.",
    ("collector",),
    "exporter",
)
COLLECTOR_OFF = METRICS.gauge(
    "chutes_scrape_collector_off",
    "Whether the collector is off because the API answers 404 for an endpoint that the collector needs (1). This "
    "deployment of the API does not have the endpoint. The exporter asks again every hour, and after a reload.",
    ("collector",),
    "exporter",
)
SERIES = METRICS.gauge("chutes_scrape_series", "Series of all collectors, including those left out.", (), "exporter")
SERIES_LIMIT = METRICS.gauge(
    "chutes_scrape_series_limit", "Maximum series of all collectors together (--max-series).", (), "exporter"
)
COLLECTOR_SUCCESS = METRICS.gauge(
    "chutes_scrape_collector_success",
    "Whether all answers of the collector's feeds are fresh (1). With 0, its samples are older or missing. Absent "
    "while the collector is off. The hotkey is empty for platform-wide collectors.",
    _COLLECTOR,
    "exporter",
)
COLLECTOR_DURATION = METRICS.gauge(
    "chutes_scrape_collector_duration_seconds",
    "Seconds for which the collector waited for answers and computed its samples.",
    _COLLECTOR,
    "exporter",
)
COLLECTOR_DUPLICATES = METRICS.gauge(
    "chutes_scrape_collector_duplicate_samples",
    "Samples left out because the page already has a sample of the same series.",
    _COLLECTOR,
    "exporter",
)
FEED_UP = METRICS.gauge(
    "chutes_feed_up",
    "Whether the feed's last request succeeded (1). Absent until the first request ends. Like all metrics of the "
    "feed, it is absent while the API does not have the endpoint. The hotkey is empty for platform-wide feeds.",
    _FEED,
    "exporter",
)
FEED_FAILURE = METRICS.info(
    "chutes_feed_failure_info",
    "Reason of the feed's last failed request. Only while the feed is down. Examples: signature_refused, "
    "not_registered, rate_limited, unavailable, timed_out, cut_off, doubted, undecodable.",
    (*_FEED, "reason"),
    "exporter",
)
FEED_LAST_SUCCESS = METRICS.gauge(
    "chutes_feed_last_success_timestamp_seconds",
    "When the newest good answer was requested. The data can be older: the service computes stats, scores and history "
    "every 10 minutes and does not send the time.",
    _FEED,
    "exporter",
)
FEED_REJECTED = METRICS.gauge(
    "chutes_feed_rejected_records",
    "Records of the newest answer that could not be read and are missing from the metrics. If there are any, counts, "
    "ranks and zeros that could be wrong are absent.",
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
    "Whether the newest answer is probably wrong (1), by reason: shrunk (the list lost more than a fifth and a second "
    "answer did not confirm it), disagrees (another endpoint names records that are missing), no_demand (every chute "
    "reports zero), no_bounties (all disappeared at once, and there were at least three), no_history (a miner lost its "
    "history). The last good answer stays in use until its maximum age. If there is none, the doubted answer is used, "
    "and counts, ranks and zeros are absent.",
    (*_FEED, "reason"),
    "exporter",
)
FEED_TTL = METRICS.gauge(
    "chutes_feed_ttl_seconds", "Seconds for which an answer of the feed is fresh.", _FEED, "exporter"
)
FEED_MAX_AGE = METRICS.gauge(
    "chutes_feed_max_age_seconds", "Age in seconds at which an answer of the feed is dropped.", _FEED, "exporter"
)
FEED_REQUESTS = METRICS.counter(
    "chutes_feed_requests_total",
    "Reads of the feed by result: hit (answered from the cache), miss (sent a request), coalesced (waited for a "
    "request in flight), stale (used older data because there is nothing newer), failed (no data).",
    ("feed", "hotkey", "result"),
    "exporter",
)

_ENDPOINT = ("endpoint",)
_CLOCK_MAX_AGE = 600.0
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

API_REQUESTS = API_METRICS.counter(
    "chutes_api_requests_total",
    "Requests to the Chutes API by HTTP status, or by the reason of the failure if there was no complete answer.",
    ("endpoint", "code"),
    "exporter",
)
API_DURATION = API_METRICS.histogram(
    "chutes_api_request_duration_seconds",
    "Time from a request to the Chutes API to the end of the answer.",
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
    "Seconds by which the local clock is ahead of the Chutes API's, accurate to half a second. The API refuses "
    "signatures if the difference exceeds 600 seconds.",
    (),
    "exporter: the answers' Date",
)


@dataclass(slots=True)
class _Durations:
    """The durations of an endpoint's requests.

    Attributes:
        since: Unix time of the first one.
        total: Their sum in seconds.
        counts: Their number in each bucket, without those of the buckets before. The last bucket has no bound.
    """

    since: float
    total: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))


def python_version() -> str:
    """Return the version of the running Python."""
    return platform.python_version()


class Telemetry:
    """Counts the exporter's exchanges with the API. Pass :meth:`observe` to the client as its watcher.

    Attributes:
        reload_good: Whether the last read of the configuration succeeded.
        reloaded_at: Unix time at which the configuration in use was read, or None since the start.
    """

    def __init__(self) -> None:
        self.reload_good = True
        self.reloaded_at: float | None = None
        self._exchanges: dict[tuple[Format, bool, bool], Piece] = {}
        self._counts: dict[tuple[Metric, tuple[str, ...]], tuple[float, float]] = {}
        """Value of each counter, and the Unix time at which it started."""
        self._durations: dict[str, _Durations] = {}
        self._offset: float | None = None
        self._clock_seen = -math.inf

    def observe(self, exchange: Exchange) -> None:
        """Count an exchange with the API."""
        now, endpoint = time.time(), exchange.endpoint
        for metric, amount, *labels in (
            (API_REQUESTS, 1, endpoint, exchange.code),
            (API_BYTES, exchange.size, endpoint),
            (API_REJECTED, exchange.rejected, endpoint),
        ):
            value, since = self._counts.get((metric, (*labels,)), (0.0, now))
            self._counts[metric, (*labels,)] = value + amount, since
        durations = self._durations.setdefault(endpoint, _Durations(now))
        durations.total += exchange.seconds
        durations.counts[bisect_left(_BUCKETS, exchange.seconds)] += 1
        if exchange.clock_offset is not None:
            self._offset = exchange.clock_offset
            self._clock_seen = time.monotonic()
        # Last: a thread that renders meanwhile keeps its lines in the old dictionary.
        self._exchanges = {}

    def note_reload(self, now: float, *, good: bool) -> None:
        """Note that the configuration was read again."""
        self.reload_good = good
        if good:
            self.reloaded_at = now

    def exchanges(self, form: Format, *, created: bool = False) -> Piece:
        """Return the metrics of the exchanges with the API.

        Args:
            form: The format.
            created: Whether to write the created timestamps of counters, which only OpenMetrics has.
        """
        # Without a recent answer, the offset is unknown.
        clock_known = time.monotonic() - self._clock_seen < _CLOCK_MAX_AGE
        key = form, clock_known, created
        # An exchange replaces the dictionary, perhaps while a thread renders.
        cached = self._exchanges
        if key not in cached:
            samples = Samples(with_created=created)
            # Copies, because an exchange may add more meanwhile.
            for (metric, labels), (value, since) in self._counts.copy().items():
                samples.add(metric, value, *labels, created=since)
            if clock_known:
                samples.add(API_CLOCK_OFFSET, self._offset)
            families = {family.metric: family.lines_for(form) for family in render(samples)}
            families[API_DURATION] = self._histogram(form, created=created)
            found = [metric for metric in API_METRICS if families.get(metric)]
            cached[key] = Piece([part for one in found for part in (header(one, form).encode(), families[one])])
        return cached[key]

    def _histogram(self, form: Format, *, created: bool) -> bytes:
        """Return the lines about the durations of requests."""
        name, lines = API_DURATION.name, []
        for endpoint, durations in self._durations.copy().items():
            labels = {"endpoint": endpoint}
            counts = list(accumulate(durations.counts))
            for bound, count in zip((*map(str, map(float, _BUCKETS)), "+Inf"), counts, strict=True):
                lines.append(f"{series(f'{name}_bucket', {**labels, 'le': bound})} {count}\n")
            lines.append(f"{series(f'{name}_count', labels)} {counts[-1]}\n")
            lines.append(f"{series(f'{name}_sum', labels)} {number(durations.total)}\n")
            if created and form is Format.OPENMETRICS:
                lines.append(f"{series(f'{name}_created', labels)} {number(durations.since)}\n")
        return "".join(lines).encode()


def report(rendering: Rendering, out: Samples, *, max_series: int | None) -> None:
    """Add the state of a page's collectors.

    Args:
        rendering: The collectors' part of the page.
        out: Receives the samples.
        max_series: Maximum series of the metrics page. None for a probe, which does not report its size.
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


def report_feed(state: FeedState, snapshot: Snapshot[Any] | None, out: Samples) -> None:
    """Add the state of a feed, without its readings. Add nothing if the deployment does not have its endpoint.

    Args:
        state: The feed's state.
        snapshot: Its newest good answer, or None.
        out: Receives the samples.
    """
    if state.missing:
        return
    feed = state.feed
    labels = (feed.name, feed.hotkey)
    if snapshot is not None:
        out.add(FEED_REJECTED, snapshot.answer.rejected, *labels)
        out.add(FEED_RECORDS, snapshot.answer.count, *labels)
    doubted = getattr(state.last_error, "doubt", None) or (snapshot and snapshot.answer.doubt)
    for reason in feed.checks:
        out.add(FEED_DOUBTED, reason == doubted, *labels, reason)
    out.add(FEED_UP, state.up, *labels)
    if state.last_error is not None:
        out.add(FEED_FAILURE, 1, *labels, getattr(state.last_error, "reason", "error"))
    out.add(FEED_LAST_SUCCESS, state.last_success, *labels)
    out.add(FEED_TTL, feed.ttl, *labels)
    out.add(FEED_MAX_AGE, feed.max_age, *labels)


def render_readings(counts: Iterable[tuple[Feed[Any], float, Iterable[int]]], form: Format, *, created: bool) -> bytes:
    """Return the numbers of readings, which change with every scrape.

    Args:
        counts: Of each feed, the Unix time from which readings are counted, and their numbers in the order of the
            results.
        form: The format.
        created: Whether to write these times.
    """
    created = created and form is Format.OPENMETRICS
    lines = [
        _readings_pattern(feed.name, feed.hotkey, since if created else None) % (*numbers,)
        for feed, since, numbers in counts
    ]
    return "".join([header(FEED_REQUESTS, form), *lines]).encode() if lines else b""


@lru_cache(maxsize=8192)
def _readings_pattern(feed: str, hotkey: str, created: float | None) -> str:
    """Return the lines of a feed's readings, with a place for each number."""
    lines = ""
    for result in RESULTS:
        labels = {"feed": feed, "hotkey": hotkey, "result": result}
        lines += f"{series(FEED_REQUESTS.name, labels)} %d\n"
        if created is not None:
            lines += f"{series(FEED_REQUESTS.name.replace('_total', '_created'), labels)} {number(created)}\n"
    return lines


def build_labels() -> tuple[str, str]:
    """Return the label values of :data:`BUILD_INFO`."""
    return __version__, python_version()

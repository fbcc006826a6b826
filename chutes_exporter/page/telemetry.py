"""The exporter's metrics about itself: requests to the API, freshness of feeds, state of collectors."""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily

from chutes_exporter import __version__
from chutes_exporter.api.exchanges import ExchangeCounters
from chutes_exporter.collectors.base import Samples
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.metric import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client import Metric as Family

    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.page.plan import Entry
    from chutes_exporter.page.rendering import Lines

    States = Mapping[Feed[Any], FeedState]

_FEED = ("feed", "hotkey")
OWN_METRICS = Metrics("exporter", _FEED)
"""The exporter's own metrics on a page."""

BUILD_INFO = OWN_METRICS.declare(
    "chutes_exporter_build_info",
    "Versions of the exporter and of Python.",
    labels=("version", "python"),
)
WATCHED = OWN_METRICS.declare(
    "chutes_miner_watched",
    "1 for each watched miner. Alerts are only about watched miners.",
    "--hotkey, --hotkey-file, MINER_SS58",
    labels=("hotkey",),
)
RELOAD_GOOD = OWN_METRICS.declare(
    "chutes_exporter_config_last_reload_successful",
    "Whether the exporter could read its configuration the last time (1): at the start, at a reload, or after a "
    "change of the web configuration. With 0, an older configuration is in use.",
    labels=(),
)
RELOAD_TIMESTAMP = OWN_METRICS.declare(
    "chutes_exporter_config_last_reload_success_timestamp_seconds",
    "When the configuration in use was read.",
    labels=(),
)
TASK_FAILURES = OWN_METRICS.declare(
    "chutes_exporter_task_failures_total",
    "Unforeseen errors of background tasks: reload (follows the configuration files), warm_up (the first requests), "
    "watchdog (notifies systemd). The log has each error, and the task starts again.",
    labels=("task",),
)
COLLECTOR_CUT = OWN_METRICS.declare(
    "chutes_scrape_collector_cut",
    "Whether the collector's samples are left out (1) because the page would exceed --max-series.",
    labels=("collector",),
)
COLLECTOR_OFF = OWN_METRICS.declare(
    "chutes_scrape_collector_off",
    "Whether the collector is off because the API answers 404 for an endpoint that the collector needs (1). This "
    "deployment of the API does not have the endpoint. The exporter asks again every hour, and after a reload.",
    labels=("collector",),
)
SERIES = OWN_METRICS.declare("chutes_scrape_series", "Series of all collectors, including those left out.", labels=())
SERIES_LIMIT = OWN_METRICS.declare(
    "chutes_scrape_series_limit", "Maximum series of all collectors together (--max-series).", labels=()
)
COLLECTOR_SUCCESS = OWN_METRICS.declare(
    "chutes_scrape_collector_success",
    "Whether all answers of the collector's feeds are fresh, and no record of them can be missing (1). With 0, its "
    "samples are older or missing. Absent while the collector is off. The hotkey is empty for platform-wide "
    "collectors.",
    labels=("collector", "hotkey"),
)
COLLECTOR_DURATION = OWN_METRICS.declare(
    "chutes_scrape_collector_duration_seconds",
    "Seconds that the slowest of the collector's answers took, and in which it last computed its samples.",
    labels=("collector", "hotkey"),
)
COLLECTOR_DUPLICATES = OWN_METRICS.declare(
    "chutes_scrape_collector_duplicate_samples",
    "Samples left out because the page already has a sample of the same series.",
    labels=("collector", "hotkey"),
)
FEED_UP = OWN_METRICS.declare(
    "chutes_feed_up",
    "Whether the feed's last request succeeded (1). Absent until the first request ends. Like all metrics of the "
    "feed, it is absent while the API does not have the endpoint. The hotkey is empty for platform-wide feeds.",
)
FEED_FAILURE = OWN_METRICS.declare(
    "chutes_feed_failure_info",
    "Reason of the feed's last failed request. Only while the feed is down. Examples: signature_refused, "
    "not_registered, rate_limited, unavailable, timed_out, cut_off, doubted, undecodable.",
    labels=(*_FEED, "reason"),
)
FEED_LAST_SUCCESS = OWN_METRICS.declare(
    "chutes_feed_last_success_timestamp_seconds",
    "When the newest good answer was requested. The data can be older: the service computes stats, scores and history "
    "every 10 minutes and does not send the time.",
)
FEED_REJECTED = OWN_METRICS.declare(
    "chutes_feed_rejected_records",
    "Records of the newest answer that could not be read and are missing from the metrics. If there are any, counts, "
    "ranks and zeros that could be wrong are absent.",
)
FEED_RECORDS = OWN_METRICS.declare(
    "chutes_feed_records", "Records of the newest good answer. Absent if some of its records may be missing."
)
FEED_DOUBTED = OWN_METRICS.declare(
    "chutes_feed_doubted",
    "Whether the newest answer is probably wrong (1), by reason: shrunk (the list lost more than a fifth and a second "
    "answer did not confirm it), disagrees (another endpoint names records that are missing), no_demand (every chute "
    "reports zero), no_bounties (all disappeared at once, and there were at least three), no_history (a miner lost its "
    "history). The last good answer stays in use until its maximum age. If there is none, the doubted answer is used, "
    "and counts, ranks and zeros are absent.",
    labels=(*_FEED, "reason"),
)
FEED_TTL = OWN_METRICS.declare("chutes_feed_ttl_seconds", "Seconds for which an answer of the feed is at least fresh.")
FEED_MAX_AGE = OWN_METRICS.declare(
    "chutes_feed_max_age_seconds", "Age in seconds at which an answer of the feed is dropped."
)
FEED_REQUESTS = OWN_METRICS.declare(
    "chutes_feed_requests_total",
    "Reads of the feed by result: hit (answered from the cache), miss (sent a request), coalesced (waited for a "
    "request in flight), stale (used older data because there is nothing newer), failed (no data).",
    labels=(*_FEED, "result"),
)

UNKNOWN_FIELDS = OWN_METRICS.declare(
    "chutes_api_unknown_fields",
    "Fields that this version of the exporter does not know, in answers since the start. The first answer is checked, "
    "and then one an hour. Like the next two metrics, it is absent until then. The log and check name the fields.",
    labels=("endpoint",),
)
MISSING_FIELDS = OWN_METRICS.declare(
    "chutes_api_missing_fields",
    "Known fields that no record of the newest checked answer has. An answer without records changes nothing, and "
    "fields that the service sends only sometimes do not count.",
    labels=("endpoint",),
)
UNKNOWN_VALUES = OWN_METRICS.declare(
    "chutes_api_unknown_values",
    "Values since the start that are outside the closed set of a field, as far as this version knows.",
    labels=("endpoint", "field"),
)
CLOCK_OFFSET = OWN_METRICS.declare(
    "chutes_api_clock_offset_seconds",
    "Seconds by which the local clock is ahead of the Chutes API's, accurate to half a second. The API refuses "
    "signatures if the difference exceeds 600 seconds.",
    "the answers' Date",
    labels=(),
)
_CLOCK_MAX_AGE = 600.0

GPU_COST = Metrics("exporter").declare(
    "chutes_gpu_cost_usd_per_hour",
    "Price in US dollars that the miner pays per hour for one GPU of this model, whether it is idle or not.",
    "--gpu.cost",
    labels=("gpu",),
)


class Telemetry:
    """The metrics of the exporter about itself.

    Args:
        started_at: Unix time at which the first configuration was read.
    """

    def __init__(self, started_at: float) -> None:
        self.registry = CollectorRegistry()
        self.exchanges = ExchangeCounters()
        self._reload_good = Gauge(RELOAD_GOOD.name, RELOAD_GOOD.help, registry=self.registry)
        self._reloaded_at = Gauge(
            RELOAD_TIMESTAMP.name, RELOAD_TIMESTAMP.help, unit=RELOAD_TIMESTAMP.unit, registry=self.registry
        )
        self._task_failures = Counter(
            TASK_FAILURES.name, TASK_FAILURES.help, TASK_FAILURES.labels, registry=self.registry
        )
        self.note_reload(started_at, good=True)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def families(
        self, made: Mapping[Entry, Lines], states: States, settings: Settings, client: ChutesClient
    ) -> Iterator[Family]:
        """Return what a page has about the exporter: collectors, feeds, settings, requests and the process."""
        out = Samples()
        _add_collectors(out, made, states)
        out.add(SERIES, sum(lines.series for lines in made.values()))
        out.add(SERIES_LIMIT, settings.max_series)
        for state in states.values():
            _add_feed(out, state)
        _add_settings(out, settings, client)
        yield from out.collect()
        yield from self.exchanges.registry.collect()
        yield _reading_family(states.values())
        yield from self.registry.collect()

    def task_failures(self, task: str) -> Counter:
        """Return the counter of a background task's failures."""
        return self._task_failures.labels(task)

    def note_reload(self, now: float, *, good: bool) -> None:
        """Note that the configuration was read again, at a Unix time."""
        self._reload_good.set(good)
        if good:
            self._reloaded_at.set(now)


def _add_settings(out: Samples, settings: Settings, client: ChutesClient) -> None:
    """Add what the exporter is and watches, and how it differs from the API: in the clock, and in known fields."""
    out.add(BUILD_INFO, 1, __version__, platform.python_version())
    for hotkey in sorted(settings.watched):
        out.add(WATCHED, 1, hotkey)
    # Without a recent answer, the offset is unknown.
    if time.monotonic() - client.clock_checked_at < _CLOCK_MAX_AGE:
        out.add(CLOCK_OFFSET, client.clock_offset)
    for endpoint, changes in sorted(client.changes.items()):
        if changes.checks:
            out.add(UNKNOWN_FIELDS, len(changes.unknown), endpoint)
            out.add(MISSING_FIELDS, len(changes.missing), endpoint)
            for name, texts in sorted(changes.values.items()):
                out.add(UNKNOWN_VALUES, len(texts), endpoint, name)
    for model, cost in settings.gpu_costs.items():
        out.add(GPU_COST, cost, model)


def _add_collectors(out: Samples, made: Mapping[Entry, Lines], states: States) -> None:
    """Add the state of each collector of a page. Where an endpoint is missing, that is only that it is off."""
    for entry, lines in made.items():
        name, is_off = entry.collector.name, False
        for hotkey, feeds in entry.feeds.items():
            if any(states[feed].missing for feed in feeds):
                is_off = True
                continue
            outcome = lines.outcomes.get(hotkey)
            needed = (*feeds, *(entry.of_each_key if hotkey == THE_PLATFORM else ()))
            complete = outcome is not None and not outcome.failed and all(_complete(states[feed]) for feed in needed)
            out.add(COLLECTOR_SUCCESS, complete, name, hotkey)
            if outcome is not None:
                slowest = max(state.snapshot.answer.seconds for feed in needed if (state := states[feed]).snapshot)
                out.add(COLLECTOR_DURATION, slowest + outcome.seconds, name, hotkey)
                out.add(COLLECTOR_DUPLICATES, outcome.duplicates, name, hotkey)
        out.add(COLLECTOR_CUT, lines.body is None, name)
        out.add(COLLECTOR_OFF, is_off, name)


def _complete(state: FeedState) -> bool:
    """Return whether a feed has a fresh answer of which no record can be missing."""
    return state.fresh and state.snapshot is not None and state.snapshot.answer.whole


def _add_feed(out: Samples, state: FeedState) -> None:
    """Add the state of a feed. A feed whose endpoint is missing has none."""
    if state.missing:
        return
    feed, snapshot, labels = state.feed, state.snapshot, (state.feed.name, state.feed.hotkey)
    if snapshot is not None:
        out.add(FEED_REJECTED, snapshot.answer.rejected, *labels)
        out.add(FEED_RECORDS, snapshot.answer.count if snapshot.answer.whole else None, *labels)
    # A doubted answer was refused with an error, or is in use because there is no older one.
    doubt = getattr(state.last_error, "doubt", None) or (snapshot and snapshot.answer.doubt)
    for reason in feed.checks:
        out.add(FEED_DOUBTED, reason == doubt, *labels, reason)
    out.add(FEED_UP, state.up, *labels)
    if state.last_error is not None:
        out.add(FEED_FAILURE, 1, *labels, getattr(state.last_error, "reason", "error"))
    out.add(FEED_LAST_SUCCESS, state.last_success, *labels)
    out.add(FEED_TTL, feed.ttl, *labels)
    out.add(FEED_MAX_AGE, feed.max_age, *labels)


def _reading_family(states: Iterable[FeedState]) -> Family:
    """Return the numbers of feeds' readings, which change with every scrape."""
    family = CounterMetricFamily(FEED_REQUESTS.name, FEED_REQUESTS.help, labels=FEED_REQUESTS.labels)
    for state in states:
        if not state.missing:
            for result, count in state.results.items():
                family.add_metric((state.feed.name, state.feed.hotkey, result), count, created=state.since)
    return family

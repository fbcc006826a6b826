"""The exporter's metrics about itself: requests to the API, freshness of feeds, state of
collectors.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)

from chutes_exporter import __version__
from chutes_exporter.api.request_metrics import REQUEST_METRICS, RequestCounters
from chutes_exporter.collectors.base import Samples
from chutes_exporter.collectors.table import Info, Row, add_rows
from chutes_exporter.metric import Metric
from chutes_exporter.page.end_counters import EndCounters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric as Family

    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import States
    from chutes_exporter.page.exposition import Lines
    from chutes_exporter.page.plan import Entry

BUILD_INFO = Metric(
    "chutes_exporter_build_info", "Versions of the exporter and of Python.", ("version", "python")
)
WATCHED = Metric(
    "chutes_miner_watched",
    "1 for each watched miner. Alerts are only about watched miners.",
    ("hotkey",),
    "exporter: --hotkey, --hotkey-file, MINER_SS58",
)
RELOAD_GOOD = Metric(
    "chutes_exporter_config_last_reload_successful",
    "Whether the exporter could read its configuration the last time (1): at the start, at a "
    "reload, or after a change of the web configuration. With 0, an older configuration is in use.",
)
TASK_FAILURES = Metric(
    "chutes_exporter_task_failures_total",
    "Unforeseen errors of background tasks. The log has each error, and the task starts again.",
    ("task",),
)
COLLECTOR_CUT = Metric(
    "chutes_scrape_collector_cut",
    "Whether the collector's samples are left out (1) because the page would exceed --max-series.",
    ("collector",),
)
COLLECTOR_OFF = Metric(
    "chutes_scrape_collector_off",
    "Whether the collector is off, or lacks some of its metrics, because the API answers 404 for "
    "an endpoint (1). The exporter asks again every hour, and after a reload.",
    ("collector",),
)
COLLECTOR_SUCCESS = Metric(
    "chutes_scrape_collector_success",
    "Whether all answers of the collector's feeds are fresh and whole (1). Absent while the "
    "collector is off. The hotkey is empty for platform-wide collectors.",
    ("collector", "hotkey"),
)
SERIES = Metric("chutes_scrape_series", "Series of all collectors, including those left out.")
SERIES_LIMIT = Metric(
    "chutes_scrape_series_limit", "Maximum series of all collectors together (--max-series)."
)
CLOCK_OFFSET = Metric(
    "chutes_api_clock_offset_seconds",
    "Seconds by which the local clock is ahead of the Chutes API's, accurate to half a second. "
    "The API refuses signatures if the difference exceeds 600 seconds.",
    source="exporter: the answers' Date",
)


def _declare(labels: tuple[str, ...], **rows: Row) -> dict[Metric, Row]:
    """Declare a metric for each row, and return the rows by metric.

    The names of the arguments are those of the metrics. These labels come before those of a row.
    """
    rows_by_metric = {}
    for name, row in rows.items():
        metric = Metric(name, row.text, (*labels, *row.labels), stability=row.stability)
        rows_by_metric[metric] = row
    return rows_by_metric


_OF_FEED = _declare(
    ("feed", "hotkey"),
    chutes_feed_rejected_records=Row(
        "Records of the newest answer that could not be read and are missing from the metrics. If "
        "there are any, counts, ranks and zeros that could be wrong are absent.",
        "kept.answer.rejected",
    ),
    chutes_feed_records=Row(
        "Records of the cached answer. Absent if some of its records may be missing.",
        "kept.answer",
        convert=lambda answer: answer.count if answer.complete else None,
    ),
    chutes_feed_doubted=Row(
        "Whether the newest answer is probably wrong (1), by reason: shrunk, disagrees, no_demand, "
        "no_bounties. docs/runbooks/exporter.md explains. Meanwhile, an older answer stays cached.",
        lambda state: {reason: reason == state.doubt for reason in state.feed.checks},
        by="reason",
    ),
    chutes_feed_up=Row(
        "Whether the feed's last request succeeded (1). Absent before the first request ends, and"
        " while the API lacks the endpoint. The hotkey is empty for platform-wide feeds.",
        "up",
    ),
    chutes_feed_failure_info=Info(
        "Reason of the feed's last failed request. Only while the feed is down. Examples: "
        "signature_refused, not_registered, rate_limited, unavailable, timed_out, cut_off, "
        "doubted, undecodable.",
        {"reason": lambda state: state.last_error and getattr(state.last_error, "reason", "error")},
    ),
    chutes_feed_last_success_timestamp_seconds=Row(
        "When the last successful request was sent. The data can be older: the service computes "
        "stats, scores and history every 10 minutes and does not send the time.",
        "last_success",
    ),
    chutes_feed_ttl_seconds=Row(
        "Time to live in seconds: an answer is requested again at the earliest after it.",
        "feed.ttl",
    ),
    chutes_feed_max_age_seconds=Row(
        "Maximum age in seconds: an answer is dropped from the cache after it.", "feed.max_age"
    ),
)
_OF_ENDPOINT = _declare(
    ("endpoint",),
    chutes_api_unknown_fields=Row(
        "Fields of the newest checked answer that this version of the exporter does not know. The"
        " log and check name them. An answer is checked once an hour.",
        "unknown",
        convert=len,
    ),
    chutes_api_missing_fields=Row(
        "Fields in use that no record of the newest checked answer has. An answer without records "
        "changes nothing, and fields that the service sends only sometimes do not count.",
        "missing",
        convert=len,
    ),
)
OWN_METRICS = (
    *(BUILD_INFO, WATCHED, RELOAD_GOOD, TASK_FAILURES, SERIES, SERIES_LIMIT),
    *(COLLECTOR_CUT, COLLECTOR_OFF, COLLECTOR_SUCCESS, *_OF_FEED),
    *(*_OF_ENDPOINT, CLOCK_OFFSET, *REQUEST_METRICS),
)
"""The exporter's own metrics on a page."""


class Telemetry:
    """The metrics of the exporter about itself."""

    def __init__(self) -> None:
        self.request_counters = RequestCounters()
        self.registry = CollectorRegistry()
        self.ends = EndCounters()
        self.reload_good = RELOAD_GOOD.register(Gauge, self.registry)
        # The exporter starts only with a configuration that it could read.
        self.reload_good.set(1)
        self.task_failures = TASK_FAILURES.register(Counter, self.registry)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)


def own_metrics(
    telemetry: Telemetry,
    settings: Settings,
    client: ChutesClient,
    lines_by_entry: Mapping[Entry, Lines],
    states: States,
) -> Iterator[Family]:
    """Yield the metrics about collectors, feeds, settings and requests."""
    out = Samples()
    for entry, lines in lines_by_entry.items():
        _add_collector(entry, lines, states, out)
    out.add(SERIES, sum(lines.series for lines in lines_by_entry.values()))
    out.add(SERIES_LIMIT, settings.max_series)
    for feed, state in states.items():
        # While the API does not have its endpoint, a feed has no metrics.
        if not state.missing:
            add_rows(_OF_FEED, state, (feed.name, feed.hotkey), out)
    out.add(BUILD_INFO, 1, __version__, platform.python_version())
    for hotkey in sorted(settings.watched):
        out.add(WATCHED, 1, hotkey)
    out.add(CLOCK_OFFSET, client.api_clock.offset)
    for endpoint, check in sorted(client.changes.items()):
        add_rows(_OF_ENDPOINT, check, (endpoint,), out)
    yield from out.families()
    yield from telemetry.request_counters.registry.collect()


def _add_collector(entry: Entry, lines: Lines, states: States, out: Samples) -> None:
    collector = entry.collector
    missing_of_all: set[str] = set()
    for hotkey, feeds in entry.feeds.items():
        missing = {feed.name for feed in feeds if states[feed].missing}
        missing_of_all |= missing
        # Without a feed that it needs, a collector neither succeeds nor fails. It can do without
        # any other feed that is missing.
        if not missing & collector.needed_feeds:
            is_complete = all(states[feed].complete is not False for feed in feeds)
            succeeded = is_complete and hotkey not in lines.failed
            out.add(COLLECTOR_SUCCESS, succeeded, collector.name, hotkey)
    # COLLECTOR_OFF is also 1 if only some metrics of the collector are missing.
    is_off = any(feed.name in missing_of_all for feed in collector.feeds)
    out.add(COLLECTOR_CUT, lines.body is None, collector.name)
    out.add(COLLECTOR_OFF, is_off, collector.name)

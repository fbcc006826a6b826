"""Can I trust the numbers: which exporter is down, which feed is old, and how much is asked of the
API?
"""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    BYTES,
    COUNT,
    EXPORTERS,
    PERCENT,
    TIME,
    Board,
    Column,
    Query,
    Unit,
    board_link,
    counted,
    graph,
    miner_columns,
    of_exporters,
    select,
    short,
    stat,
    table,
    top_ten_at_end,
)
from grafana.states import FEED_STATE, LOADED, ORANGE, RED, UP
from grafana.worlds import ALL, FADING, SICK

FEEDS: Final = {"hotkey": "~$hotkey|"}
FEED: Final = ("job", "instance", "feed", "hotkey")
"""Each exporter has its own answers: of a pair, one can fail alone."""
FEED_LABELS: Final = ", ".join(FEED)
EACH: Final = ("job", "instance")
_SUCCESS: Final = select("chutes_feed_last_success_timestamp_seconds", EXPORTERS, **FEEDS)
SUCCESS: Final = f"max by ({FEED_LABELS}) ({_SUCCESS})"
LIMITS: Final = select("chutes_feed_max_age_seconds", EXPORTERS, **FEEDS)
MAX_AGE: Final = of_exporters("chutes_feed_max_age_seconds", *FEED, **FEEDS)
FEED_AGE: Final = (
    f"max by (feed) (time() - {select('chutes_feed_last_success_timestamp_seconds', EXPORTERS)})"
)
FEED_UP: Final = of_exporters("chutes_feed_up", *FEED, **FEEDS)
DOUBTED: Final = f"{of_exporters('chutes_feed_doubted', *FEED, 'reason', **FEEDS)} == 1"
OLD: Final = (
    f"{LIMITS} unless on ({FEED_LABELS}) (time() - {_SUCCESS} <= on ({FEED_LABELS}) {LIMITS})"
)
SEEN: Final = (
    f"and on (job, instance) last_over_time({select('chutes_exporter_build_info', EXPORTERS)}[7d])"
)
"""Keeps the targets that were exporters within a week."""
BUDGET: Final = (
    "One key causes up to 440 requests an hour to the API, and 72 to the node of --chain.url."
)
REQUESTS: Final = select("chutes_api_requests_total", EXPORTERS)
PAGE: Final = of_exporters("chutes_scrape_series")
STALE: Final = (
    f"1 - {of_exporters('chutes_scrape_collector_success', 'collector', function='min')} > 0"
)
TOP_STALE: Final = top_ten_at_end(STALE, STALE, "collector")
CPU: Final = f"rate({select('process_cpu_seconds_total', EXPORTERS)}[$__rate_interval])"
RESPONSES: Final = (
    "sum by (le) "
    f"(rate({select('chutes_api_request_duration_seconds_bucket', EXPORTERS)}[$__rate_interval]))"
)
THIS_EXPORTER: Final = board_link("chutes-exporter", instance="${__value.raw}")


def _top(metric: str, by: str) -> list[Query]:
    """Count an hour's events for the ten values of a label that have the most at the end of the
    time range.
    """
    selected = select(metric, EXPORTERS)
    hour = f"sum by ({by}) (increase({selected}[1h]))"
    at_end = f"topk(10, sum by ({by}) (increase({selected}[1h] @ end())))"
    return [Query(f"{hour} and on ({by}) {at_end}", f"{{{{{by}}}}}", FADING)]


EXPORTER: Final = Board(
    "chutes-exporter",
    "Chutes exporter",
    "Can the numbers be trusted: which exporter is down, which feed is old or doubted, and how "
    "much is asked of the "
    "API?",
    stat_empty="no exporter",
)

EXPORTER.show(
    stat(
        "Exporters",
        "Share of the exporters of the past week that Prometheus can scrape. Below 100 %, look "
        "for the one that is "
        "down in the table below, and check its process and network.",
        Query(f"avg({select('up', EXPORTERS)} {SEEN})", "up", ALL),
        unit=PERCENT,
        thresholds=[(float("-inf"), RED), (1, "text")],
        empty="none in a week",
    ),
    stat(
        "Rules",
        "Whether Prometheus has loaded prometheus/rules/. Without them most panels are empty, "
        "and no alert can fire.",
        Query("prometheus:chutes_rules:loaded or on () vector(0)", "status", ALL),
        states=LOADED,
    ),
    stat(
        "Feeds with problems",
        "Failing: the last request failed, and metrics stay until the maximum age. No data: no "
        "good answer, or one at "
        "its maximum age. Metrics are missing, and alerts on them are silent. Doubted: the newest "
        "answer is valid but "
        "probably wrong. The table of feeds has the reasons.",
        Query(counted(f"{FEED_UP} == 0", f"count({FEED_UP})"), "failing"),
        Query(counted(OLD, f"count({LIMITS})"), "of these no data"),
        Query(counted(DOUBTED, f"count({FEED_UP})"), "of these doubted"),
        thresholds=[(1, ORANGE)],
        size=(8, 3),
    ),
    stat(
        "Requests",
        f"Requests of the busiest exporter in the past hour. {BUDGET} "
        "More keys or a shorter --feed.ttl cause more.",
        Query(f"max(sum by (job, instance) (increase({REQUESTS}[1h])))", "per hour", FADING),
        empty="no requests",
        trend=True,
    ),
    table(
        "Exporters",
        "The exporters of the past week, with the cost of their work. An exporter that is down "
        "keeps its row for a "
        "week.",
        Column(
            "State",
            f"max by (job, instance) ({select('up', EXPORTERS)} {SEEN})",
            width=80,
            states=UP,
            data=ALL,
        ),
        Column("Exporter", "instance", width=160, link=THIS_EXPORTER),
        Column("Job", "job", width=80),
        Column("", of_exporters("chutes_exporter_build_info", *EACH, "version", "python")),
        Column("Version", "version", width=80),
        Column("Python", "python", width=70),
        Column(
            "Scrape time",
            f"max by (job, instance) ({select('scrape_duration_seconds', EXPORTERS)} {SEEN})",
            TIME,
            data=ALL,
        ),
        Column(
            "Requests, 1 h",
            f"sum by (job, instance) (increase({REQUESTS}[1h]))",
            COUNT,
            data=FADING,
        ),
        Column(
            "Memory", of_exporters("process_resident_memory_bytes", *EACH) + f" {SEEN}", BYTES, 100
        ),
        Column(
            "Series of limit",
            f"{of_exporters('chutes_scrape_series', *EACH)}"
            f" / on (job, instance) {of_exporters('chutes_scrape_series_limit', *EACH)}",
            PERCENT,
            thresholds=[(0.8, ORANGE), (1, RED)],
        ),
        Column(
            "Configuration",
            of_exporters("chutes_exporter_config_last_reload_successful", *EACH),
            width=120,
            states=LOADED,
        ),
        Column(
            "Clock offset",
            f"max by (job, instance) (abs({select('chutes_api_clock_offset_seconds', EXPORTERS)}))",
            TIME,
            thresholds=[(120, ORANGE), (600, RED)],
        ),
        empty="Unknown: no data. No exporter was scraped within a week.",
        sort=["State", "Exporter"],
        size=(24, 4),
    ),
    table(
        "Feeds",
        "Each feed of each exporter, failing feeds first, by miner. The age is the time since the "
        "request. Stats, "
        "scores and history can be 10 minutes older. At the maximum age, the answer is dropped. "
        "The runbook of "
        "ChutesFeedFailing explains the reasons.",
        Column("State", short(FEED_UP), width=80, states=FEED_STATE),
        *miner_columns(missing=" "),
        Column("Feed", "feed", width=160),
        Column("", of_exporters("chutes_feed_failure_info", *FEED, "reason", **FEEDS), data=SICK),
        Column("Reason", "reason", width=100, missing=" "),
        Column(
            "",
            f'max by ({FEED_LABELS}, doubt) (label_replace({DOUBTED}, "doubt", "$1", '
            '"reason", "(.*)"))',
            data=SICK,
        ),
        Column("Doubt", "doubt", width=100, missing=" "),
        Column("Age", f"time() - {SUCCESS}", TIME, 80),
        Column("Maximum age", MAX_AGE, TIME),
        Column(
            "Share of maximum",
            f"(time() - {SUCCESS}) / on ({FEED_LABELS}) {MAX_AGE}",
            PERCENT,
            thresholds=[(0.5, ORANGE), (1, RED)],
        ),
        Column("Records", of_exporters("chutes_feed_records", *FEED, **FEEDS), COUNT),
        Column(
            "Rejected",
            of_exporters("chutes_feed_rejected_records", *FEED, **FEEDS),
            COUNT,
            thresholds=[(1, ORANGE)],
        ),
        Column("", "job"),
        Column("Exporter", "instance", width=160, link=THIS_EXPORTER),
        empty="Unknown: no data. The exporter is down, or has sent no request yet.",
        sort=["State", "Miner", "Feed"],
        size=(24, 10),
    ),
    graph(
        "Requests per hour by endpoint",
        f"The ten endpoints with the most requests. {BUDGET} More scrapes do not cause more "
        "requests, because each feed is requested once per time to live.",
        *_top("chutes_api_requests_total", "endpoint"),
        calcs=(),
        size=(12, 7),
    ),
    graph(
        "Requests per hour by result",
        "Requests by HTTP status, or by the reason if the answer was incomplete. Anything except "
        "200 is a problem of "
        "the API, the key or the network.",
        *_top("chutes_api_requests_total", "code"),
        size=(12, 7),
    ),
)

EXPORTER.show(
    graph(
        "Age of answers",
        "Age of the newest good answer, for the ten oldest feeds. A saw-tooth is normal. A line "
        "that keeps rising is a "
        "feed that fails. The table above shows each age as a share of the maximum age.",
        Query(top_ten_at_end(FEED_AGE, FEED_AGE, "feed"), "{{feed}}"),
        unit=TIME,
    ),
    graph(
        "Response time, 90th percentile",
        "Nine of ten requests took at most this time, over all endpoints. If it is near "
        "--api.timeout, feeds begin to "
        "fail.",
        Query(f"histogram_quantile(0.9, {RESPONSES})", "all endpoints", FADING),
        unit=TIME,
    ),
    graph(
        "Bytes per hour by endpoint",
        "Bytes of the API's answers, decompressed, for the ten largest endpoints. The list of "
        "chutes is the largest.",
        *_top("chutes_api_response_bytes_total", "endpoint"),
        unit=BYTES,
        calcs=(),
    ),
    graph(
        "Rejected records per hour",
        "Records that could not be read and were left out, for the ten endpoints with the "
        "most. The log has the field.",
        *_top("chutes_api_rejected_records_total", "endpoint"),
        calcs=(),
    ),
    title="API",
)

EXPORTER.show(
    graph(
        "Collectors without fresh answers",
        "Collectors whose samples are older than they should be, or missing.",
        # 0 is known where there is a page.
        Query(
            f'{TOP_STALE} or on () label_replace(0 * {PAGE}, "collector", "none", "", "")',
            "{{collector}}",
        ),
    ),
    graph(
        "Series",
        "Series of all collectors, and their limit (--max-series). Above it, whole collectors "
        "are left out.",
        Query(PAGE, "series"),
        Query(of_exporters("chutes_scrape_series_limit"), "limit"),
    ),
    graph(
        "Scrape time",
        "Time that Prometheus waited for the page, by job. If a scrape requests feeds, it takes "
        "as long as the slowest "
        "endpoint.",
        Query(
            f"max by (job) ({select('scrape_duration_seconds', EXPORTERS)} {SEEN})", "{{job}}", ALL
        ),
        unit=TIME,
    ),
    graph(
        "CPU time",
        "Share of one core that the busiest exporter of a job uses. It grows with series and "
        "scrapes.",
        Query(f"max by (job) ({CPU} {SEEN})", "{{job}}", FADING),
        unit=Unit("percentunit", 1),
    ),
    graph(
        "Memory",
        "Resident memory of the largest exporter process of each job.",
        Query(
            f"max by (job) ({select('process_resident_memory_bytes', EXPORTERS)} {SEEN})", "{{job}}"
        ),
        unit=BYTES,
    ),
    title="Exporter",
)

"""Can I trust the numbers: which exporter is down, which feed is old, and how much is asked of the API?"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from grafana.parts import (
    EXPORTERS,
    MINER_COLUMNS,
    NO_DATA,
    Board,
    Column,
    Query,
    board_link,
    counted,
    graph,
    of_exporters,
    select,
    short,
    stat_panel,
    table_panel,
    top_ten_at_end,
)
from grafana.states import FEED_STATE, LOADED, ORANGE, READING, RED, UP
from grafana.worlds import ALL, FADING, SICK

FEEDS: Final = {"hotkey": "~$hotkey|"}
FEED: Final = ("job", "instance", "feed", "hotkey")
"""Each exporter has its own answers: of a pair, one can fail alone."""
FEED_LABELS: Final = ", ".join(FEED)
SUCCESS: Final = of_exporters("chutes_feed_last_success_timestamp_seconds", *FEED, **FEEDS)
LIMITS: Final = select("chutes_feed_max_age_seconds", EXPORTERS, **FEEDS)
MAX_AGE: Final = of_exporters("chutes_feed_max_age_seconds", *FEED, **FEEDS)
FEED_AGE: Final = f"max by (feed) (time() - {select('chutes_feed_last_success_timestamp_seconds', EXPORTERS)})"
DURATION: Final = of_exporters("chutes_scrape_collector_duration_seconds", "collector")
FEED_UP: Final = of_exporters("chutes_feed_up", *FEED, **FEEDS)
DOUBTED: Final = f"{of_exporters('chutes_feed_doubted', *FEED, 'reason', **FEEDS)} == 1"
SEEN: Final = f"and on (job, instance) last_over_time({select('chutes_exporter_build_info', EXPORTERS)}[7d])"
"""Keeps the targets that were exporters within a week."""
BUDGET: Final = 450
"""Most requests that one key may cause in an hour."""
REQUESTS: Final = select("chutes_api_requests_total", EXPORTERS)


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({select(metric, EXPORTERS)}[$__rate_interval]))"


def _top(metric: str, by: str) -> str:
    """Count an hour's events for the ten values of a label that have the most at the end of the time range."""
    selected = select(metric, EXPORTERS)
    return (
        f"sum by ({by}) (increase({selected}[1h]))"
        f" and on ({by}) topk(10, sum by ({by}) (increase({selected}[1h] @ end())))"
    )


EXPORTER: Final = Board(
    "chutes-exporter",
    "Chutes exporter",
    "Can the numbers be trusted: which exporter is down, which feed is old or doubted, and how much is asked of the "
    "API?",
)

EXPORTER.show(
    stat_panel(
        "Exporters",
        "Share of the exporters of the past week that Prometheus can scrape. Below 100 %, look for the one that is "
        "down in the table below, and check its process and network.",
        [Query(f"avg({select('up', EXPORTERS)} {SEEN})", "up", ALL)],
        unit="percentunit",
        decimals=0,
        thresholds=[(float("-inf"), RED), (1, "text")],
        empty="none in a week",
        size=(4, 3),
    ),
    stat_panel(
        "Rules",
        "Whether Prometheus has loaded prometheus/rules/. Without them most panels are empty, and no alert can fire.",
        # 0 is known: they are not loaded.
        [Query("prometheus:chutes_rules:loaded or on () vector(0)", "status", ALL)],
        states=LOADED,
        size=(4, 3),
    ),
    stat_panel(
        "Failing",
        "Feeds whose last request failed. Their metrics stay until the answer reaches its maximum age. The table of "
        "feeds shows why they fail.",
        [Query(counted(f"{FEED_UP} == 0", f"count({FEED_UP})"), "feeds")],
        thresholds=[(1, ORANGE)],
        decimals=0,
        empty="no exporter",
        size=(4, 3),
    ),
    stat_panel(
        "No data",
        "Feeds that never succeeded, or whose newest good answer has reached its maximum age. Their metrics are "
        "missing, and alerts on them are silent.",
        [
            Query(
                counted(
                    f"{LIMITS} unless on ({FEED_LABELS})"
                    f" (time() - {select('chutes_feed_last_success_timestamp_seconds', EXPORTERS, **FEEDS)}"
                    f" <= on ({FEED_LABELS}) {LIMITS})",
                    f"count({LIMITS})",
                ),
                "feeds",
            )
        ],
        thresholds=[(1, RED)],
        decimals=0,
        empty="no exporter",
        size=(4, 3),
    ),
    stat_panel(
        "Doubted",
        "Feeds whose newest answer is valid but probably wrong, for example incomplete. The table of feeds has the "
        "reason, and the runbook of ChutesDataIncomplete explains it.",
        [Query(counted(DOUBTED, f"count({FEED_UP})"), "feeds")],
        thresholds=[(1, ORANGE)],
        decimals=0,
        empty="no exporter",
        size=(4, 3),
    ),
    stat_panel(
        "Requests",
        f"Requests of the busiest exporter to the API in the past hour. One key causes at most {BUDGET}. "
        "More exporters, more keys or a shorter --feed.ttl cause more.",
        [Query(f"max(sum by (job, instance) (increase({REQUESTS}[1h])))", "per hour", FADING)],
        decimals=0,
        empty="no requests",
        trend=True,
        size=(4, 3),
    ),
    table_panel(
        "Exporters",
        "The exporters of the past week, with the cost of their work. An exporter that is down keeps its row for a "
        "week.",
        [
            Query(f"max by (job, instance) ({select('up', EXPORTERS)} {SEEN})", data=ALL),
            Query(of_exporters("chutes_exporter_build_info", "job", "instance", "version", "python")),
            Query(f"max by (job, instance) ({select('scrape_duration_seconds', EXPORTERS)} {SEEN})", data=ALL),
            Query(f"sum by (job, instance) (increase({REQUESTS}[1h]))", data=FADING),
            Query(of_exporters("process_resident_memory_bytes", "job", "instance") + f" {SEEN}"),
            Query(
                f"{of_exporters('chutes_scrape_series', 'job', 'instance')}"
                f" / on (job, instance) {of_exporters('chutes_scrape_series_limit', 'job', 'instance')}"
            ),
            Query(of_exporters("chutes_exporter_config_last_reload_successful", "job", "instance")),
            Query(f"max by (job, instance) (abs({select('chutes_api_clock_offset_seconds', EXPORTERS)}))"),
        ],
        [
            Column("A", "State", states=UP, width=80),
            Column("instance", "Exporter", width=220, link=board_link("chutes-exporter", instance="${__value.raw}")),
            Column("job", "Job", width=110),
            Column("version", "Version", width=90),
            Column("python", "Python", width=80),
            Column("C", "Scrape time", "s", 2, width=110),
            Column("D", "Requests, 1 h", "none", 0, width=120),
            Column("E", "Memory", "bytes", 0, width=100),
            Column("F", "Series of limit", "percentunit", 0, width=120, thresholds=[(0.8, ORANGE), (1, RED)]),
            Column("G", "Configuration", states=LOADED, width=120),
            Column("H", "Clock offset", "s", 1, width=110, thresholds=[(120, ORANGE), (600, RED)]),
        ],
        empty="Unknown: no data. No exporter was scraped within a week.",
        sort=[("State", False), ("Exporter", False)],
        size=(24, 4),
    ),
    table_panel(
        "Feeds",
        "Each feed of each exporter, failing feeds first, by miner. The age is the time since the request. "
        "Stats, scores and history can be 10 minutes older. At the maximum age, the answer is dropped. The runbook of "
        "ChutesFeedFailing explains the reasons.",
        [
            Query(short(FEED_UP)),
            Query(of_exporters("chutes_feed_failure_info", *FEED, "reason", **FEEDS), data=SICK),
            Query(f"time() - {SUCCESS}"),
            Query(MAX_AGE),
            Query(f"(time() - {SUCCESS}) / on ({FEED_LABELS}) {MAX_AGE}"),
            Query(of_exporters("chutes_feed_records", *FEED, **FEEDS)),
            Query(of_exporters("chutes_feed_rejected_records", *FEED, **FEEDS)),
            Query(
                f'max by ({FEED_LABELS}, doubt) (label_replace({DOUBTED}, "doubt", "$1", "reason", "(.*)"))', data=SICK
            ),
        ],
        [
            Column("A", "State", states=FEED_STATE, width=80),
            MINER_COLUMNS[0],
            replace(MINER_COLUMNS[1], missing=" "),
            Column("feed", "Feed", width=170),
            Column("reason", "Reason", width=130, missing=" "),
            Column("doubt", "Doubt", width=120, missing=" "),
            Column("C", "Age", "s", 1, width=100),
            Column("D", "Maximum age", "s", 1, width=120),
            Column("E", "Share of maximum", "percentunit", 0, width=165, thresholds=[(0.5, ORANGE), (1, RED)]),
            Column("F", "Records", "none", 0, width=90),
            Column("G", "Rejected", "none", 0, width=90, thresholds=[(1, ORANGE)]),
            Column("job", ""),
            Column("instance", "Exporter", width=220, link=board_link("chutes-exporter", instance="${__value.raw}")),
        ],
        empty="Unknown: no data. The exporter is down, or has sent no request yet.",
        sort=[("State", False), ("Miner", False), ("Feed", False)],
        size=(24, 10),
    ),
    graph(
        "Requests per hour by endpoint",
        f"The ten endpoints with the most requests. One key causes at most {BUDGET} requests an hour. "
        "More scrapes do not cause more requests, because each feed is requested once per time to live.",
        [Query(_top("chutes_api_requests_total", "endpoint"), "{{endpoint}}", FADING)],
        unit="none",
        decimals=0,
        calcs=("lastNotNull", "max"),
        size=(12, 7),
    ),
    graph(
        "Requests per hour by result",
        "Requests by HTTP status, or by the reason if the answer was incomplete. Anything except 200 is a problem of "
        "the API, the key or the network.",
        [Query(_top("chutes_api_requests_total", "code"), "{{code}}", FADING)],
        unit="none",
        decimals=0,
        calcs=("lastNotNull", "max"),
        size=(12, 7),
    ),
)

EXPORTER.fold(
    "API",
    graph(
        "Age of answers",
        "Age of the newest good answer, for the ten oldest feeds. A saw-tooth is normal. A line that keeps rising is "
        "a feed that fails. The table above shows each age as a share of the maximum age.",
        [
            Query(top_ten_at_end(FEED_AGE, FEED_AGE, "feed"), "{{feed}}"),
        ],
        unit="s",
        decimals=0,
    ),
    graph(
        "Response time, 90th percentile",
        "Nine of ten requests took at most this time, over all endpoints. If it is near --api.timeout, feeds begin to "
        "fail.",
        [
            Query(
                f"histogram_quantile(0.9, {_rate('chutes_api_request_duration_seconds_bucket', 'le')})",
                "all endpoints",
                FADING,
            )
        ],
        unit="s",
        decimals=2,
    ),
    graph(
        "Bytes per hour by endpoint",
        "Bytes of the API's answers, decompressed, for the ten largest endpoints. The list of chutes is the largest.",
        [Query(_top("chutes_api_response_bytes_total", "endpoint"), "{{endpoint}}", FADING)],
        unit="bytes",
        decimals=0,
        calcs=("lastNotNull", "max"),
    ),
    graph(
        "Rejected records per hour",
        "Records that could not be read and were left out, for the ten endpoints with the most. The log names the "
        "field.",
        [Query(_top("chutes_api_rejected_records_total", "endpoint"), "{{endpoint}}", FADING)],
        unit="none",
        decimals=0,
        calcs=("lastNotNull", "max"),
    ),
)

EXPORTER.fold(
    "Exporter",
    graph(
        "Feed reads by result",
        "Reads of feeds per second: from the cache (hit), by a request (miss), by a request under way (coalesced), "
        "with older data (stale), or none (failed).",
        [Query(_rate("chutes_feed_requests_total", "result"), "{{result}}", FADING)],
        unit="ops",
        decimals=2,
        states=READING,
        stacked=True,
    ),
    graph(
        "Collector time",
        "Time that each collector waited for answers and computed its samples, for the ten slowest. If it is near the "
        "scrape timeout, pages show older data.",
        [Query(top_ten_at_end(DURATION, DURATION, "collector"), "{{collector}}")],
        unit="s",
        decimals=2,
    ),
    graph(
        "Collectors without fresh answers",
        "Collectors whose samples are older than they should be, or missing.",
        [
            # 0 is known where there is a page.
            Query(
                f"1 - {of_exporters('chutes_scrape_collector_success', 'collector', function='min')} > 0"
                f" or on () 0 * {of_exporters('chutes_scrape_series')}",
                "{{collector}}",
            )
        ],
        unit="none",
        decimals=0,
        empty=NO_DATA,
    ),
    graph(
        "Series",
        "Series of all collectors, their limit (--max-series), and samples left out because the API described them "
        "twice.",
        [
            Query(of_exporters("chutes_scrape_series"), "series"),
            Query(of_exporters("chutes_scrape_series_limit"), "limit"),
            Query(
                f"sum({of_exporters('chutes_scrape_collector_duplicate_samples', 'collector', 'hotkey')})",
                "left out as duplicates",
            ),
        ],
        unit="none",
        decimals=0,
    ),
    graph(
        "Scrape time",
        "Time that Prometheus waited for the page, by job. If a scrape has to request feeds, it takes as long as the "
        "slowest endpoint.",
        [Query(f"max by (job) ({select('scrape_duration_seconds', EXPORTERS)} {SEEN})", "{{job}}", ALL)],
        unit="s",
        decimals=2,
    ),
    graph(
        "CPU time",
        "Share of one core that the busiest exporter of a job uses. It grows with series and scrapes.",
        [
            Query(
                f"max by (job) (rate({select('process_cpu_seconds_total', EXPORTERS)}[$__rate_interval]) {SEEN})",
                "{{job}}",
                FADING,
            )
        ],
        unit="percentunit",
        decimals=1,
    ),
    graph(
        "Memory",
        "Resident memory of the largest exporter process of each job.",
        [Query(f"max by (job) ({select('process_resident_memory_bytes', EXPORTERS)} {SEEN})", "{{job}}")],
        unit="bytes",
        decimals=0,
    ),
)

"""The exporter itself: its requests, the freshness of its answers, the API's behaviour, and its resources."""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    JOB,
    WAS_EXPORTER,
    Board,
    Column,
    Query,
    lines,
    lowest_of_exporters,
    or_absence,
    platform,
    rows,
    tile,
)
from grafana.states import LOADED, ORANGE, READING, RED, UP
from grafana.worlds import ALL, FADING, SICK

EXPORTER: Final = Board(
    "chutes-exporter",
    "Chutes exporter",
    "The exporter itself: its feeds and how fresh their answers are, the API's latency and errors, and what it costs.",
)

ASKED: Final = 'hotkey=~"$hotkey|"'
UP_OF_FEEDS: Final = lowest_of_exporters(platform("chutes_feed_up", "feed", "hotkey", hotkey="~$hotkey|"))
SUCCESS: Final = lowest_of_exporters(
    platform("chutes_feed_last_success_timestamp_seconds", "feed", "hotkey", hotkey="~$hotkey|")
)
DOUBTED: Final = f"{platform('chutes_feed_doubted', 'feed', 'hotkey', 'reason', hotkey='~$hotkey|')} == 1"
MAX_AGE: Final = platform("chutes_feed_max_age_seconds", "feed", "hotkey", hotkey="~$hotkey|")


def _rate(metric: str, by: str, where: str = "") -> str:
    matchers = ", ".join(filter(None, (JOB, where)))
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


EXPORTER.row(
    "Are the numbers current and complete?",
    tile(
        "Exporters",
        "Whether Prometheus can scrape every exporter that it has scraped within a week. When one is down: is the "
        "process there, does it listen, does the network let Prometheus in?",
        Query(f"min(up{{{JOB}}} {WAS_EXPORTER})", data=ALL),
        states=UP,
        empty="none in a week",
    ),
    tile(
        "Feeds down",
        "Feeds whose last request failed. Until their answers are too old, their metrics stay as they were; the table "
        "below says why they fail.",
        or_absence(
            f"count({UP_OF_FEEDS} == 0) or on () 0 * count(chutes_feed_up{{{JOB}, {ASKED}}})",
            "scores",
        ),
        thresholds=[(1, ORANGE)],
        decimals=0,
    ),
    tile(
        "Feeds without data",
        "Feeds whose newest good answer is too old to be shown: their metrics are gone, and alerts on them are silent.",
        or_absence(
            f"count(time() - {SUCCESS} > on (feed, hotkey) {MAX_AGE}) or on () 0 * count({MAX_AGE})",
            "scores",
        ),
        thresholds=[(1, RED)],
        decimals=0,
    ),
    tile(
        "Clock offset",
        "The exporter's clock less the API's. Beyond 600 seconds every signature is refused: make the machine keep "
        "time.",
        or_absence(f"max(abs(chutes_api_clock_offset_seconds{{{JOB}}}))", "scores"),
        unit="s",
        thresholds=[(120, ORANGE), (600, RED)],
        decimals=1,
    ),
    tile(
        "Series of the limit",
        "Series that collectors would have, of those that they may (--max-series). At 100 % whole collectors are left "
        "out of the page, and the alert ChutesCollectorCut names them.",
        or_absence(
            f"max(chutes_scrape_series{{{JOB}}} / on (job, instance) chutes_scrape_series_limit{{{JOB}}})",
            "scores",
        ),
        unit="percentunit",
        thresholds=[(0.8, ORANGE), (1, RED)],
        decimals=0,
    ),
    tile(
        "Doubted",
        "Feeds whose newest answer is probably wrong, though it looks right. The table below has the reason, and the "
        "runbook of ChutesDataIncomplete what it means.",
        or_absence(
            f"count({DOUBTED}) or on () 0 * count(chutes_feed_up{{{JOB}, {ASKED}}})",
            "scores",
        ),
        thresholds=[(1, ORANGE)],
        decimals=0,
    ),
    tile(
        "Records not read",
        "Records of the newest answers that could not be read. Counts, ranks and zeros that they could make false are "
        "absent; the log names the field.",
        or_absence(f"sum({platform('chutes_feed_rejected_records', 'feed', 'hotkey', hotkey='~$hotkey|')})", "scores"),
        thresholds=[(1, ORANGE)],
        decimals=0,
    ),
    tile(
        "Configuration",
        "Whether the configuration could be read when it last changed. When not, the one before is in force; the log "
        "says what is wrong with the new one.",
        or_absence(f"min(chutes_exporter_config_last_reload_successful{{{JOB}}})", "scores"),
        states=LOADED,
    ),
)

EXPORTER.row(
    "Requests to the API",
    rows(
        "Feeds",
        "Every feed, those that fail first. The age is that of the answer: stats, scores and history in it can be 10 "
        "minutes older, as the service computes them every 10 minutes. The runbook of ChutesFeedFailing has the "
        "reasons.",
        [
            Query(UP_OF_FEEDS),
            Query(platform("chutes_feed_failure_info", "feed", "hotkey", "reason", hotkey="~$hotkey|"), data=SICK),
            Query(f"time() - {SUCCESS}"),
            Query(platform("chutes_feed_ttl_seconds", "feed", "hotkey", hotkey="~$hotkey|")),
            Query(MAX_AGE),
            Query(platform("chutes_feed_rejected_records", "feed", "hotkey", hotkey="~$hotkey|")),
            Query(platform("chutes_feed_records", "feed", "hotkey", hotkey="~$hotkey|")),
            Query(
                f'max by (feed, hotkey, doubt) (label_replace({DOUBTED}, "doubt", "$1", "reason", "(.*)"))', data=SICK
            ),
        ],
        [
            Column("A", "State", states=UP, width=80),
            Column("feed", "Feed", width=180),
            Column("reason", "Reason", width=180),
            Column("doubt", "Doubt", width=110),
            Column("C", "Answer age", "s", width=100),
            Column("D", "Fresh for", "s", width=100),
            Column("E", "Dropped at", "s", width=110),
            Column("G", "Records", "none", width=90),
            Column("F", "Not read", "none", width=90, thresholds=[(1, ORANGE)]),
            Column("hotkey", "Miner"),
        ],
        empty="No feed known: the exporter is down, or has not asked yet",
        sort=("State", False),
        size=(24, 11),
    ),
    lines(
        "Age of answers",
        "Time since each feed's newest good answer was asked for. Stats, scores and history in it can be 10 minutes "
        "older. Saw teeth are normal; a line that climbs is a feed that fails.",
        [Query(f"max by (feed) (time() - {SUCCESS})", "{{feed}}")],
        unit="s",
        size=(24, 8),
    ),
    lines(
        "Requests by outcome",
        "Requests a second by HTTP status, or by the reason where there was no whole answer. Anything but 200 is a "
        "trouble of the API, the key or the network.",
        [Query(_rate("chutes_api_requests_total", "code"), "{{code}}", FADING)],
        unit="reqps",
        stacked=True,
    ),
    lines(
        "Requests by endpoint",
        "Requests a second by endpoint. It does not grow with scrapes: each endpoint is asked once a freshness period.",
        [Query(_rate("chutes_api_requests_total", "endpoint"), "{{endpoint}}", FADING)],
        unit="reqps",
    ),
    lines(
        "Latency, 90 % of requests",
        "Time within which nine of ten answers had ended, by endpoint. When it nears --api.timeout, feeds begin to "
        "fail.",
        [
            Query(
                f"histogram_quantile(0.9, {_rate('chutes_api_request_duration_seconds_bucket', 'endpoint, le')})",
                "{{endpoint}}",
                FADING,
            )
        ],
        unit="s",
        empty="Nothing was asked in this time range",
    ),
    lines(
        "Bytes of answers",
        "Bytes a second of the API's answers, decompressed. The list of chutes is the largest; it carries their code.",
        [Query(_rate("chutes_api_response_bytes_total", "endpoint"), "{{endpoint}}", FADING)],
        unit="Bps",
        stacked=True,
    ),
    lines(
        "Feed reads by result",
        "Reads of feeds a second: answered from the cache (hit), by a request (miss), by a request under way (joined), "
        "with older data (stale), or not at all (failed).",
        [Query(_rate("chutes_feed_requests_total", "result"), "{{result}}", FADING)],
        unit="ops",
        states=READING,
        stacked=True,
    ),
    lines(
        "Records that could not be read",
        "Records a second that were left out because they made no sense, by endpoint. The API has changed, or is "
        "broken: the log names the field.",
        [Query(_rate("chutes_api_rejected_records_total", "endpoint"), "{{endpoint}}", FADING)],
        unit="ops",
    ),
)

EXPORTER.row(
    "What does it cost?",
    lines(
        "Time of collectors",
        "How long each collector waited for answers and worked on them in the last scrape. Close to the scrape "
        "timeout, pages show older data.",
        [Query(platform("chutes_scrape_collector_duration_seconds", "collector"), "{{collector}}")],
        unit="s",
    ),
    lines(
        "Collectors without fresh answers",
        "Collectors that did not get fresh answers to all they asked: their samples are older, or missing.",
        [
            Query(
                f"(1 - min by (collector) (chutes_scrape_collector_success{{{JOB}}})) > 0",
                "{{collector}}",
                data=SICK,
            )
        ],
        unit="none",
        stacked=True,
        empty="Every collector had fresh answers, if the exporter is up",
    ),
    lines(
        "Series",
        "Series of all collectors, and how many there may be. Samples that the API described twice are left out.",
        [
            Query(platform("chutes_scrape_series"), "series"),
            Query(platform("chutes_scrape_series_limit"), "limit"),
            Query(
                f"sum(max by (collector, hotkey) (chutes_scrape_collector_duplicate_samples{{{JOB}}}))",
                "left out as duplicates",
            ),
        ],
        unit="none",
    ),
    lines(
        "Scrape duration",
        "How long Prometheus waited for the page. Most of it is the slowest endpoint whenever something is asked anew.",
        [Query(f"max by (job) (scrape_duration_seconds{{{JOB}}} {WAS_EXPORTER})", "{{job}}", ALL)],
        unit="s",
    ),
    lines(
        "Processor time",
        "Share of one core that the exporter uses. It grows with the series of the page and with scrapes.",
        [
            Query(
                f"max by (job) (rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval]) {WAS_EXPORTER})",
                "{{job}}",
                FADING,
            )
        ],
        unit="percentunit",
    ),
    lines(
        "Memory",
        "Memory that the exporter holds. docs/performance.md has what to expect for which size.",
        [Query(f"max by (job) (process_resident_memory_bytes{{{JOB}}} {WAS_EXPORTER})", "{{job}}")],
        unit="bytes",
    ),
    rows(
        "Versions",
        "The exporters, their versions, and how long ago the configuration in force was read.",
        [
            Query(
                f"max by (job, version, python) (chutes_exporter_build_info{{{JOB}}})",
            ),
            Query(
                f"time() - max by (job) (chutes_exporter_config_last_reload_success_timestamp_seconds{{{JOB}}})",
            ),
        ],
        [
            Column("job", "Job"),
            Column("version", "Version", width=120),
            Column("python", "Python", width=120),
            Column("B", "Configuration read", "s", width=160),
        ],
        empty="No exporter: it is down, or Prometheus does not scrape it",
        sort=("Job", False),
        size=(24, 5),
    ),
)

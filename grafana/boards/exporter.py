"""Can the boards be trusted? If not, which alerts are blind, why, and what is to be done?"""

from __future__ import annotations

from typing import Final

from chutes_exporter.api.errors import ApiError
from chutes_exporter.feeds.definitions import FEEDS as ALL_FEEDS
from chutes_exporter.feeds.sanity_checks import DoubtedError
from grafana.alerts import NEEDED, blind_alerts, blinded
from grafana.parts import (
    BYTES,
    COUNT,
    PERCENT,
    RULES,
    RUNBOOK,
    TIME,
    Board,
    Column,
    Query,
    Unit,
    board_link,
    counted,
    graph,
    miner_columns,
    nothing_row,
    select,
    short,
    stat,
    table,
    timeline,
    top_ten_at_end,
)
from grafana.states import ALL_GOOD, FEED, FEED_STATE, LOADED, ORANGE, TRUST, UP, State


def _chosen(metric: str, **where: str) -> str:
    """Select a metric of the chosen exporters. Only this board shows those of one miner apart."""
    return select(metric, job="~$job", instance="~$instance", **where)


def _of_chosen(metric: str, *labels: str, function: str = "max", **where: str) -> str:
    """Aggregate a metric of the chosen exporters, which labels tell apart."""
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"{function}{by} ({_chosen(metric, **where)})"


FEEDS: Final = {"hotkey": "~$hotkey|"}
"""Selects the feeds of the chosen miners, and those of the platform, which have no hotkey."""
EACH_FEED: Final = ("job", "instance", "feed", "hotkey")
"""Each exporter has its own answers: of a pair, one can fail alone."""
FEED_LABELS: Final = ", ".join(EACH_FEED)
EACH: Final = ("job", "instance")
_SUCCESS: Final = _chosen("chutes_feed_last_success_timestamp_seconds", **FEEDS)
SUCCESS: Final = f"max by ({FEED_LABELS}) ({_SUCCESS})"
MAX_AGE: Final = _of_chosen("chutes_feed_max_age_seconds", *EACH_FEED, **FEEDS)
FEED_AGE: Final = (
    f"max by (feed) (time() - {_chosen('chutes_feed_last_success_timestamp_seconds')})"
)
FEED_UP: Final = _of_chosen("chutes_feed_up", *EACH_FEED, **FEEDS)
DOUBTED: Final = f"{_of_chosen('chutes_feed_doubted', *EACH_FEED, 'reason', **FEEDS)} == 1"
BLIND: Final = "hotkey_feed:chutes_feed:blind"
OF_BLIND: Final = select(BLIND, **FEEDS)
"""The feeds of which no exporter has a full answer, so that alerts that need them cannot fire."""
OF_ALERTS: Final = "|".join(sorted(frozenset[str]().union(*NEEDED.values())))
"""The feeds that alerts need."""
ANSWERED: Final = _chosen("chutes_feed_up", **FEEDS)
FAILING: Final = f"(min by (feed, hotkey) ({ANSWERED}) == 0)"
SEEN: Final = f"and on (job, instance) last_over_time({_chosen('chutes_exporter_build_info')}[7d])"
"""Keeps the targets that were exporters within a week."""
SCRAPED: Final = f"({_chosen('up')} {SEEN})"
KEYLESS: Final = (
    f"{_chosen('chutes_miner_watched', **FEEDS)} unless on (hotkey) "
    f"{_chosen('chutes_feed_up', feed='instances')}"
)
"""Watched miners whose key no exporter has."""
TRUSTED: Final = (
    f"0 * group({select(BLIND, **FEEDS, feed=f'~{OF_ALERTS}')} "
    f"or absent({RULES})) "
    f"or on () group({OF_BLIND}) or on () 3 * group({KEYLESS}) or on () 2 * group({ANSWERED}) "
    f"or on () 0 * group({SCRAPED})"
)
"""The number of the verdict. It is long, because it names the feeds that alerts need."""
ADVICE: Final = [
    *(State(one.reason, one.advice) for one in ApiError.__subclasses__()),
    State(DoubtedError.reason, DoubtedError.advice),
]
"""What to do about each reason of a failure."""
BUDGET: Final = (
    "One key causes up to 439 requests an hour to the API, and 72 to the node of --chain.url."
)
REQUESTS: Final = _chosen("chutes_api_requests_total")
PAGE: Final = _of_chosen("chutes_scrape_series")
STALE: Final = (
    f"1 - {_of_chosen('chutes_scrape_collector_success', 'collector', function='min')} > 0"
)
TOP_STALE: Final = top_ten_at_end(STALE, STALE, "collector")
CPU: Final = f"rate({_chosen('process_cpu_seconds_total')}[$__rate_interval])"
RESPONSES: Final = (
    f"sum by (le) (rate({_chosen('chutes_api_request_duration_seconds_bucket')}[$__rate_interval]))"
)
THIS_EXPORTER: Final = board_link("chutes-exporter", instance="${__value.raw}")


def _blind_alerts_by_feed() -> list[State]:
    """Return what the column of blind alerts shows instead of a feed's name: how many alerts cannot
    fire without the feed, and which, such as "2: GpusGone, GpusIdle".
    """
    alerts_by_feed = blinded()
    texts = []
    for name in sorted({feed.name for feed in ALL_FEEDS}):
        alerts = [alert.removeprefix("Chutes") for alert in alerts_by_feed.get(name, ())]
        text = f"{len(alerts)}: {', '.join(alerts)}" if alerts else "none"
        texts.append(State(name, text))
    return texts


def _top(metric: str, label: str) -> Query:
    """Count an hour's events for the ten values of a label that have the most at the end of the
    time range.
    """
    selected = _chosen(metric)
    in_an_hour = f"sum by ({label}) (increase({selected}[1h]))"
    in_last_hour = f"sum by ({label}) (increase({selected}[1h] @ end()))"
    # Each line is named by its label: `{{endpoint}}`.
    legend = f"{{{{{label}}}}}"
    return Query(f"{in_an_hour} and on ({label}) topk(10, {in_last_hour})", legend)


EXPORTER: Final = Board(
    "chutes-exporter",
    "Chutes exporter",
    "Can the boards be trusted? If not, which alerts are blind, why, and what is to be done?",
    variables=("cluster", "job", "instance", "hotkey"),
    stat_empty="no exporter",
)

EXPORTER.show(
    stat(
        "Trust the boards",
        "No: an alert is blind, because a feed that it needs has no full answer, no exporter runs, "
        "or the rules are not loaded. Panels about such a feed say that they do not know.",
        Query(TRUSTED, "verdict"),
        states=TRUST,
        size=(6, 3),
    ),
    stat(
        "Blind alerts",
        "Alerts that cannot fire now, whatever happens, because a feed that they need has no full "
        "answer. The table below names them.",
        Query(
            f"{blind_alerts(BLIND)} and on () {RULES} and on () group({BLIND} or {ANSWERED})",
            "cannot fire",
        ),
        thresholds=[(1, ORANGE)],
        size=(4, 3),
    ),
    stat(
        "Feeds without a full answer",
        "Feeds of which no exporter has an answer that is young enough and has all records, and "
        "feeds that fail, whose last answer is still in use.",
        Query(counted(OF_BLIND, f"({RULES} and on () group({ANSWERED}))"), "no data"),
        Query(
            counted(f"({FAILING} unless on (feed, hotkey) {OF_BLIND})", f"group({ANSWERED})"),
            "old data",
        ),
        thresholds=[(1, ORANGE)],
        size=(5, 3),
    ),
    stat(
        "Exporters down",
        "Exporters of the past week that Prometheus cannot scrape. Look for them in the folded "
        "table of exporters, and check their processes and the network.",
        Query(f"sum(1 - {SCRAPED})", "exporters"),
        thresholds=[(1, ORANGE)],
        empty="none in a week",
        size=(5, 3),
    ),
    stat(
        "Rules",
        "Whether Prometheus has loaded prometheus/rules/. Without them most panels are empty, "
        "and no alert can fire.",
        Query(f"{RULES} or on () vector(0)", "status"),
        states=LOADED,
        size=(4, 3),
    ),
    table(
        "Bad feeds",
        "Feeds that fail or have no full answer, those without one first, with the alerts that "
        "are blind because of them. While a feed fails, its last answer stays until the maximum "
        "age. A click on a feed opens the runbook, and chutes-exporter check explains the reason.",
        Column(
            "State",
            short(f"0 * {OF_BLIND} or on (feed, hotkey) {FAILING} + 1"),
            width=120,
            states=FEED,
        ),
        Column(
            "",
            nothing_row(f"{ANSWERED} unless on () ({OF_BLIND} or {FAILING})", "feed"),
        ),
        Column(
            "Feed",
            "feed",
            width=165,
            states=[ALL_GOOD],
            link=RUNBOOK.replace("${__value.raw}", "ChutesFeedFailing"),
            tooltip="Open the runbook",
        ),
        *miner_columns(missing=" "),
        Column(
            "Age",
            f"time() - max by (feed, hotkey) ({_SUCCESS}) and on (feed, hotkey) {FAILING}",
            TIME,
            80,
            missing=" ",
        ),
        Column(
            "",
            "topk by (feed, hotkey) (1, label_replace("
            f"{_chosen('chutes_feed_failure_info', **FEEDS)}"
            ', "advice", "$1", "reason", "(.+)"))',
        ),
        Column("Reason", "reason", width=130, missing=" "),
        Column("", f'label_replace({OF_BLIND}, "blinds", "$1", "feed", "(.+)")'),
        Column("Blind alerts", "blinds", width=280, states=_blind_alerts_by_feed(), missing="none"),
        Column("What to do", "advice", width=650, states=ADVICE, missing=" "),
        empty="Unknown: no data. The exporter is down, or has sent no request yet.",
        sort=["State", "Feed"],
        size=(24, 6),
    ),
    timeline(
        "Feeds over time",
        "The worst state of each feed, over all miners, of the exporter that knows most. A feed "
        "that was bad for a while explains gaps in other panels.",
        Query(
            f"min by (feed) (0 * {OF_BLIND} or on (feed, hotkey) "
            f"1 + max by (feed, hotkey) ({ANSWERED}))",
            "{{feed}}",
            step="5m",
        ),
        states=FEED,
        size=(24, 12),
    ),
)

EXPORTER.show(
    table(
        "Exporters",
        "The exporters of the past week, with the cost of their work. An exporter that is down "
        "keeps its row for a week.",
        Column(
            "State",
            f"max by (job, instance) ({_chosen('up')} {SEEN})",
            width=80,
            states=UP,
        ),
        Column("Exporter", "instance", width=160, link=THIS_EXPORTER),
        Column("Job", "job", width=80),
        Column("", _of_chosen("chutes_exporter_build_info", *EACH, "version", "python")),
        Column("Version", "version", width=80),
        Column("Python", "python", width=70),
        Column(
            "Scrape time",
            f"max by (job, instance) ({_chosen('scrape_duration_seconds')} {SEEN})",
            TIME,
        ),
        Column(
            "Requests, 1 h",
            f"sum by (job, instance) (increase({REQUESTS}[1h]))",
            COUNT,
        ),
        Column(
            "Memory",
            _of_chosen("process_resident_memory_bytes", *EACH) + f" {SEEN}",
            BYTES,
            100,
        ),
        Column(
            "Series of limit",
            f"{_of_chosen('chutes_scrape_series', *EACH)}"
            f" / on (job, instance) {_of_chosen('chutes_scrape_series_limit', *EACH)}",
            PERCENT,
            thresholds=[(0.8, ORANGE)],
        ),
        Column(
            "Configuration",
            _of_chosen("chutes_exporter_config_last_reload_successful", *EACH),
            width=120,
            states=LOADED,
        ),
        Column(
            "Clock offset",
            f"max by (job, instance) (abs({_chosen('chutes_api_clock_offset_seconds')}))",
            TIME,
            thresholds=[(120, ORANGE)],
        ),
        empty="Unknown: no data. No exporter was scraped within a week.",
        sort=["State", "Exporter"],
        size=(24, 4),
    ),
    title="All exporters",
)

EXPORTER.show(
    table(
        "All feeds",
        "Each feed of each exporter, failing feeds first, by miner. The age is the time since the "
        "request. Stats, scores and history can be 10 minutes older. At the maximum age, the "
        "answer is dropped. The runbook of ChutesFeedFailing explains the reasons.",
        Column("State", short(FEED_UP), width=80, states=FEED_STATE),
        *miner_columns(missing=" "),
        Column("Feed", "feed", width=160),
        Column("", _of_chosen("chutes_feed_failure_info", *EACH_FEED, "reason", **FEEDS)),
        Column("Reason", "reason", width=100, missing=" "),
        Column(
            "",
            f'max by ({FEED_LABELS}, doubt) (label_replace({DOUBTED}, "doubt", "$1", '
            '"reason", "(.*)"))',
        ),
        Column("Doubt", "doubt", width=100, missing=" "),
        # The API sends whole seconds, so a new answer can seem to come from the future.
        Column("Age", f"clamp_min(time() - {SUCCESS}, 0)", TIME, 80),
        Column("Maximum age", MAX_AGE, TIME),
        Column(
            "Share of maximum",
            f"(time() - {SUCCESS}) / on ({FEED_LABELS}) "
            + _of_chosen("chutes_feed_max_age_seconds", *EACH_FEED),
            PERCENT,
            thresholds=[(0.5, ORANGE)],
        ),
        Column("Records", _of_chosen("chutes_feed_records", *EACH_FEED, **FEEDS), COUNT),
        Column(
            "Rejected",
            _of_chosen("chutes_feed_rejected_records", *EACH_FEED, **FEEDS),
            COUNT,
            thresholds=[(1, ORANGE)],
        ),
        Column("", "job"),
        Column("Exporter", "instance", width=160, link=THIS_EXPORTER),
        empty="Unknown: no data. The exporter is down, or has sent no request yet.",
        sort=["State", "Miner", "Feed"],
        size=(24, 10),
    ),
    title="All feeds",
)

EXPORTER.show(
    graph(
        "Requests per hour by endpoint",
        f"The ten endpoints with the most requests. {BUDGET} More scrapes do not cause more "
        "requests, because each feed is requested once per time to live.",
        _top("chutes_api_requests_total", "endpoint"),
        calcs=(),
        size=(12, 7),
    ),
    graph(
        "Requests per hour by result",
        "Requests by HTTP status, or by the reason if the answer was incomplete. Anything except "
        "200 is a problem of the API, the key or the network.",
        _top("chutes_api_requests_total", "code"),
        size=(12, 7),
    ),
    graph(
        "Age of answers",
        "Age of the newest good answer, for the ten oldest feeds. A saw-tooth is normal. A line "
        "that keeps rising is a feed that fails. The table of all feeds shows each age as a share "
        "of the maximum age.",
        Query(top_ten_at_end(FEED_AGE, FEED_AGE, "feed"), "{{feed}}"),
        unit=TIME,
    ),
    graph(
        "Response time, 90th percentile",
        "Nine of ten requests took at most this time, over all endpoints. If it is near "
        "--api.timeout, feeds begin to fail.",
        Query(f"histogram_quantile(0.9, {RESPONSES})", "all endpoints"),
        unit=TIME,
    ),
    graph(
        "Bytes per hour by endpoint",
        "Bytes of the API's answers, decompressed, for the ten largest endpoints. The list of "
        "chutes is the largest.",
        _top("chutes_api_response_bytes_total", "endpoint"),
        unit=BYTES,
        calcs=(),
    ),
    graph(
        "Rejected records per hour",
        "Records that could not be read and were left out, for the ten endpoints with the "
        "most. The log has the field.",
        _top("chutes_api_rejected_records_total", "endpoint"),
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
        Query(_of_chosen("chutes_scrape_series_limit"), "limit"),
    ),
    graph(
        "Scrape time",
        "Time that Prometheus waited for the page, by job. If a scrape requests feeds, it takes "
        "as long as the slowest endpoint.",
        Query(
            f"max by (job) ({_chosen('scrape_duration_seconds')} {SEEN})",
            "{{job}}",
        ),
        unit=TIME,
    ),
    graph(
        "CPU time",
        "Share of one core that the busiest exporter of a job uses. It grows with series and "
        "scrapes.",
        Query(f"max by (job) ({CPU} {SEEN})", "{{job}}"),
        unit=Unit("percentunit", 1),
    ),
    graph(
        "Memory",
        "Resident memory of the largest exporter process of each job.",
        Query(
            f"max by (job) ({_chosen('process_resident_memory_bytes')} {SEEN})",
            "{{job}}",
        ),
        unit=BYTES,
    ),
    title="Exporter",
)

"""Can the boards and the alerts be trusted? If not, why, and what is to be done?"""

from __future__ import annotations

from typing import Final

from chutes_exporter.api.errors import ApiError
from chutes_exporter.feeds.feed import MissingEndpointError
from chutes_exporter.feeds.sanity_checks import DoubtedError
from grafana.dashboard import Board
from grafana.panels import (
    COUNT,
    PERCENT,
    RUNBOOK,
    TIME,
    Column,
    Query,
    board_link,
    graph,
    miner_columns,
    stat,
    table,
    timeline,
)
from grafana.queries import RULES, counted, nothing_row, select, short, while_known
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
FEED_UP: Final = _of_chosen("chutes_feed_up", *EACH_FEED, **FEEDS)
DOUBTED: Final = f"{_of_chosen('chutes_feed_doubted', *EACH_FEED, 'reason', **FEEDS)} == 1"
BLIND: Final = "hotkey_feed:chutes_feed:blind"
OF_BLIND: Final = select(BLIND, **FEEDS)
"""The feeds of which no exporter has a full answer, so that alerts that need them cannot fire."""
ANSWERED: Final = _chosen("chutes_feed_up", **FEEDS)
FAILING: Final = f"(min by (feed, hotkey) ({ANSWERED}) == 0)"
SEEN: Final = f"and on (job, instance) last_over_time({_chosen('chutes_exporter_build_info')}[7d])"
"""Keeps the targets that were exporters within a week."""
SCRAPED: Final = f"({_chosen('up')} {SEEN})"
TRUSTED: Final = (
    f"0 * absent({RULES}) or on () group({OF_BLIND}) or on () 2 * group({ANSWERED}) "
    "or on () vector(0)"
)
"""The number of the verdict."""
ADVICE: Final = [
    State(one.reason, one.advice)
    for one in ApiError.__subclasses__()
    if one not in (DoubtedError, MissingEndpointError)
] + [State(one.reason, one.advice) for one in (DoubtedError, MissingEndpointError)]
"""What to do about each reason of a failure."""
BUDGET: Final = (
    "One key causes up to 439 requests an hour to the API, and 72 to the node of --chain.url."
)
PAGE: Final = _of_chosen("chutes_scrape_series")
THIS_EXPORTER: Final = board_link("chutes-exporter", instance="${__value.raw}")


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
    "Can the boards and the alerts be trusted? If not, why, and what is to be done?",
    variables=("cluster", "job", "instance", "hotkey"),
)

EXPORTER.show(
    stat(
        "Trust the boards",
        "No: no exporter runs, or the rules are not loaded. While a feed has no full answer, "
        "alerts that need it cannot fire, and panels about it say that they do not know.",
        Query(TRUSTED, "verdict"),
        states=TRUST,
        size=(6, 3),
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
        "Feeds that fail or have no full answer, those without one first. While a feed fails, its "
        "last answer stays until the maximum age. A click on a feed opens the runbook, and "
        "chutes-exporter check explains the reason.",
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
        Column("What to do", "advice", width=650, states=ADVICE, missing=" "),
        sort=["State", "Feed"],
        size=(24, 6),
    ),
    timeline(
        "Feeds over time",
        "The worst state of each feed, over all miners, of the exporter that knows most. A feed "
        "that was bad for a while explains gaps in other panels.",
        Query(
            while_known(
                f"min by (feed) (0 * {OF_BLIND} or on (feed, hotkey) "
                f"1 + max by (feed, hotkey) ({ANSWERED}))",
                ANSWERED,
            ),
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
        Column("", _of_chosen("chutes_exporter_build_info", *EACH, "version")),
        Column("Version", "version", width=80),
        Column(
            "Scrape time",
            f"max by (job, instance) ({_chosen('scrape_duration_seconds')} {SEEN})",
            TIME,
        ),
        Column(
            "Series of limit",
            f"{_of_chosen('chutes_scrape_series', *EACH)}"
            f" / on (job, instance) {_of_chosen('chutes_scrape_series_limit', *EACH)}",
            PERCENT,
            thresholds=[(0.8, ORANGE)],
        ),
        Column(
            "Incomplete collectors",
            f"sum by (job, instance) ({_chosen('chutes_scrape_collector_success')} == bool 0)",
            COUNT,
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
    title="API",
)

"""What do the miners earn and lose, is something wrong, and what is it?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import yaml

from grafana.boards.instances import ENDS_KNOWN_SINCE, LOST_UNITS, NO_REPORT
from grafana.boards.subnet import seats_behind
from grafana.parts import (
    ALERTS,
    AMOUNT,
    CENTS,
    CLOCK,
    COUNT,
    DOLLARS,
    EXPORTERS,
    MINER_COLUMNS,
    MINERS,
    NO_GPUS,
    SHARE,
    TIME,
    Board,
    Column,
    Panel,
    Query,
    Unit,
    board_link,
    counted,
    nothing_wrong,
    of_exporters,
    of_miners,
    or_load_rules,
    recorded,
    select,
    short,
    top_ten_at_end,
    with_chute_name,
)
from grafana.states import GPU, NOTHING, ORANGE, PLAIN, RED, REGISTERED, SEVERITY, UNWATCHED, State
from grafana.worlds import ALARMED, ALL, BUSY, CALM, COVERED, LIVE, PRICED, STOCKED, UNPRICED

RUNBOOK: Final = "https://github.com/chutes-exporter/chutes-exporter/blob/main/docs/alerts.md#${__value.raw}"
ALERT_RULES: Final = Path(__file__).parents[2] / "prometheus" / "rules" / "alerts.yml"

SCORE: Final = of_miners("chutes_miner_score_ratio")
HEADING: Final = recorded("hotkey:chutes_miner_score_heading_ratio:max")
RANK: Final = of_miners("chutes_miner_score_rank")
BEHIND: Final = of_miners("chutes_miner_seats_behind")
REGISTRATION: Final = of_miners("chutes_miner_registered")
EARNED: Final = f"sum({recorded('hotkey:chutes_miner_estimated_usd_per_day:max')})"
EARNED_ALPHA: Final = f"sum({recorded('hotkey:chutes_miner_estimated_alpha_per_day:max')})"
INCENTIVE: Final = of_miners("chutes_miner_incentive_ratio")
IDLE: Final = f"sum({recorded('hotkey:chutes_idle_usd_per_day:sum')})"
IDLE_BY_SERVER: Final = recorded("hotkey_server_id_gpu:chutes_idle_usd_per_day:sum")
ENDED: Final = f"sum({recorded('hotkey:chutes_ended_usd:sum1d')})"
WATCHED: Final = f"group(last_over_time({select('chutes_miner_watched', EXPORTERS, MINERS)}[15m]))"
"""Bridges the time until an alert fires because no exporter watches the miners any more."""
FLEET: Final = recorded("hotkey_state:chutes_fleet_gpus:sum")
PER_GPU: Final = recorded("hotkey:chutes_miner_estimated_usd_per_day:per_gpu")
_POINTS: Final = f"100 * (sum({HEADING}) - on () sum({SCORE}))"
SEVERITIES: Final = select("alert:chutes_alerts:severity", hotkey="~$hotkey|")
QUIET: Final = f"prometheus:chutes_rules:loaded unless on () {SEVERITIES}"
PROBLEM: Final = "alertname, severity, hotkey, place"
FIRING_FOR: Final = (
    f"time() - min by ({PROBLEM}) (label_replace(label_join(ALERTS_FOR_STATE{{{ALERTS}}},"
    ' "place", " ", "server", "name", "feed"), "place", "$1", "place", " *(.*?) *"))'
)
COSTS: Final = tuple(
    State(f"{rule['alert']} {rule['labels']['severity']}", rule["annotations"]["cost"])
    for group in yaml.safe_load(ALERT_RULES.read_text())["groups"]
    for rule in group["rules"]
)
"""The cost of each alert, as its rule has it."""


def _problem(alert: str) -> str:
    """Return the name of an alert in words: `GPUs idle` for `ChutesGpusIdle`."""
    first, *others = re.findall("[A-Z][a-z]+", alert.removeprefix("Chutes"))
    return " ".join([{"Gpus": "GPUs", "Gpu": "GPU", "Api": "API"}.get(first, first), *map(str.lower, others)])


PROBLEMS: Final = (
    *(State(name, _problem(name)) for name in sorted({str(one.value).split()[0] for one in COSTS})),
    NOTHING,
    UNWATCHED,
)


def _gpus(states: str) -> str:
    return f"sum by (hotkey) ({recorded('hotkey_state:chutes_fleet_gpus:sum', state=states)})"


def _by_chute(metric: str, window: str) -> str:
    return f"sum by (chute_id) ({of_miners(f'chutes_miner_chute_window_{metric}', 'chute_id', window=window)})"


OVERVIEW: Final = Board(
    "chutes-overview",
    "Chutes miner overview",
    "What do the watched miners earn and lose, is something wrong, and what is it?",
)

OVERVIEW.show(
    Panel(
        "stat",
        "Earned per day",
        "Estimate: incentive share x daily emission x price of alpha. US dollars need --subnet.daily-emission and "
        "--alpha.price. Without them, it is alpha, or the share of the emission to all miners. docs/money.md explains "
        "the error.",
        [
            Query(EARNED, "estimate", PRICED, Unit("currencyUSD", None)),
            Query(f"{EARNED_ALPHA} unless on () {EARNED}", "alpha; dollars: docs/money.md", frozenset()),
            Query(
                f"sum({INCENTIVE}) unless on () {EARNED_ALPHA}", "of emission; dollars: docs/money.md", UNPRICED, SHARE
            ),
        ],
        size=(5, 3),
    ),
    Panel(
        "stat",
        "Idle GPUs",
        "Cost of the idle and unverified GPUs for a day at the present rate. US dollars need --gpu.cost for all "
        "models. Without it, it is their hours. The Fleet board shows which they are.",
        [
            Query(IDLE, "a day", PRICED, Unit("currencyUSD", None)),
            Query(
                or_load_rules(
                    f"24 * sum({recorded('hotkey_state:chutes_fleet_gpus:sum', state='~idle|unverified')})"
                    f" unless on () {IDLE}"
                ),
                "GPU-hours; dollars: docs/money.md",
                STOCKED - PRICED,
            ),
        ],
        thresholds=[(0.5, ORANGE)],
        empty=NO_GPUS,
    ),
    Panel(
        "stat",
        "Ended in 24 h",
        "Estimate of what the score lost with the instances that ended in 24 hours. US dollars need "
        "--subnet.daily-emission and --alpha.price. Without them, it is a share of the score. The "
        "Instances board shows what ended.",
        [
            Query(ENDED, "lost", PRICED, Unit("currencyUSD", None)),
            Query(
                f"sum({LOST_UNITS}) / on () sum({of_miners('chutes_miner_score_compute_units')}) unless on () {ENDED}",
                "of score; dollars: docs/money.md",
                COVERED - PRICED,
                Unit("percentunit", 1),
            ),
            Query(or_load_rules(ENDS_KNOWN_SINCE), "known since", LIVE - COVERED, CLOCK),
        ],
        empty=NO_REPORT,
    ),
    Panel(
        "stat",
        "Critical",
        "Alerts that mean lost money or a lost seat, and that somebody can act on now. Alerts that follow from another "
        "one do not count, as in the example of routing. There are none without a watched miner.",
        [
            Query(
                or_load_rules(counted(f"{SEVERITIES} == 0", f"(prometheus:chutes_rules:loaded and on () {WATCHED})")),
                "alerts",
                ALL,
            )
        ],
        thresholds=[(1, RED)],
        empty="no miner is watched",
        size=(3, 3),
    ),
    Panel(
        "stat",
        "Score share",
        "Share of all scores: the compute units of the past day. The second number is where it is heading within a "
        "day if all instances continue, in percentage points. Below zero, look for idle GPUs.",
        [
            Query(f"sum({SCORE})", "share", BUSY),
            Query(f"{_POINTS} >= 0", "heading, points", BUSY, Unit("prefix:+", None), sometimes=True),
            Query(f"{_POINTS} < 0", "heading, points", BUSY, Unit("none", None), sometimes=True),
        ],
        Unit("percentunit", 1),
        empty="no score",
    ),
    Panel(
        "stat",
        "Seats behind",
        "Taken seats with a lower incentive than the miner's; with several miners, the fewest. If no seat is free, "
        "newcomers take the seat with the lowest incentive. The order of seats without incentive is unknown. The "
        "Subnet board shows who comes closer.",
        seats_behind(BEHIND, INCENTIVE),
        thresholds=[(0, RED), (5, ORANGE), (20, PLAIN)],
    ),
    Panel(
        "table",
        "What is wrong",
        "Alerts about the chosen miners and the exporter, the gravest first, without those that follow from another "
        "one. The name opens the runbook, which says what to check and what to do.",
        [
            Column("Severity", short(SEVERITIES), width=105, states=SEVERITY, missing=" ", data=ALARMED),
            Column("", nothing_wrong(f"{QUIET} and on () {WATCHED}", "alertname"), data=CALM),
            Column("", nothing_wrong(f"{QUIET} unless on () {WATCHED}", "alertname", UNWATCHED), data=frozenset()),
            Column("Problem", "alertname", width=210, states=PROBLEMS, link=RUNBOOK, tooltip="Open the runbook"),
            Column("Server, chute or feed", "place", width=200, missing=" "),
            Column(
                "For",
                f'label_join({FIRING_FOR} and on ({PROBLEM}) {SEVERITIES}, "cost", " ", "alertname", "severity")',
                TIME,
                100,
                missing=" ",
                data=ALARMED,
            ),
            Column(
                "Lost per day",
                f"0 * {SEVERITIES} + on (hotkey, place) group_left () sum by (hotkey, place) (label_replace("
                f'{IDLE_BY_SERVER}, "place", "$1", "server", "(.+)"))',
                CENTS,
                130,
                thresholds=[(0.01, RED)],
                missing=" ",
                data=PRICED,
            ),
            Column("Cost", "cost", width=420, states=COSTS, missing=" "),
            *MINER_COLUMNS,
        ],
        empty="Unknown: the rules are not loaded",
        sort=["Severity", "-Lost per day", "-For"],
        size=(24, 7),
    ),
    Panel(
        "stacked",
        "GPUs by state",
        "Each GPU in exactly one state. Idle and unverified ones earn nothing, disabled ones keep earning. The Fleet "
        "board lists them.",
        [Query(f"sum by (state) ({FLEET})", "{{state}}", STOCKED)],
        states=GPU,
        empty="Unknown: no data. It needs the miner's key and the rules.",
        size=(12, 6),
    ),
    Panel(
        "graph",
        "Score share and heading",
        "Share of all scores of the chosen miners, and where it is heading. The share averages over a day, the heading "
        "reacts within minutes.",
        [Query(f"sum({SCORE})", "score share", BUSY), Query(f"sum({HEADING})", "heading")],
        SHARE,
        size=(12, 6),
    ),
)

OVERVIEW.show(
    Panel(
        "table",
        "Miners",
        "The watched miners. A click on a miner selects it. A click on its idle or unverified GPUs opens the Fleet "
        "board. The heading is the score share within a day if all instances continue.",
        [
            *MINER_COLUMNS,
            Column("Seat", short(REGISTRATION), width=90, states=REGISTERED),
            Column("Score share", SCORE, SHARE, 125, data=BUSY),
            Column("Heading", HEADING, SHARE),
            Column("Rank", RANK, COUNT, data=BUSY),
            Column("Seats behind", BEHIND, COUNT, data=BUSY),
            Column("Earning", _gpus("~earning|disabled"), COUNT, data=STOCKED),
            Column("Starting", _gpus("starting"), COUNT, data=STOCKED),
            *(
                Column(
                    state.capitalize(),
                    _gpus(state),
                    COUNT,
                    95,
                    thresholds=[(1, color)],
                    link=board_link("chutes-fleet", hotkey="${__data.fields.hotkey}"),
                    data=STOCKED,
                )
                for state, color in (("idle", ORANGE), ("unverified", RED))
            ),
        ],
        sort=["-Score share"],
        size=(24, 4),
    ),
    Panel(
        "graph",
        "Rank by score and by incentive",
        "Ranks of the best of the chosen miners; lower is better. The incentive follows the score by 1 to 3 hours, "
        "because weights are set once an hour and the chain applies them at its next epoch.",
        [
            Query(f"min({RANK})", "by score", BUSY),
            Query(f"min({of_miners('chutes_miner_incentive_rank')})", "by incentive"),
        ],
    ),
    Panel(
        "graph",
        "Share of compute by window",
        "Share of all miners' compute units in the past hour, day and week. If the hour is below the day, it means "
        "that the score is about to fall.",
        [
            Query(
                f"sum({of_miners('chutes_miner_window_compute_units', window=window)}) / on () "
                + of_exporters("chutes_platform_window_compute_units", window=window),
                name,
            )
            for window, name in (("1h", "past hour"), ("1d", "past day"), ("7d", "past week"))
        ],
        SHARE,
    ),
    Panel(
        "graph",
        "Counting instances",
        "Instances that count for the score of the past day, and those of the past hour. Many instances with little "
        "work mean that instances do not stay up.",
        [
            Query(f"sum({of_miners('chutes_miner_window_instances', window='1h')})", "past hour"),
            Query(f"sum({of_miners('chutes_miner_score_instances')})", "past day", BUSY),
            Query(f"sum({of_miners('chutes_miner_score_bounties')})", "with a bounty, past day", BUSY),
        ],
    ),
    title="Miners and scores",
)

OVERVIEW.show(
    Panel(
        "graph",
        "Estimated earnings and costs",
        "Estimates in US dollars a day: incentive share x daily emission x price of alpha, the cost of all GPUs, and "
        "the difference. docs/money.md explains their error.",
        [
            Query(EARNED, "earnings", PRICED),
            Query(f"24 * sum({recorded('hotkey:chutes_fleet_cost_usd_per_hour:sum')})", "cost of GPUs", PRICED),
            Query(f"sum({recorded('hotkey:chutes_miner_estimated_profit_usd_per_day:max')})", "profit", PRICED),
        ],
        DOLLARS,
        empty="Unknown: set --gpu.cost for all models, --subnet.daily-emission and --alpha.price.",
    ),
    Panel(
        "graph",
        "Estimated earnings per earning GPU",
        "Estimate: US dollars a day for each GPU that earned in the past day, for the ten best of the chosen miners.",
        [Query(top_ten_at_end(short(PER_GPU), PER_GPU), "{{miner}}", PRICED)],
        CENTS,
        empty="Unknown: set --subnet.daily-emission and --alpha.price.",
    ),
    title="Money (estimates)",
)

OVERVIEW.show(
    Panel(
        "table",
        "Earnings by chute",
        "Compute units of the chosen miners by chute. A chute near the end of the list earns less with its GPUs than "
        "others: see the Market board.",
        [
            Column("", "chute_id"),
            Column("", with_chute_name(_by_chute("compute_units", "1d")), data=BUSY),
            Column("Chute", "name", width=250, link=board_link("chutes-market", chute="${__data.fields.chute_id}")),
            *(
                Column(title, _by_chute(metric, window), unit, data=BUSY)
                for title, metric, window, unit in (
                    ("Units, 1 h", "compute_units", "1h", AMOUNT),
                    ("Units, 1 day", "compute_units", "1d", AMOUNT),
                    ("Time, 1 day", "compute_seconds", "1d", TIME),
                    ("Instances, 1 day", "instances", "1d", COUNT),
                    ("With bounty", "bounties", "1d", COUNT),
                )
            ),
        ],
        empty="Unknown: no data. It needs --collector.stats_per_chute, which is on with a hotkey.",
        sort=["-Units, 1 day"],
    ),
    title="Earnings by chute",
)

"""What do the miners earn and lose, is something wrong, and what is it?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import yaml

from grafana.boards.instances import ENDS_KNOWN_SINCE, LOST_UNITS, NO_REPORT
from grafana.parts import (
    ALERTS,
    CLOCK,
    EXPORTERS,
    MINER_COLUMNS,
    MINERS,
    NO_GPUS,
    Board,
    Column,
    Query,
    board_link,
    counted,
    graph,
    nothing_wrong,
    of_exporters,
    of_miners,
    or_load_rules,
    recorded,
    select,
    short,
    stat_panel,
    table_panel,
    top_ten_at_end,
    with_chute_name,
)
from grafana.states import GPU, NOTHING, ORANGE, PLAIN, RED, REGISTERED, SEVERITY, UNWATCHED, State
from grafana.worlds import ALARMED, ALL, BUSY, CALM, CHAINED, COVERED, LIVE, PRICED, STOCKED, UNPRICED

RUNBOOK: Final = "https://github.com/chutes-exporter/chutes-exporter/blob/main/docs/alerts.md#${__value.raw}"
ALERT_RULES: Final = Path(__file__).parents[2] / "prometheus" / "rules" / "alerts.yml"

SHARE: Final = of_miners("chutes_miner_score_ratio")
HEADING: Final = recorded("hotkey:chutes_miner_score_heading_ratio:max")
RANK: Final = of_miners("chutes_miner_score_rank")
BEFORE_LOSS: Final = of_miners("chutes_miner_registrations_before_loss")
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
_POINTS: Final = f"100 * (sum({HEADING}) - on () sum({SHARE}))"
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


OVERVIEW: Final = Board(
    "chutes-overview",
    "Chutes miner overview",
    "What do the watched miners earn and lose, is something wrong, and what is it?",
)

OVERVIEW.show(
    stat_panel(
        "Earned per day",
        "Estimate: incentive share x daily emission x price of alpha. US dollars need --subnet.daily-emission and "
        "--alpha.price. Without them, it is alpha, or the share of the emission to all miners. docs/money.md explains "
        "the error.",
        [
            Query(EARNED, "estimate", PRICED, unit="currencyUSD"),
            Query(f"{EARNED_ALPHA} unless on () {EARNED}", "alpha; dollars: docs/money.md", frozenset()),
            Query(
                f"sum({INCENTIVE}) unless on () {EARNED_ALPHA}",
                "of emission; dollars: docs/money.md",
                UNPRICED,
                unit="percentunit",
                decimals=2,
            ),
        ],
        decimals=0,
        size=(5, 3),
    ),
    stat_panel(
        "Idle GPUs",
        "Cost of the idle and unverified GPUs for a day at the present rate. US dollars need --gpu.cost for all "
        "models. Without it, it is their hours. The Fleet board shows which they are.",
        [
            Query(IDLE, "a day", PRICED, unit="currencyUSD"),
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
        decimals=0,
        empty=NO_GPUS,
    ),
    stat_panel(
        "Ended in 24 h",
        "Estimate of what the score lost with the instances that ended in 24 hours. US dollars need "
        "--subnet.daily-emission and --alpha.price. Without them, it is a share of the score. The "
        "Instances board shows what ended.",
        [
            Query(ENDED, "lost", PRICED, unit="currencyUSD"),
            Query(
                f"sum({LOST_UNITS}) / on () sum({of_miners('chutes_miner_score_compute_units')}) unless on () {ENDED}",
                "of score; dollars: docs/money.md",
                COVERED - PRICED,
                unit="percentunit",
                decimals=1,
            ),
            Query(or_load_rules(ENDS_KNOWN_SINCE), "known since", LIVE - COVERED, unit=CLOCK),
        ],
        decimals=0,
        empty=NO_REPORT,
    ),
    stat_panel(
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
        decimals=0,
        empty="no miner is watched",
        size=(3, 3),
    ),
    stat_panel(
        "Score share",
        "Share of all scores: the compute units of the past day. The second number is where it is heading within a "
        "day if all instances continue, in percentage points. Below zero, look for idle GPUs.",
        [
            Query(f"sum({SHARE})", "share", BUSY),
            Query(f"{_POINTS} >= 0", "heading, points", BUSY, unit="prefix:+", sometimes=True),
            Query(f"{_POINTS} < 0", "heading, points", BUSY, unit="none", sometimes=True),
        ],
        unit="percentunit",
        decimals=1,
        empty="no score",
    ),
    stat_panel(
        "Before seat loss",
        "Registrations before the one that takes the miner's seat; with several miners, the fewest. The Subnet board "
        "shows who comes closer.",
        [Query(f"min({BEFORE_LOSS})", "registrations", CHAINED, sometimes=True)],
        thresholds=[(0, RED), (5, ORANGE), (20, PLAIN)],
        decimals=0,
        empty="cannot be lost now, or no --chain.url",
    ),
    table_panel(
        "What is wrong",
        "Alerts about the chosen miners and the exporter, the gravest first, without those that follow from another "
        "one. The name opens the runbook, which says what to check and what to do.",
        [
            Query(short(SEVERITIES), data=ALARMED),
            Query(
                f'label_join({FIRING_FOR} and on ({PROBLEM}) {SEVERITIES}, "cost", " ", "alertname", "severity")',
                data=ALARMED,
            ),
            Query(
                f"0 * {SEVERITIES} + on (hotkey, place) group_left () sum by (hotkey, place) (label_replace("
                f'{IDLE_BY_SERVER}, "place", "$1", "server", "(.+)"))',
                data=PRICED,
            ),
            Query(nothing_wrong(f"{QUIET} and on () {WATCHED}", "alertname"), data=CALM),
            Query(nothing_wrong(f"{QUIET} unless on () {WATCHED}", "alertname", UNWATCHED), data=frozenset()),
        ],
        [
            Column("A", "Severity", states=SEVERITY, width=105, missing=" "),
            Column("alertname", "Problem", states=PROBLEMS, width=210, link=RUNBOOK, tooltip="Open the runbook"),
            Column("place", "Server, chute or feed", width=200, missing=" "),
            Column("B", "For", "s", 1, width=100, missing=" "),
            Column("C", "Lost per day", "currencyUSD", 2, width=130, thresholds=[(0.01, RED)], missing=" "),
            Column("cost", "Cost", states=COSTS, width=420, missing=" "),
            *MINER_COLUMNS,
        ],
        empty="Unknown: the rules are not loaded",
        sort=[("Severity", False), ("Lost per day", True), ("For", True)],
        size=(24, 7),
    ),
    table_panel(
        "Miners",
        "The watched miners. A click on a miner selects it. A click on its idle or unverified GPUs opens the Fleet "
        "board. The heading is the score share within a day if all instances continue.",
        [
            Query(short(REGISTRATION)),
            Query(SHARE, data=BUSY),
            Query(HEADING),
            Query(RANK, data=BUSY),
            Query(BEFORE_LOSS, data=CHAINED, sometimes=True),
            Query(_gpus("~earning|disabled"), data=STOCKED),
            Query(_gpus("starting"), data=STOCKED),
            Query(_gpus("idle"), data=STOCKED),
            Query(_gpus("unverified"), data=STOCKED),
        ],
        [
            *MINER_COLUMNS,
            Column("A", "Seat", states=REGISTERED, width=90),
            Column("B", "Score share", "percentunit", 2, width=125),
            Column("C", "Heading", "percentunit", 2, width=90),
            Column("D", "Rank", "none", 0, width=60),
            Column("E", "Before seat loss", "none", 0, width=130),
            Column("F", "Earning", "none", 0, width=80),
            Column("G", "Starting", "none", 0, width=80),
            *(
                Column(
                    letter,
                    title,
                    "none",
                    0,
                    width=95,
                    thresholds=[(1, color)],
                    link=board_link("chutes-fleet", hotkey="${__data.fields.hotkey}"),
                )
                for letter, title, color in (("H", "Idle", ORANGE), ("I", "Unverified", RED))
            ),
        ],
        sort=[("Score share", True)],
        size=(24, 4),
    ),
    graph(
        "GPUs by state",
        "Each GPU in exactly one state. Idle and unverified ones earn nothing, disabled ones keep earning. The Fleet "
        "board lists them.",
        [Query(f"sum by (state) ({FLEET})", "{{state}}", STOCKED)],
        unit="none",
        decimals=0,
        states=GPU,
        stacked=True,
        empty="Unknown: no data. It needs the miner's key and the rules.",
        size=(12, 6),
    ),
    graph(
        "Score share and heading",
        "Share of all scores of the chosen miners, and where it is heading. The share averages over a day, the heading "
        "reacts within minutes.",
        [Query(f"sum({SHARE})", "score share", BUSY), Query(f"sum({HEADING})", "heading")],
        unit="percentunit",
        decimals=2,
        size=(12, 6),
    ),
)

OVERVIEW.fold(
    "Score by miner",
    graph(
        "Score share by miner",
        "The share of all scores, for the ten best of the chosen miners. It averages over a day.",
        [Query(top_ten_at_end(short(SHARE), SHARE), "{{miner}}", BUSY)],
        unit="percentunit",
        decimals=2,
    ),
    graph(
        "Rank by score and by incentive",
        "Ranks of the best of the chosen miners; lower is better. The incentive follows the score by 1 to 3 hours, "
        "because weights are set once an hour and the chain applies them at its next epoch.",
        [
            Query(f"min({RANK})", "by score", BUSY),
            Query(f"min({of_miners('chutes_miner_incentive_rank')})", "by incentive"),
        ],
        unit="none",
        decimals=0,
    ),
    graph(
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
        unit="percentunit",
        decimals=2,
    ),
    graph(
        "Counting instances",
        "Instances that count for the score of the past day, and those of the past hour. Many instances with little "
        "work mean that instances do not stay up.",
        [
            Query(f"sum({of_miners('chutes_miner_window_instances', window='1h')})", "past hour"),
            Query(f"sum({of_miners('chutes_miner_score_instances')})", "past day", BUSY),
            Query(f"sum({of_miners('chutes_miner_score_bounties')})", "with a bounty, past day", BUSY),
        ],
        unit="none",
        decimals=0,
    ),
)

OVERVIEW.fold(
    "Money (estimates)",
    graph(
        "Estimated earnings and costs",
        "Estimates in US dollars a day: incentive share x daily emission x price of alpha, the cost of all GPUs, and "
        "the difference. docs/money.md explains their error.",
        [
            Query(EARNED, "earnings", PRICED),
            Query(f"24 * sum({recorded('hotkey:chutes_fleet_cost_usd_per_hour:sum')})", "cost of GPUs", PRICED),
            Query(f"sum({recorded('hotkey:chutes_miner_estimated_profit_usd_per_day:max')})", "profit", PRICED),
        ],
        unit="currencyUSD",
        decimals=0,
        empty="Unknown: set --gpu.cost for all models, --subnet.daily-emission and --alpha.price.",
    ),
    graph(
        "Estimated earnings per earning GPU",
        "Estimate: US dollars a day for each GPU that earned in the past day, for the ten best of the chosen miners.",
        [
            Query(
                top_ten_at_end(
                    short(recorded("hotkey:chutes_miner_estimated_usd_per_day:per_gpu")),
                    recorded("hotkey:chutes_miner_estimated_usd_per_day:per_gpu"),
                ),
                "{{miner}}",
                PRICED,
            )
        ],
        unit="currencyUSD",
        decimals=2,
        empty="Unknown: set --subnet.daily-emission and --alpha.price.",
    ),
)

OVERVIEW.fold(
    "Earnings by chute",
    table_panel(
        "Earnings by chute",
        "Compute units of the chosen miners by chute. A chute near the end of the list earns less with its GPUs than "
        "others: see the Market board.",
        [
            Query(
                with_chute_name(
                    "sum by (chute_id) ("
                    + of_miners("chutes_miner_chute_window_compute_units", "chute_id", window="1d")
                    + ")"
                ),
                data=BUSY,
            ),
            *(
                Query(f"sum by (chute_id) ({of_miners(metric, 'chute_id', window=window)})", data=BUSY)
                for metric, window in (
                    ("chutes_miner_chute_window_compute_units", "1h"),
                    ("chutes_miner_chute_window_compute_seconds", "1d"),
                    ("chutes_miner_chute_window_instances", "1d"),
                    ("chutes_miner_chute_window_bounties", "1d"),
                )
            ),
        ],
        [
            Column("chute_id", ""),
            Column("name", "Chute", width=250, link=board_link("chutes-market", chute="${__data.fields.chute_id}")),
            Column("B", "Units, 1 h", "short", 1, width=110),
            Column("A", "Units, 1 day", "short", 1, width=125),
            Column("C", "Time, 1 day", "s", 1, width=110),
            Column("D", "Instances, 1 day", "none", 0, width=135),
            Column("E", "With bounty", "none", 0, width=110),
        ],
        empty="Unknown: no data. It needs --collector.stats_per_chute, which is on with a hotkey.",
        sort=[("Units, 1 day", True)],
    ),
)

"""Is everything all right, what do I earn, and what changed overnight?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import yaml

from grafana.parts import (
    ALERTS,
    ENDED_PER_HOUR,
    EXPORTERS,
    MINER_COLUMNS,
    MINERS,
    STARTED_PER_HOUR,
    Board,
    Column,
    PercentChange,
    Query,
    board_link,
    graph,
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
from grafana.states import GPU, ORANGE, PLAIN, RED, REGISTERED, SEVERITY, State
from grafana.worlds import ALARMED, ALL, BUSY, FADING_STOCKED, NEEDS_A_DAY, SICK, STOCKED, World

RUNBOOK: Final = "https://github.com/chutes-exporter/chutes-exporter/blob/main/docs/alerts.md#${__value.raw}"
ALERT_LABELS: Final = "alertname, severity, hotkey, server, gpu, feed"
ALERT_RULES: Final = Path(__file__).parents[2] / "prometheus" / "rules" / "alerts.yml"

SHARE: Final = of_miners("chutes_miner_score_ratio")
HEADING: Final = recorded("hotkey:chutes_miner_score_heading_ratio:max")
RANK: Final = of_miners("chutes_miner_score_rank")
BEHIND: Final = of_miners("chutes_miner_seats_behind")
REGISTRATION: Final = of_miners("chutes_miner_registered")
_UNITS: Final = {"alpha": "alpha", "dollars": "usd"}
VERIFIED: Final = of_miners("chutes_gpu_verified", "gpu_id")
VERIFIED_BEFORE: Final = f"max by (hotkey, gpu_id) ({select('chutes_gpu_verified', EXPORTERS, MINERS)} offset 1h)"
COSTS: Final = tuple(
    State(f"{rule['alert']} {rule['labels']['severity']}", rule["annotations"]["cost"])
    for group in yaml.safe_load(ALERT_RULES.read_text())["groups"]
    for rule in group["rules"]
)
"""The cost of each alert, as its rule has it."""


_FIRING: Final = tuple(str(one.value) for one in COSTS)
"""Names of alerts, each with a severity."""


def _problem(alert: str) -> str:
    """Return the name of an alert in words: `GPUs idle` for `ChutesGpusIdle`."""
    first, *others = re.findall("[A-Z][a-z]+", alert.removeprefix("Chutes"))
    return " ".join([{"Gpus": "GPUs", "Gpu": "GPU", "Api": "API"}.get(first, first), *map(str.lower, others)])


def _problem_color(severities: set[str]) -> str:
    """Return the colour of an alert. One that can be critical or a warning has none: its severity stands beside it."""
    if {"critical", "warning"} <= severities:
        return PLAIN
    return RED if "critical" in severities else ORANGE


PROBLEMS: Final = tuple(
    State(name, _problem(name), _problem_color({one.split()[1] for one in _FIRING if one.split()[0] == name}))
    for name in sorted({one.split()[0] for one in _FIRING})
)
NO_PROBLEM: Final = State(3, "-")
"""Stands below the severities, so that a miner without an alert comes after the others."""


def _gpus(states: str) -> str:
    return f"sum by (hotkey) ({recorded('hotkey_state:chutes_fleet_gpus:sum', state=states)})"


def _alerts(**where: str) -> str:
    return select("ALERTS", ALERTS, alertstate="firing", **where)


OVERVIEW: Final = Board(
    "chutes-overview",
    "Chutes miner overview",
    "Is everything all right with the watched miners, what do they earn, and what changed overnight?",
)

OVERVIEW.show(
    stat_panel(
        "Critical",
        "Alerts that mean lost money or a lost seat, and that somebody can act on now. The table below lists all "
        "alerts.",
        [
            Query(
                or_load_rules(f"count({_alerts(severity='critical')}) or on () 0 * prometheus:chutes_rules:loaded"),
                "alerts",
                ALL,
            )
        ],
        thresholds=[(1, RED)],
        decimals=0,
        trend=True,
        size=(4, 4),
    ),
    stat_panel(
        "Score",
        "Share of all scores: the compute units of the past day. Weights, and then the incentive, follow it within 1 "
        "to 3 hours. The small number is the change over the time range.",
        [Query(f"sum({SHARE})", "share", BUSY)],
        unit="percentunit",
        decimals=2,
        empty="no score",
        trend=True,
        change=PercentChange.STANDARD,
        size=(4, 4),
    ),
    stat_panel(
        "Heading",
        "The score share that the miners reach within a day if all instances continue. Below the score share, the "
        "score is about to fall: look for idle GPUs. Without a key it is the share of compute units of the past hour.",
        [Query(or_load_rules(f"sum({HEADING})"), "share")],
        unit="percentunit",
        decimals=2,
        trend=True,
        change=PercentChange.STANDARD,
        size=(4, 4),
    ),
    stat_panel(
        "Rank",
        "Rank by score among all miners; 1 is the best. With several miners, it is the rank of the best one. If the "
        "rank gets worse while the share stays the same, other miners grow. The small number is the change over the "
        "time range.",
        [Query(f"min({RANK})", "by score", BUSY)],
        decimals=0,
        empty="no score",
        trend=True,
        change=PercentChange.SAME_AS_VALUE,
        size=(4, 4),
    ),
    stat_panel(
        "GPU-hours lost",
        "Hours of the past day in which GPUs were in no instance, with their cost where --gpu.cost gives it. The "
        "Fleet board shows on which servers.",
        [
            Query(
                or_load_rules(f"sum({recorded('hotkey:chutes_fleet_gpu_hours_lost:sum1d')})"),
                "in 24 h",
                STOCKED | {World.DOWN},
            ),
            Query(
                f"sum({recorded('hotkey_state:chutes_fleet_cost_usd:sum1d', state='~idle|unverified')})",
                "cost",
                NEEDS_A_DAY,
                unit="currencyUSD",
            ),
        ],
        decimals=0,
        empty="no GPUs known",
        trend=True,
        size=(8, 4),
    ),
    table_panel(
        "Miners",
        "The watched miners with the gravest alert of each, the gravest first. A click on a miner selects it. A click "
        "on its problem opens the runbook. A click on its idle or unverified GPUs opens the Fleet board.",
        [
            Query(short(REGISTRATION)),
            Query(SHARE, data=BUSY),
            Query(HEADING),
            Query(RANK, data=BUSY),
            Query(_gpus("~earning|disabled"), data=STOCKED),
            Query(_gpus("starting"), data=STOCKED),
            Query(_gpus("idle"), data=STOCKED),
            Query(_gpus("unverified"), data=STOCKED),
            Query(
                f"bottomk by (hotkey) (1, min by (hotkey, alertname) ({recorded('alert:chutes_alerts:severity')}) < 2)"
                f" or on (hotkey) 0 * {REGISTRATION} + {NO_PROBLEM.value}",
                data=ALL,
            ),
        ],
        [
            *MINER_COLUMNS,
            Column("alertname", "Problem", states=PROBLEMS, width=220, link=RUNBOOK, tooltip="Open the runbook"),
            Column("I", "Severity", states=(*SEVERITY, NO_PROBLEM), width=100),
            Column("A", "Seat", states=REGISTERED, width=90),
            Column("B", "Share", "percentunit", 2, width=90),
            Column("C", "Heading", "percentunit", 2, width=90),
            Column("D", "Rank", "none", 0, width=60),
            Column("E", "Earning", "none", 0, width=80),
            Column("F", "Starting", "none", 0, width=80),
            Column(
                "G",
                "Idle",
                "none",
                0,
                width=70,
                thresholds=[(1, ORANGE)],
                link=board_link("chutes-fleet", hotkey="${__data.fields.hotkey}"),
            ),
            Column(
                "H",
                "Unverified",
                "none",
                0,
                width=90,
                thresholds=[(1, RED)],
                link=board_link("chutes-fleet", hotkey="${__data.fields.hotkey}"),
            ),
        ],
        empty="No miner is watched, or the rules are not loaded",
        sort=("Severity", False),
        size=(24, 5),
    ),
    table_panel(
        "Alerts",
        "Alerts about the chosen miners and the exporter, the most severe first, with the time since their condition "
        "began and their cost. The name opens the runbook, which says what to check and what to do.",
        [
            Query(short(select("alert:chutes_alerts:severity", hotkey="~$hotkey|")), data=ALARMED),
            Query(
                f"label_join(time() - max by ({ALERT_LABELS}) (ALERTS_FOR_STATE{{{ALERTS}}})"
                f' and on ({ALERT_LABELS}) {_alerts()}, "cost", " ", "alertname", "severity")',
                data=ALARMED,
            ),
        ],
        [
            Column("A", "Severity", states=SEVERITY, width=100),
            Column("alertname", "Alert", width=230, link=RUNBOOK, tooltip="Open the runbook"),
            *MINER_COLUMNS,
            Column("B", "Age", "s", 1, width=90),
            Column("cost", "Cost", states=COSTS, width=420),
            Column("server", "Server", width=130),
            Column("gpu", "Model", width=90),
            Column("feed", "Feed", width=170),
        ],
        empty="No alert fires, if the number of critical alerts is known",
        sort=("Severity", False),
        size=(24, 5),
    ),
    graph(
        "GPUs by state",
        "Each GPU in exactly one state. Idle and unverified ones earn nothing, disabled ones keep earning. The Fleet "
        "board lists them.",
        [Query(f"sum by (state) ({recorded('hotkey_state:chutes_fleet_gpus:sum')})", "{{state}}", STOCKED)],
        unit="none",
        decimals=0,
        states=GPU,
        stacked=True,
        empty="No GPUs known. They need the miner's key and the rules.",
        size=(12, 6),
    ),
    graph(
        "Changes per hour",
        "Events in each hour: instances that started and ended, and GPUs that became verified. Many of the first two "
        "mean that instances do not stay up.",
        [
            Query(STARTED_PER_HOUR, "started", FADING_STOCKED, step="1h"),
            Query(ENDED_PER_HOUR, "ended", STOCKED, step="1h"),
            Query(
                f"sum(clamp_min({VERIFIED} - on (hotkey, gpu_id) {VERIFIED_BEFORE}, 0))",
                "verified",
                STOCKED,
                step="1h",
            ),
        ],
        unit="none",
        decimals=0,
        bars=True,
        calcs=("sum", "max"),
        empty="No events known. They need the miner's key.",
        size=(12, 6),
    ),
)

OVERVIEW.fold(
    "Score over time",
    graph(
        "Score share by miner",
        "The share of all scores, for the ten best of the chosen miners. It averages over a day.",
        [Query(top_ten_at_end(short(SHARE), SHARE), "{{miner}}", BUSY)],
        unit="percentunit",
        decimals=2,
    ),
    graph(
        "Heading share by miner",
        "The score share that each miner approaches within a day, for the ten best. It reacts within minutes.",
        [Query(top_ten_at_end(short(HEADING), HEADING), "{{miner}}")],
        unit="percentunit",
        decimals=2,
    ),
    graph(
        "Distance to the neighbours in the ranking",
        "Distance of the chosen miner to its neighbours: the share that it needs to pass the next better miner, and "
        "its lead over the next worse one. With several miners, it shows the smallest distances. Near 0, the rank is "
        "about to change.",
        [
            Query(
                f"min({of_miners('chutes_miner_score_next_better_ratio')} - on (hotkey) {SHARE})",
                "to the next better",
                BUSY,
                sometimes=True,
            ),
            Query(
                f"min({SHARE} - on (hotkey) {of_miners('chutes_miner_score_next_worse_ratio')})",
                "lead over the next worse",
                BUSY,
            ),
        ],
        unit="percentunit",
        decimals=3,
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
    "Seat",
    graph(
        "Seats behind",
        "Taken seats with a lower incentive than the miner's, for the ten miners with the fewest. Below 5, a newcomer "
        "may soon take the miner's seat: put idle GPUs to work.",
        [Query(top_ten_at_end(short(BEHIND), BEHIND, lowest=True), "{{miner}}")],
        unit="none",
        decimals=0,
    ),
    graph(
        "Incentive and consensus",
        "Share of the incentive of all seats, and the chain's consensus about the miner, as sums over the chosen "
        "miners. Both change with the chain's epochs, about every 72 minutes.",
        [
            Query(f"sum({of_miners('chutes_miner_incentive_ratio')})", "incentive"),
            Query(f"sum({of_miners('chutes_miner_consensus_ratio')})", "consensus"),
        ],
        unit="percentunit",
        decimals=2,
    ),
)

OVERVIEW.fold(
    "Money (estimates)",
    graph(
        "Estimated earnings and costs",
        "Estimates in US dollars a day: incentive share x daily emission x price of alpha, the cost of all GPUs, and "
        "the difference. docs/money.md explains their error.",
        [
            Query(f"sum({recorded('hotkey:chutes_miner_estimated_usd_per_day:max')})", "earnings", SICK),
            Query(f"24 * sum({recorded('hotkey:chutes_fleet_cost_usd_per_hour:sum')})", "cost of GPUs", SICK),
            Query(f"sum({recorded('hotkey:chutes_miner_estimated_profit_usd_per_day:max')})", "profit", SICK),
            Query(f"sum({recorded('hotkey:chutes_fleet_cost_usd:sum1d')})", "cost of GPUs, past day", NEEDS_A_DAY),
        ],
        unit="currencyUSD",
        decimals=2,
        empty="The figures are missing. Give the exporter --gpu.cost, --subnet.daily-emission and --alpha.price.",
    ),
    *(
        graph(
            f"Estimated {money} per day, {by}",
            f"Estimate: {words} a day for {what}, for the ten best of the chosen miners.",
            [Query(top_ten_at_end(short(recorded(name)), recorded(name)), "{{miner}}", SICK)],
            unit=unit,
            decimals=2,
            empty=f"The figures are missing. Give the exporter {flags}.",
        )
        for money, words, unit, flags in (
            ("alpha", "alpha", "none", "--subnet.daily-emission"),
            ("dollars", "US dollars", "currencyUSD", "--subnet.daily-emission and --alpha.price"),
        )
        for by, what, name in (
            ("by miner", "each miner", f"hotkey:chutes_miner_estimated_{_UNITS[money]}_per_day:max"),
            (
                "by earning GPU",
                "each GPU that earned in the past day",
                f"hotkey:chutes_miner_estimated_{_UNITS[money]}_per_day:per_gpu",
            ),
        )
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
        empty="No work by chute. It needs --collector.stats_per_chute, which is on with a hotkey.",
        sort=("Units, 1 day", True),
    ),
)

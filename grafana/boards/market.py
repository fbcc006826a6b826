"""What to launch next, on which server, and what it pays?"""

from __future__ import annotations

from typing import Final

from chutes_exporter.fleet.offers import QUICK_START
from grafana.alerts import verdict
from grafana.boards.fleet import FAILED_STARTS, THIS_SERVER, idle_gpus
from grafana.dashboard import Board
from grafana.panels import (
    AMOUNT,
    CENTS,
    COUNT,
    FACTOR,
    MINER_COLUMNS,
    PERCENT,
    TIME,
    Column,
    board_link,
    miner_columns,
    table,
)
from grafana.queries import (
    MINERS,
    UNIT_USD,
    chute_names,
    copied,
    nothing_row,
    of_known,
    of_miners,
    of_platform,
    recorded,
    select,
    short,
    total,
)
from grafana.states import CHUTES, NOT_LAUNCHED, ORANGE, PLAIN, RED

ON_CHUTES: Final = {"chute_id": "~$chute"}
FIRST_DAY: Final = of_miners(
    "chutes_launch_first_day_units_per_gpu_second", "gpu", "chute_id", "chute", **ON_CHUTES
)
LATER: Final = of_miners(
    "chutes_launch_later_units_per_gpu_second", "gpu", "chute_id", "chute", **ON_CHUTES
)
IDLE: Final = recorded("hotkey_state:chutes_fleet_gpus:sum", state="idle")
NONE_IDLE: Final = f"{of_known(total(IDLE, with_gpus=True), 'gpus')} == 0"
MOVE: Final = of_miners(
    "chutes_server_launch_instances", "server_id", "server", "gpu", "chute_id", "chute"
)
"""Instances of each chute in the best use of the idle GPUs of each server."""
_LEFT_OUT: Final = select("chutes_server_launch_left_out", MINERS)
NO_MOVE: Final = (
    f"{of_miners('chutes_server_gpus', 'server_id', 'server', 'gpu', state='idle')} "
    f"* on (hotkey, server_id) group_left (reason) topk by (hotkey, server_id) (1, {_LEFT_OUT}) > 0"
)
"""The idle GPUs of servers on which nothing is to be launched, and why."""
REFUSED: Final = of_miners("chutes_launch_refused_chutes", "gpu", "reason")
INSTANCES_OF_CHUTE: Final = board_link("chutes-instances", chute="${__data.fields.chute_id}")
_ENDED: Final = select(
    *("chutes_miner_chute_window_ended_instances", MINERS),
    window="1d",
    outcome="~lost|never_active",
)
FAILED_HERE: Final = f"sum by (hotkey, chute_id) (max by (hotkey, chute_id, outcome) ({_ENDED}))"
FAILED_STARTS_OF_SERVER: Final = f"sum by (hotkey, server_id) ({FAILED_STARTS})"


def _of_move(pay: str) -> str:
    """Return the dollars a day of each launch of the best use of the idle GPUs.

    ``pay`` is a value of the metric's label `pay`: `first_day` or `later`.
    """
    labels = ("server_id", "server", "gpu", "chute_id", "chute")
    units = of_miners("chutes_server_launch_compute_units_per_second", *labels, pay=pay)
    return f"86400 * {units} * on () group_left () {UNIT_USD}"


def _chute(metric: str, **where: str) -> str:
    return of_platform(metric, "chute_id", **where, **ON_CHUTES)


def _offer(metric: str) -> str:
    return of_miners(f"chutes_launch_{metric}", "gpu", "chute_id", "chute", **ON_CHUTES)


_LAUNCHED: Final = of_platform(
    "chutes_launch_gpus", "hotkey", "gpu", "chute_id", "chute", **ON_CHUTES
)
"""A series of each offer, also of other miners."""
UTILIZATION: Final = _chute("chutes_chute_recent_utilization_ratio", window="15m")
GPUS: Final = of_miners("chutes_fleet_gpus", "gpu", "state")
UNUSED_GPUS: Final = of_miners("chutes_fleet_gpus", "gpu", "state", state="~idle|unverified")
GPUS_OF_ALL: Final = of_platform("chutes_platform_gpus", "gpu", "state")
IDLE_GPUS_OF_ALL: Final = of_platform("chutes_platform_gpus", "gpu", state="idle")
BOUNTY_LEFT: Final = f"({_chute('chutes_bounty_expires_timestamp_seconds')} - time())"

MARKET: Final = Board(
    "chutes-market",
    "Chutes market",
    "What to launch next, on which server, and what does it pay?",
    variables=("cluster", "hotkey", "chute"),
)

MARKET.show(
    verdict((12, 3), needs_key=True),
    idle_gpus((12, 3)),
    table(
        "Best move",
        "What to launch on which server, so that the units of the first day are the most, as "
        "chutes-exporter advise prints it, which leaves out what failed here. Each room "
        "of a chute is given once. Before you launch on a server with a red number of failed "
        "starts, find out why they failed. Idle servers that it leaves out have the reason.",
        Column("", nothing_row(NONE_IDLE, "server")),
        Column("", "server_id"),
        Column("Server", "server", width=130, link=THIS_SERVER, states=CHUTES),
        Column("", "chute_id"),
        Column("", copied(NO_MOVE, "chute", "reason")),
        Column(
            "Launch",
            "chute",
            width=330,
            states=NOT_LAUNCHED,
            link=INSTANCES_OF_CHUTE,
            missing=" ",
        ),
        Column("Instances", short(MOVE), COUNT, missing=" "),
        Column("GPU", "gpu", width=90, missing=" "),
        Column(
            "Failed starts, 6 h",
            f"0 * {MOVE} + on (hotkey, server_id) group_left () ({FAILED_STARTS_OF_SERVER} > 0)",
            COUNT,
            thresholds=[(1, ORANGE), (3, RED)],
            missing=" ",
        ),
        Column(
            "USD, first day",
            _of_move("first_day"),
            CENTS,
            missing=" ",
        ),
        Column(
            "USD a day, later",
            _of_move("later"),
            CENTS,
            missing=" ",
        ),
        *miner_columns(missing=" "),
        sort=["-USD, first day"],
        size=(24, 9),
    ),
    table(
        "Launch now, pay per GPU",
        "Chutes that each idle GPU model can launch now, the best paid in the first day first. "
        "Later is certain from 8 hours on: without the bounty and the boost, and in a public chute "
        "as on its cheapest GPU. Room is how many launches can still become active, less the "
        "instances that start elsewhere. Failed here counts the failures of the past day on this "
        "miner's servers. A bounty is for an instance that is active before its end, and "
        "starts take 10 to 35 minutes: one in red ends too soon.",
        Column("", nothing_row(NONE_IDLE, "chute")),
        Column("", "chute_id"),
        Column("Chute", "chute", width=310, link=INSTANCES_OF_CHUTE, states=CHUTES),
        Column("GPU", "gpu", width=90, missing=" "),
        Column("Units/s, first day", short(FIRST_DAY), FACTOR, missing=" "),
        Column("Units/s, later", LATER, FACTOR, missing=" "),
        *(
            Column(
                title,
                f"86400 * {pay} * on () group_left () {UNIT_USD}",
                CENTS,
                missing=" ",
            )
            for title, pay in (("USD, first day", FIRST_DAY), ("USD a day, later", LATER))
        ),
        Column("GPUs", _offer("gpus"), COUNT, missing=" "),
        Column("Room", _offer("room_instances"), COUNT, missing=" "),
        Column(
            "Failed here",
            f"0 * {_LAUNCHED} + on (hotkey, chute_id) group_left () ({FAILED_HERE} > 0)",
            COUNT,
            thresholds=[(1, ORANGE)],
            missing=" ",
        ),
        Column(
            "Bounty ends in",
            f"0 * {FIRST_DAY} + on (chute_id) group_left () ({BOUNTY_LEFT} > 0)",
            TIME,
            thresholds=[(float("-inf"), RED), (QUICK_START, PLAIN)],
            missing=" ",
        ),
        *MINER_COLUMNS,
        sort=["-Units/s, first day"],
        size=(24, 9),
    ),
    table(
        "Supply",
        "GPUs of your models: yours, your unused ones, and those of all miners. If many are unused "
        "everywhere, the platform has more of the model than it can use.",
        Column("Model", "gpu", width=90),
        Column("Yours", of_known(f"sum by (gpu) ({GPUS})", "gpus"), COUNT),
        Column(
            "Unused",
            of_known(f"sum by (gpu) ({UNUSED_GPUS})", "gpus"),
            COUNT,
            thresholds=[(1, RED)],
        ),
        Column("All", f"sum by (gpu) ({GPUS_OF_ALL}) and on (gpu) {GPUS}", COUNT),
        Column("Unused, all", f"{IDLE_GPUS_OF_ALL} and on (gpu) {GPUS}", COUNT),
        sort=["-Yours"],
        size=(24, 6),
    ),
)

MARKET.show(
    table(
        "Refused chutes",
        "Chutes of each idle model that the miner cannot launch now, by the first reason. "
        "docs/advise.md explains the reasons.",
        Column("", nothing_row(NONE_IDLE, "reason")),
        Column("Your GPU", "gpu", width=100, missing=" "),
        Column("Reason", "reason", width=250, states=CHUTES),
        Column("Chutes", short(REFUSED), COUNT, missing=" "),
        *MINER_COLUMNS,
        sort=["-Chutes"],
        size=(24, 6),
    ),
    title="Refused chutes",
)

MARKET.show(
    table(
        "Demand",
        "Each exported chute with its demand and supply, the busiest first. --chutes all exports "
        "those that the miner neither runs nor could launch.",
        Column("", "chute_id"),
        Column("Chute", "name", width=310, link=INSTANCES_OF_CHUTE),
        Column("", chute_names(**ON_CHUTES)),
        *(
            Column(title, query, unit)
            for title, unit, query in (
                ("Utilization, 15 m", PERCENT, UTILIZATION),
                ("Wanted", COUNT, _chute("chutes_chute_target_instances")),
                ("Active", COUNT, _chute("chutes_chute_instances")),
                ("Requests, 1 h", AMOUNT, _chute("chutes_chute_window_invocations", window="1h")),
            )
        ),
        sort=["-Utilization, 15 m"],
        size=(24, 12),
    ),
    title="Demand",
)

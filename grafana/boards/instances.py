"""Which instances do not earn, which can lose their score, and what started and ended?"""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    ENDED_PER_HOUR,
    EXPORTERS,
    MINER_COLUMNS,
    STARTED_PER_HOUR,
    Board,
    Column,
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
)
from grafana.states import FLAG, INSTANCE, ORANGE, RED
from grafana.worlds import BUSY, FADING_STOCKED, KEYED, STOCKED

NONE: Final = "No instances known. They need the miner's key and the rules; the Exporter board shows what is missing."
STATES: Final = of_miners("chutes_fleet_instances", "state")
STATE: Final = recorded("hotkey_instance_id:chutes_instance_state:max")
INSTANCE_INFO: Final = "hotkey_instance_id:chutes_instance_info:max"
INFO: Final = recorded(INSTANCE_INFO, chute_id="~$chute")
CREATED: Final = of_miners("chutes_instance_created_timestamp_seconds", "instance_id")
ACTIVATED: Final = of_miners("chutes_instance_activated_timestamp_seconds", "instance_id")
# 3 is the state "active".
START: Final = f"({ACTIVATED} - on (hotkey, instance_id) {CREATED} and on (hotkey, instance_id) {STATE} == 3)"
TO_PURGE: Final = f"{of_miners('chutes_instance_purge_timestamp_seconds', 'instance_id')} - time()"
TO_SECURED: Final = recorded("hotkey_instance_id:chutes_instance_seconds_to_secured:max")

_EFFECTIVE: Final = select("chutes_chute_effective_compute_multiplier", EXPORTERS)
_BOUNTY: Final = select("chutes_chute_compute_multiplier_factor", EXPORTERS, factor="bounty_boost")
TARGET: Final = f"{_EFFECTIVE} / on (job, instance, chute_id) {_BOUNTY} or {_EFFECTIVE}"
"""The multiplier that an instance approaches, on the cheapest GPU. It is the chute's present one without the bounty."""


def _instance(metric: str) -> str:
    return of_miners(metric, "instance_id")


def _shown(query: str) -> str:
    """Keep the instances of the chosen chutes."""
    return f"{query} and on (hotkey, instance_id) {select(INSTANCE_INFO, chute_id='~$chute')}"


def _in(state: str) -> str:
    return f"sum({of_miners('chutes_fleet_instances', state=state)})"


INSTANCES: Final = Board(
    "chutes-instances",
    "Chutes instances",
    "Which instances do not earn, which can still lose their score, and what started and ended?",
    variables=("cluster", "job", "instance", "hotkey", "chute"),
)

INSTANCES.show(
    stat_panel(
        "Active",
        "Instances that serve requests and earn. If their number falls, the Fleet board shows which GPUs are free.",
        [Query(_in("active"), "instances", KEYED)],
        decimals=0,
        empty="no instances known",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Starting",
        "Instances that hold GPUs and were never active. Some minutes are normal. After half an hour, an instance is "
        "probably stuck.",
        [Query(_in("starting"), "instances", KEYED)],
        decimals=0,
        empty="no instances known",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Disabled",
        "Instances that were active and that their miner disabled. They serve no requests, and keep earning until "
        "they are deleted.",
        [Query(_in("disabled"), "instances", KEYED)],
        decimals=0,
        empty="no instances known",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Not secured",
        "Active public instances in their first hour. If one ends now, it loses everything that it has scored.",
        [Query(or_load_rules(f"(count({TO_SECURED}) or on () 0 * {_in('active')})"), "instances", KEYED)],
        decimals=0,
        empty="no instances known",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Purge",
        "Time until the service purges an instance that is still starting: 3.5 hours after its creation, or 3 hours "
        "after its verification if that is earlier. Read its log, or delete it to free its GPUs.",
        [Query(f"min({TO_PURGE})", "next in", STOCKED, sometimes=True)],
        unit="s",
        decimals=1,
        thresholds=[(float("-inf"), RED), (1800, ORANGE), (5400, "text")],
        empty="none",
        size=(4, 4),
    ),
    table_panel(
        "Instances",
        "Each instance, those first that do not earn. A click on a chute opens it on the Market board. From 2 to 8 "
        "hours after the activation, the multiplier approaches its target, which is the multiplier of the cheapest "
        "GPU.",
        [
            Query(f"{STATE} + on (hotkey, instance_id) group_left (chute_id) 0 * {INFO}", data=STOCKED),
            Query(short(INFO), data=STOCKED),
            Query(
                f"0 * {INFO} + on (chute_id) group_left () {of_exporters('chutes_chute_gpus', 'chute_id')}",
                data=STOCKED,
            ),
            Query(_shown(f"time() - {_instance('chutes_instance_created_timestamp_seconds')}"), data=STOCKED),
            Query(_shown(_instance("chutes_instance_compute_multiplier")), data=STOCKED),
            Query(
                f"0 * {INFO} + on (chute_id) group_left () max by (chute_id) ({TARGET})",
                data=STOCKED,
            ),
            Query(_shown(TO_SECURED), data=STOCKED, sometimes=True),
            Query(_shown(TO_PURGE), data=STOCKED, sometimes=True),
            Query(_shown(f"{_instance('chutes_instance_outdated')} == 1"), data=STOCKED, sometimes=True),
            Query(_shown(f"{_instance('chutes_instance_stop_billing_timestamp_seconds')} - time()"), data=STOCKED),
        ],
        [
            Column("A", "State", states=INSTANCE, width=90),
            Column("chute_id", ""),
            Column("name", "Chute", width=200, link=board_link("chutes-market", chute="${__data.fields.chute_id}")),
            Column(
                "server",
                "Server",
                width=100,
                link=board_link("chutes-fleet", hotkey="${__data.fields.hotkey}", server="${__value.raw}"),
            ),
            Column("gpu", "Model", width=80),
            Column("C", "GPUs", "none", 0, width=60),
            Column("D", "Age", "s", 1, width=90),
            Column("E", "Multiplier", "none", 2, width=85),
            Column("F", "Target", "none", 2, width=70),
            Column("G", "Secured in", "s", 1, width=90, thresholds=[(1, ORANGE)]),
            Column(
                "H", "Purged in", "s", 1, width=90, thresholds=[(float("-inf"), RED), (1800, ORANGE), (5400, "text")]
            ),
            Column("I", "Outdated", states=FLAG, width=80),
            Column("J", "Ends in", "s", 1, width=85),
            *MINER_COLUMNS,
            Column("instance_id", "Id", width=315),
        ],
        empty=NONE,
        sort=("State", False),
        size=(24, 12),
    ),
    graph(
        "Instances by state",
        "Each instance in exactly one state. If the number of starting instances grows, a chute does not start.",
        [Query(f"sum by (state) ({STATES})", "{{state}}", KEYED)],
        unit="none",
        decimals=0,
        states=INSTANCE,
        stacked=True,
        empty=NONE,
    ),
    graph(
        "Starts and ends per hour",
        "Instances that started and ended in each hour. A public instance that ends within its first "
        "hour loses everything that it has scored.",
        [
            Query(STARTED_PER_HOUR, "started", FADING_STOCKED, step="1h"),
            Query(ENDED_PER_HOUR, "ended", STOCKED, step="1h"),
        ],
        unit="none",
        decimals=0,
        bars=True,
        calcs=("sum", "max"),
        empty="No instances in the past hour. They need the miner's key.",
    ),
)

INSTANCES.fold(
    "Lifetimes",
    graph(
        "Age of instances",
        "Age of the oldest, the median and the newest instance. A median that stays low means that instances do not "
        "last.",
        [
            *(
                Query(f"{function}time() - {CREATED})", name, STOCKED, step="15m")
                for function, name in (("max(", "oldest"), ("quantile(0.5, ", "median"), ("min(", "newest"))
            ),
        ],
        unit="s",
        decimals=0,
        empty=NONE,
    ),
    graph(
        "Time to become active",
        "Time that the present instances took to become active. If it grows, look at image pulls, disks and the "
        "network.",
        [
            Query(f"avg({START})", "mean", STOCKED),
            Query(f"max({START})", "longest", STOCKED),
        ],
        unit="s",
        decimals=0,
        empty="No active instance known",
    ),
    graph(
        "Compute units per second",
        "Sum of the multipliers of each miner's active instances, for the ten largest. Disabled instances are not "
        "included.",
        [
            Query(
                f"sum({of_miners('chutes_miner_active_compute_multiplier')})",
                "chosen miners",
                KEYED,
            )
        ],
        unit="none",
        decimals=1,
    ),
    graph(
        "Active instances by the platform's count",
        "Active instances in the platform's list, which has only verified ones, and in the miners' own lists. The "
        "exporter requests the lists at different times, so they differ for some minutes after a change.",
        [
            Query(f"sum({of_miners('chutes_miner_active_instances')})", "platform's list", KEYED),
            Query(_in("active"), "own lists", KEYED),
        ],
        unit="none",
        decimals=0,
    ),
    graph(
        "Active GPUs",
        "GPUs that were active at each full hour, the GPUs of distinct chutes, and the average of 7 days. Public "
        "instances count once they are an hour old.",
        [
            Query(f"sum({of_miners('chutes_miner_active_gpus')})", "active", BUSY),
            Query(f"sum({of_miners('chutes_miner_unique_chute_gpus')})", "distinct chutes", BUSY),
            Query(f"sum({of_miners('chutes_miner_average_active_gpus')})", "7-day average", BUSY),
        ],
        unit="none",
        decimals=0,
    ),
)

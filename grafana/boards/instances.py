"""Which instances do not earn, which can lose their score and when, and what ended?"""

from __future__ import annotations

from typing import Final

from grafana.boards.fleet import THIS_SERVER
from grafana.parts import (
    CLOCK,
    COUNT,
    EXPORTERS,
    FACTOR,
    MINER_COLUMNS,
    MINERS,
    NO_DATA,
    NO_INSTANCES,
    NO_KEY,
    REPORT_END,
    TIME,
    Board,
    Column,
    Query,
    Unit,
    bars,
    board_link,
    counted,
    graph,
    no_miner,
    nothing_wrong,
    of_all,
    of_exporters,
    of_miners,
    recorded,
    select,
    short,
    stacked,
    stat,
    table,
    total,
)
from grafana.states import (
    COUNTS,
    DEADLINE_KINDS,
    INSTANCE,
    NONE_ENDED,
    NONE_STARTING,
    ORANGE,
    OUTDATED,
    PLAIN,
    REASONS,
    RED,
)
from grafana.worlds import BUSY, COVERED, KEYED, LIVE, STOCKED

STATES: Final = of_miners("chutes_fleet_instances", "state")
INSTANCE_STATE: Final = "hotkey_instance_id:chutes_instance_state:max"
STATE: Final = recorded(INSTANCE_STATE)
INSTANCE_INFO: Final = "hotkey_instance_id:chutes_instance_info:max"
INFO: Final = recorded(INSTANCE_INFO, chute_id="~$chute")
DEADLINES: Final = "hotkey_instance_id:chutes_instance_deadline_seconds:min"
END_OF_BILLING: Final = f"({select(DEADLINES, deadline='end of billing')} < 300)"
"""Each request moves the end of billing, so that it matters only where none comes."""
NEAR: Final = f"({select(DEADLINES, deadline='!end of billing')} or {END_OF_BILLING})"
DEADLINE: Final = (
    f"0 * {select(DEADLINES, deadline='purge')} + 1 or 0 * "
    f"{select(DEADLINES, deadline='secured')} + 2"
    f" or 0 * {END_OF_BILLING} + 3"
)
"""The numbers of `DEADLINE_KINDS`."""
CREATED: Final = of_miners("chutes_instance_created_timestamp_seconds", "instance_id")
ACTIVATED: Final = of_miners("chutes_instance_activated_timestamp_seconds", "instance_id")
ENDED: Final = of_miners("chutes_miner_window_ended_instances", "reason", "counts")
_STARTING: Final = select("chutes_instance_purge_timestamp_seconds", EXPORTERS, MINERS)
LATE: Final = f"(time() - {CREATED} > 3600 and on (hotkey, instance_id) {_STARTING})"
"""Instances that have been starting for more than an hour."""
# 3 is the state "active".
START: Final = (
    f"({ACTIVATED} - on (hotkey, instance_id) {CREATED} and on (hotkey, instance_id) {STATE} == 3)"
)
TO_SECURED: Final = recorded("hotkey_instance_id:chutes_instance_seconds_to_secured:max")
NEXT_PURGE: Final = of_all(
    f"min({of_miners('chutes_instance_purge_timestamp_seconds', 'instance_id')}) - time()", STATES
)
LOST_UNITS: Final = total(recorded("hotkey:chutes_miner_lost_compute_units:sum1d"))
_REPORTS: Final = recorded("hotkey:chutes_miner_lost_compute_units:newest")
NO_REPORT: Final = "no report is known"
ENDS_KNOWN_SINCE: Final = (
    "1000 * (max_over_time((vector(time()) unless on () "
    f"last_over_time({_REPORTS}[50m]))[23h59m30s:1h]) - 3600)"
    f" and on () last_over_time({_REPORTS}[65m]) and on () {REPORT_END} unless on () {LOST_UNITS}"
)
"""The start of the first hour after which no report is missing, while the ends of 24 hours are not
known.
"""

_NEW: Final = (
    f"(0 * {INSTANCE_INFO} + on (chute_id) group_left () "
    "chute_id:chutes_chute_compute_multiplier:later)"
)
NEW: Final = (
    f"(0 * {INFO} + on (chute_id) group_left () chute_id:chutes_chute_compute_multiplier:later)"
)
PAY: Final = of_miners("chutes_instance_compute_multiplier", "instance_id")
THIS_CHUTE: Final = board_link("chutes-market", chute="${__data.fields.chute_id}")


def _shown(query: str) -> str:
    """Keep the instances of the chosen chutes."""
    return f"{query} and on (hotkey, instance_id) {INFO}"


def of_hour(metric: str, *labels: str) -> str:
    """Return a metric of the report of the hour that ends at the time of the query.

    It is on the page minutes later.
    """
    later = f"{select(metric, EXPORTERS, MINERS)} offset -10m"
    is_out = (
        f"max({select('chutes_audit_report_end_timestamp_seconds', EXPORTERS)} offset -10m) >= "
        "time()"
    )
    return f"max by ({', '.join(('hotkey', *labels))}) ({later}) and on () {is_out}"


def _in(state: str) -> str:
    return total(of_miners("chutes_fleet_instances", state=state))


INSTANCES: Final = Board(
    "chutes-instances",
    "Chutes instances",
    "Which instances do not earn, which can lose their score and when, and what ended?",
    variables=("cluster", "job", "instance", "hotkey", "chute", "report"),
    data=STOCKED,
    empty=NO_KEY,
    stat_empty=NO_INSTANCES,
)

INSTANCES.show(
    stat(
        "Next purge",
        "Time until the service purges an instance that is still starting: 3.5 hours after its "
        "creation, or 3 hours "
        "after its verification if that is earlier. Read its log, or delete it to free its GPUs.",
        Query(NEXT_PURGE, "in", sometimes=True),
        Query(
            f"({_in('starting')} == 0) + {NONE_STARTING.value}", "starting", KEYED, sometimes=True
        ),
        unit=TIME,
        states=[NONE_STARTING],
        thresholds=[(float("-inf"), RED), (1800, ORANGE), (5400, PLAIN)],
    ),
    *(
        stat(title, text, *(Query(query, legend, KEYED) for query, legend in queries), trend=True)
        for title, queries, text in (
            (
                "Starting",
                (
                    (_in("starting"), "all"),
                    (of_all(counted(LATE, f"sum({STATES})"), STATES), "over 1 h"),
                ),
                "Instances that hold GPUs and were never active. An ordinary start takes 10 to 35 "
                "minutes. After an "
                "hour, an instance is probably stuck.",
            ),
            (
                "Active",
                ((_in("active"), "instances"),),
                "Instances that serve requests and earn. If their number falls, the Fleet board "
                "shows which GPUs are "
                "free.",
            ),
            (
                "Disabled",
                ((_in("disabled"), "instances"),),
                "Instances that were active and that their miner disabled. They serve no "
                "requests, and keep earning "
                "until they are deleted.",
            ),
            (
                "Not secured",
                ((of_all(counted(TO_SECURED, f"sum({STATES})"), STATES), "instances"),),
                (
                    "Active public instances in their first hour. If one ends now, it loses "
                    "everything that it has scored."
                ),
            ),
        )
    ),
    table(
        "Instances",
        "Each instance, by its next deadline. Purge: the service deletes an instance that has not "
        "started. Secured: "
        "until then a public instance must not end, or it loses its score. End of billing: a "
        "private instance without "
        "requests is deleted within 5 minutes. From 2 to 8 hours after its activation, the "
        "multiplier approaches that "
        "of a new instance, which stands beside it where it differs.",
        Column(
            "State",
            f"{LATE} * 0 or on (hotkey, instance_id) {STATE} and on (hotkey, instance_id) {INFO}",
            width=130,
            states=INSTANCE,
        ),
        Column(
            "Deadline",
            _shown(f"({DEADLINE} or on (hotkey, instance_id) 0 * {INSTANCE_STATE} + 4)"),
            width=110,
            states=DEADLINE_KINDS,
            missing=" ",
        ),
        Column("In", _shown(NEAR), TIME, 85, missing=" ", sometimes=True),
        Column("", "chute_id"),
        Column("", short(INFO)),
        Column("", no_miner("name"), data=frozenset()),
        Column("Chute", "name", width=190, link=THIS_CHUTE),
        Column("Server", "server", width=115, link=THIS_SERVER),
        Column("Model", "gpu", width=80),
        Column(
            "GPUs",
            f"0 * {INFO} + on (chute_id) group_left () "
            f"{of_exporters('chutes_chute_gpus', 'chute_id')}",
            COUNT,
        ),
        Column("Age", _shown(f"time() - {CREATED}"), TIME, 85),
        Column("Multiplier", _shown(PAY), FACTOR),
        Column(
            "Later",
            f"{NEW} and on (hotkey, instance_id) abs({_NEW} / on (hotkey, instance_id) {PAY} "
            "- 1) > 0.01",
            FACTOR,
            missing=" ",
            sometimes=True,
        ),
        Column(
            "Chute version",
            _shown(of_miners("chutes_instance_outdated", "instance_id")),
            width=120,
            states=OUTDATED,
        ),
        *MINER_COLUMNS,
        sort=["Deadline", "In"],
        size=(24, 10),
    ),
    table(
        "Ended in the hour to $report:00 UTC",
        "Instances that ended in the hour of the newest audit report, by reason, and whether "
        "their score counts. The "
        "report comes about 2 minutes after the hour. chutes-exporter incidents names each of "
        "them and what it cost; "
        "docs/earnings.md explains the reasons.",
        Column("", nothing_wrong(f"max({ENDED}) == 0", "reason"), data=LIVE, sometimes=True),
        Column("Reason", "reason", width=110, states=NONE_ENDED),
        Column("Score", "counts", width=80, states=COUNTS, missing=" "),
        Column(
            "Instances", short(f"{ENDED} > 0"), COUNT, 115, missing=" ", data=BUSY, sometimes=True
        ),
        *MINER_COLUMNS,
        empty="Unknown: no data. It needs a watched miner. The Exporter board shows whether the "
        "feed of reports fails.",
        sort=["-Instances"],
        size=(8, 7),
    ),
    bars(
        "Ended per hour by reason",
        "Instances that ended by reason, and starts that failed. The bar at 12:00 counts those "
        "from 11:00 to 12:00. "
        "Many at once point at one server or one chute.",
        Query(
            f"sum by (reason) ({of_hour('chutes_miner_window_ended_instances', 'reason')}) > 0",
            "{{reason}}",
            BUSY,
            step="1h",
            sometimes=True,
        ),
        Query(
            f"sum({of_hour('chutes_miner_window_failed_starts')})",
            "failed starts",
            LIVE,
            step="1h",
            sometimes=True,
        ),
        empty=NO_DATA,
        states=REASONS,
        calcs=("sum",),
        size=(9, 7),
    ),
    stat(
        "Lost units",
        "Estimate of the compute units that the score lost with the instances that ended in 24 "
        "hours, and their share "
        "of the score. It is unknown until an exporter has run for a day.",
        Query(LOST_UNITS, "in 24 h", COVERED),
        Query(
            f"{LOST_UNITS} / on () sum({of_miners('chutes_miner_score_compute_units')})",
            "of the score",
            COVERED,
            Unit("percentunit", 1),
        ),
        Query(f"1000 * {REPORT_END} and on () {LOST_UNITS}", "counted to", COVERED, CLOCK),
        Query(ENDS_KNOWN_SINCE, "known since", LIVE - COVERED, CLOCK),
        unit=Unit("short", 0),
        empty=NO_REPORT,
        size=(7, 7),
    ),
)

INSTANCES.show(
    stacked(
        "Instances by state",
        "Each instance in exactly one state. If the number of starting instances grows, a "
        "chute does not start.",
        Query(of_all(f"sum by (state) ({STATES})", STATES), "{{state}}", KEYED),
        states=INSTANCE,
    ),
    graph(
        "Age of instances",
        "Age of the oldest, the median and the newest instance. A median that stays low means "
        "that instances do not "
        "last.",
        *(
            Query(of_all(f"{function}time() - {CREATED})", STATES), name, step="15m")
            for function, name in (
                ("max(", "oldest"),
                ("quantile(0.5, ", "median"),
                ("min(", "newest"),
            )
        ),
        unit=TIME,
    ),
    graph(
        "Time to become active",
        "Time that the present instances took to become active. If it grows, look at image pulls, "
        "disks and the "
        "network.",
        Query(of_all(f"avg({START})", STATES), "mean"),
        Query(of_all(f"max({START})", STATES), "longest"),
        unit=TIME,
    ),
    graph(
        "Compute units per second",
        "Sum of the multipliers of the chosen miners' active instances. Disabled instances "
        "are not included.",
        Query(total(of_miners("chutes_miner_active_compute_multiplier")), "chosen miners", KEYED),
        unit=Unit("none", 1),
    ),
    graph(
        "Active GPUs",
        "GPUs that were active at each full hour, the GPUs of distinct chutes, and the average of "
        "7 days. Public "
        "instances count once they are an hour old.",
        *(
            Query(total(of_miners(f"chutes_miner_{metric}_gpus"), with_gpus=True), name, BUSY)
            for metric, name in (
                ("active", "active"),
                ("unique_chute", "distinct chutes"),
                ("average_active", "7-day average"),
            )
        ),
        empty=NO_DATA,
    ),
    title="Lifetimes",
)

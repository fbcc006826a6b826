"""What is lost, which instances need a decision, and what ended?"""

from __future__ import annotations

from typing import Final

from grafana.alerts import FIRST_STEP_OF, verdict
from grafana.boards.fleet import THIS_SERVER
from grafana.dashboard import Board
from grafana.panels import (
    COUNT,
    DOLLARS,
    FACTOR,
    MINER_COLUMNS,
    TIME,
    Column,
    Query,
    Unit,
    bars,
    board_link,
    stat,
    table,
)
from grafana.queries import (
    MINERS,
    UNIT_USD,
    copied,
    nothing_row,
    of_known,
    of_miners,
    of_platform,
    recorded,
    select,
    short,
    total,
    with_chute_name,
)
from grafana.states import (
    DECISIONS,
    INSTANCE,
    NO_DECISION,
    NONE_ENDED,
    NONE_FAILED,
    NONE_STARTING,
    ORANGE,
    OUTCOMES,
    OUTDATED,
    PLAIN,
    REASONS,
    RED,
    WHY,
    State,
)

_IN_STATE: Final = "hotkey_instance_id_state:chutes_instance_state:max"
STATE: Final = f"({recorded(_IN_STATE, chute_id='~$chute')} == 1)"
"""One series for each instance, unless two exporters disagree."""
PLACE: Final = recorded("hotkey_instance_id:chutes_instance_gpus:max", chute_id="~$chute")
CREATED: Final = of_miners("chutes_instance_created_timestamp_seconds", "instance_id")
UNITS: Final = of_miners("chutes_instance_compute_units_per_second", "instance_id")
LATER: Final = of_miners("chutes_instance_later_compute_units_per_second", "instance_id")


_OF_DECISION: Final = ("instance_id", "chute_id", "chute", "decision")
_NEEDED: Final = {"decision": "!none", "chute_id": "~$chute"}
DECISION: Final = f"({of_miners('chutes_instance_decision', *_OF_DECISION, **_NEEDED)} == 1)"
"""What is to be decided about each instance that needs it."""
_KNOWN: Final = select("chutes_fleet_known", MINERS, topic="instances")
_EACH: Final = select("chutes_instance_state", MINERS, chute_id="~$chute")
_DECIDED: Final = select("chutes_instance_decision", decision="none")
NONE_TO_DECIDE: Final = (
    f"min({_KNOWN}) == 1 unless on () ({_EACH} == 1 unless on (instance_id) {_DECIDED} == 1)"
)
"""All instances are known, and it is known of each that it needs no decision."""
FIRST_DECISIONS: Final = (
    State("slow", FIRST_STEP_OF["ChutesInstancePurgeNear"]),
    State("in_vain", FIRST_STEP_OF["ChutesStartInVain"]),
    State("disabled", FIRST_STEP_OF["ChutesPrivateInstanceAtRisk"]),
)
"""What to do first about each, as the alert says."""


def _deadline(kind: str) -> str:
    return of_miners("chutes_instance_deadline_timestamp_seconds", "instance_id", deadline=kind)


PURGE: Final = f"({_deadline('purge')} - time())"
TO_SECURED: Final = f"({_deadline('secured')} - time() > 0)"
NEXT_PURGE: Final = of_known(
    f"min({select('chutes_instance_deadline_timestamp_seconds', MINERS, deadline='purge')} "
    "and on (hotkey, instance_id) "
    f"{select(_IN_STATE, state='starting')} == 1) - time()",
    "instances",
)
"""Of the instances that start. Disabled ones are deleted too, which frees what earns."""


def _ended(metric: str, *labels: str, window: str = "1d", **where: str) -> str:
    return of_miners(f"chutes_miner_{metric}", *labels, window=window, **where)


ENDED: Final = _ended("window_ended_instances", "reason", "outcome", window="1h")
CHUTE_ENDED: Final = _ended("chute_window_ended_instances", "chute_id", window="1h")
"""Also ends whose reason is unknown."""
LOST: Final = total(_ended("window_total_lost_compute_units"))
_UNKNOWN_LOSSES: Final = select("chutes_miner_unknown_losses", MINERS, window="1d")
_ALL_ARE_KNOWN: Final = f"sum({_UNKNOWN_LOSSES}) == 0"
LOST_UNITS: Final = f"({LOST} and on () {_ALL_ARE_KNOWN})"
LEAST_LOST_UNITS: Final = f"({LOST} unless on () {_ALL_ARE_KNOWN})"
"""What is known of the lost units, while a loss or the report of an hour is not known."""
_FAILED: Final = {"outcome": "~lost|never_active"}
_FAILED_IN_A_DAY: Final = select(
    "chutes_miner_window_ended_instances", MINERS, window="1d", **_FAILED
)
_A_CHUTE_FAILED: Final = select(
    "chutes_miner_chute_window_ended_instances", MINERS, window="1d", **_FAILED
)
NO_FAILURE: Final = f"sum({_FAILED_IN_A_DAY}) == 0 unless on () {_A_CHUTE_FAILED} > 0"
CHUTE_FAILED: Final = _ended("chute_window_ended_instances", "chute_id", **_FAILED)
CHUTE_LOST: Final = (
    f"({_ended('chute_window_lost_compute_units', 'chute_id')} "
    f"and on (hotkey) {_ended('unknown_losses')} == 0)"
)
KNOWN_HOURS: Final = f"{of_platform('chutes_audit_reports_known')} unless on () {_ALL_ARE_KNOWN}"
"""The number of hours whose report is known, while the losses of a day are not."""
THIS_CHUTE: Final = board_link("chutes-market", chute="${__data.fields.chute_id}")


def _shown(query: str) -> str:
    """Keep the instances of the chosen chutes."""
    return f"{query} and on (hotkey, instance_id) {STATE}"


def _ended_in_hour() -> str:
    """Return the number of ended instances by reason, in the report of the hour that ends at the
    time of the query.

    The exporter has the report only some minutes after the hour, so the query looks 10 minutes
    ahead. If there is no report by then, it returns nothing.
    """
    selected = select("chutes_miner_window_ended_instances", MINERS, window="1h")
    # Several exporters have the report, with the same labels.
    in_ten_minutes = f"max by (hotkey, reason, outcome) ({selected} offset -10m)"
    report_end = select("chutes_audit_report_end_timestamp_seconds")
    has_report = f"max({report_end} offset -10m) >= time()"
    return f"sum by (reason) ({in_ten_minutes} and on () {has_report})"


def _in(state: str) -> str:
    return total(of_miners("chutes_fleet_instances", state=state))


INSTANCES: Final = Board(
    "chutes-instances",
    "Chutes instances",
    "What is lost, which instances need a decision, and what ended?",
    variables=("cluster", "hotkey", "chute", "report"),
)

INSTANCES.show(
    verdict((6, 3), needs_key=True),
    stat(
        "Lost in 24 h",
        "What the score of the past day lacks because of the instances that ended in it. "
        "Without the report of an hour or the loss of an instance, it is a "
        "lower bound.",
        Query(
            f"{LOST_UNITS} * on () {UNIT_USD}",
            "dollars",
            DOLLARS,
            thresholds=[(0.5, RED)],
        ),
        Query(LOST_UNITS, "units"),
        Query(LEAST_LOST_UNITS, "units, at least"),
        Query(KNOWN_HOURS, "hours known of 24", COUNT),
        unit=Unit("short", 0),
        size=(8, 3),
    ),
    stat(
        "Next purge",
        "Time until the service purges an instance that is still starting. Read its log. If it "
        "makes no progress, purge it to free its GPUs.",
        Query(NEXT_PURGE, "in"),
        Query(f"({_in('starting')} == 0) + {NONE_STARTING.value}", "starting"),
        unit=TIME,
        states=[NONE_STARTING],
        thresholds=[(float("-inf"), RED), (1800, ORANGE), (5400, PLAIN)],
    ),
    stat(
        "Starting",
        "Instances that hold GPUs and were never active. An ordinary start takes 10 to 35 minutes.",
        Query(_in("starting"), "instances"),
    ),
    table(
        "Instances that need a decision",
        "Disabled instances, those that have been starting for more than an hour, and those that "
        "start in vain, because the service would refuse their activation. The purge is when the "
        "service deletes it.",
        Column("", copied(short(DECISION), "first", "decision")),
        Column("State", "decision", width=130, states=DECISIONS, missing=" "),
        Column(
            "",
            nothing_row(NONE_TO_DECIDE, "chute"),
        ),
        Column("", "chute_id"),
        Column("Chute", "chute", width=310, link=THIS_CHUTE, states=NO_DECISION),
        Column("", f"{PLACE} and on (hotkey, instance_id) {DECISION}"),
        Column("Server", "server", width=115, link=THIS_SERVER, missing=" "),
        Column(
            "What to do first",
            "first",
            width=400,
            states=FIRST_DECISIONS,
            missing=" ",
        ),
        Column(
            "Purge in",
            f"{PURGE} and on (hotkey, instance_id) {DECISION}",
            TIME,
            100,
            missing=" ",
        ),
        *MINER_COLUMNS,
        sort=["Purge in"],
        size=(24, 6),
    ),
    table(
        "Failed by chute, 24 h",
        "Chutes whose instances failed to start, or lost their score, in the 24 hours before the "
        "newest report, with what that lost.",
        Column(
            "",
            nothing_row(NO_FAILURE, "name"),
        ),
        # A chute whose name is unknown keeps its row, by the other columns.
        Column("", with_chute_name(f"{CHUTE_FAILED} > 0")),
        Column("Chute", "name", width=300, states=NONE_FAILED, missing="not known"),
        Column(
            "Chute id",
            "chute_id",
            width=100,
            link=board_link("chutes-market", chute="${__value.raw}"),
            missing=" ",
        ),
        Column(
            "Failed starts",
            f"{_ended('chute_window_ended_instances', 'chute_id', outcome='never_active')} > 0",
            COUNT,
            missing=" ",
        ),
        Column(
            "Lost their score",
            f"{_ended('chute_window_ended_instances', 'chute_id', outcome='lost')} > 0",
            COUNT,
            missing=" ",
        ),
        Column(
            "USD",
            f"{CHUTE_LOST} * on () group_left () {UNIT_USD} > 0",
            DOLLARS,
            thresholds=[(0.5, RED)],
            missing=" ",
        ),
        sort=["-USD", "-Failed starts"],
        size=(12, 7),
    ),
    table(
        "Ended in the hour to $report:00 UTC",
        "Instances that ended in the hour of the newest audit report, by reason, and whether "
        "their score counts. chutes-exporter incidents names each of them and what it cost; "
        "docs/earnings.md says more about the reasons.",
        Column(
            "",
            nothing_row(f"max({ENDED}) == 0 unless on () {CHUTE_ENDED} > 0", "reason"),
        ),
        Column("Reason", "reason", width=135, states=NONE_ENDED),
        Column("Why", "why", width=250, states=WHY, missing=" "),
        Column("Score", "outcome", width=105, states=OUTCOMES, missing=" "),
        Column(
            "Instances",
            f'label_replace({short(f"{ENDED} > 0")}, "why", "$1", "reason", "(.+)")',
            COUNT,
            missing=" ",
        ),
        *MINER_COLUMNS,
        sort=["-Instances"],
        size=(12, 7),
    ),
    bars(
        "Ended per hour by reason",
        "Instances that ended by reason. The bar at 12:00 counts those "
        "from 11:00 to 12:00. Many at once point at one server or one chute.",
        Query(
            f"{_ended_in_hour()} > 0",
            "{{reason}}",
            step="1h",
        ),
        states=REASONS,
        calcs=("sum",),
        size=(24, 6),
    ),
)

INSTANCES.show(
    table(
        "All instances",
        "Each instance. Purge: the service deletes an instance that has not started. Secured: "
        "until then a public instance must not end, or it loses its score. From 2 to 8 hours after "
        "its activation, the compute units approach those in the column Later.",
        Column("", STATE),
        Column("State", "state", width=90, states=INSTANCE),
        Column("", "chute_id"),
        Column("Chute", "chute", width=310, link=THIS_CHUTE),
        Column("", short(PLACE)),
        Column("Server", "server", width=115, link=THIS_SERVER),
        Column("Model", "gpu", width=80),
        Column("Age", _shown(f"time() - {CREATED}"), TIME, 85),
        Column("Purge in", _shown(PURGE), TIME, 90, missing=" "),
        Column("Secured in", _shown(TO_SECURED), TIME, 90, missing=" "),
        Column("Units/s", _shown(UNITS), FACTOR),
        Column("Later", _shown(LATER), FACTOR, missing="unknown"),
        Column(
            "Chute version",
            _shown(of_miners("chutes_instance_outdated", "instance_id")),
            width=120,
            states=OUTDATED,
        ),
        *MINER_COLUMNS,
        sort=["-State", "-Age"],
        size=(24, 12),
    ),
    title="All instances",
)

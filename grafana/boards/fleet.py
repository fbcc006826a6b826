"""Which servers and GPUs earn nothing, since when, and why?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana.alerts import FIRST_STEPS
from grafana.parts import (
    AMOUNT,
    CENTS,
    COUNT,
    DOLLARS,
    MINER_COLUMNS,
    MINERS,
    NO_GPUS,
    NO_KEY,
    PERCENT,
    RULES,
    RUNBOOK,
    TIME,
    UNIT_USD,
    Board,
    Column,
    Query,
    Unit,
    board_link,
    copied,
    graph,
    nothing_row,
    of_known,
    of_miners,
    recorded,
    select,
    short,
    stat,
    table,
    timeline,
    total,
)
from grafana.states import (
    GPU,
    NO_UPGRADE,
    OLDER,
    ORANGE,
    PLAIN,
    RED,
    SERVER,
    STEPS,
)

if TYPE_CHECKING:
    from grafana.parts import Panel

ON_SERVERS: Final = {"server": "~$server"}
BY_SERVER: Final = "hotkey, server_id, server"
ALL_GPUS: Final = "hotkey_server_id_gpu:chutes_server_gpus:sum"
_IDLE_UNITS: Final = "chutes_server_idle_compute_units_per_second"
IDLE_UNITS: Final = of_miners(_IDLE_UNITS, "server_id", "server", **ON_SERVERS)
EARNING: Final = "hotkey_server_id:chutes_earning_gpus:ratio"
STATE: Final = "hotkey_server_id:chutes_server_state:number"
FAILED: Final = "hotkey_server_id_chute_id:chutes_failed_starts:count6h"
_OF_GPU: Final = ("gpu_id", "server", "gpu", "device_index", "state")
GPU_STATE: Final = f"({of_miners('chutes_gpu_state', *_OF_GPU, **ON_SERVERS)} == 1)"
ERRORS: Final = of_miners("chutes_gpu_verification_error_info", "gpu_id", "error")
THIS_SERVER: Final = board_link(
    "chutes-fleet", hotkey="${__data.fields.hotkey}", server="${__value.raw}"
)
SERVERS: Final = "Servers by state"
_ABOUT_SERVERS: Final = 'alertstate="firing", server_id!="", server=~"$server"'
CAUSES: Final = (
    "topk by (hotkey, server_id) (1, max by (hotkey, server_id, alertname) ("
    f'2 * ALERTS{{alertname=~"ChutesServer.+", {_ABOUT_SERVERS}, {MINERS}}} or '
    f'ALERTS{{alertname=~"Chutes.+", {_ABOUT_SERVERS}, {MINERS}}}))'
)
"""The alert about each server. One that says not to reboot it comes before the others."""
_EARNING: Final = recorded(EARNING, **ON_SERVERS)
NOT_ALL_EARNING: Final = (
    f"time() - (max_over_time(timestamp({_EARNING} == 1)[1d:5m]) or on (hotkey, server_id) "
    f"min_over_time(timestamp({_EARNING})[1d:5m])) > 600 and on (hotkey, server_id) {_EARNING} < 1"
)
"""Seconds since all GPUs of a server earned, or since it was seen first, within a day."""
_STEP: Final = "chutes_server_maintenance_step"
_STEP_BY: Final = "hotkey, server_id, server, step"
STEPS_NOW: Final = (
    f"{of_miners(_STEP, 'server_id', 'server', 'step', step='!nothing')} == 1 "
    f"unless on ({_STEP_BY}) {select(_STEP, step='boot')} == 0"
)
"""The step of each server that has one. Only if all exporters agree, it is to boot."""
OLDER_SERVERS: Final = f"{of_miners('chutes_server_upgrade_needed', 'server_id', 'server')} == 1"
UPGRADE_DONE: Final = of_miners(
    "chutes_server_upgrade_done_timestamp_seconds", "server_id", "server"
)
_TEE_SERVERS: Final = (
    f"count by (hotkey) ({of_miners('chutes_server_info', 'server_id', tee='true')})"
)
_NO_STEP: Final = of_miners(_STEP, "server_id", step="nothing")
NO_UPGRADES: Final = (
    f"{total(f'({_TEE_SERVERS} - on (hotkey) sum by (hotkey) ({_NO_STEP}))', with_gpus=True)} == 0"
)
"""All TEE servers are known to have no step."""
EARNING_INSTANCES: Final = of_miners("chutes_server_earning_instances", "server_id", "server")


def _gpus_by_model(**where: str) -> str:
    """Return the GPUs of each server by model and state."""
    return of_miners("chutes_server_gpus", "server_id", "server", "gpu", "state", **where)


_IDLE_USD: Final = f"86400 * {IDLE_UNITS} * on () group_left () {UNIT_USD}"
_CAN_EARN: Final = f"{select(_IDLE_UNITS, MINERS)} > 0"
_NOTHING_TO_EARN: Final = select("chutes_server_state", MINERS, state="~idle|disabled|earning")
NOT_EARNED: Final = (
    f"{_IDLE_USD} and on (hotkey, server_id) "
    f"({_CAN_EARN} or {_NOTHING_TO_EARN} == 1) and on () {RULES}"
)
"""Dollars that the idle GPUs of a server do not earn in a day, 0 if it is idle and nothing can be
launched, or disabled or earning. What GPUs that start, that are unverified or in
maintenance would earn is not known.
"""
DCGM_NEEDED: Final = (
    "Unknown: no DCGM metrics. Apply deploy/chutes-monitoring-values.yaml, or scrape NVIDIA's "
    "dcgm-exporter."
)


_EACH_EARNING: Final = select("chutes_server_gpus", MINERS, state="~earning|disabled", **ON_SERVERS)
# Each exporter's GPUs are summed by themselves, because two may see different states of one.
_EARNING_GPUS: Final = (
    f"max by (hotkey, server_id) (sum by (job, instance, hotkey, server_id) ({_EACH_EARNING}))"
)


def idle_in_slot(**servers: str) -> Query:
    """Return the number of idle GPUs of servers that hold an upgrade slot.

    Nothing can be launched on them. It is absent while the state of a server with idle GPUs is
    unknown. ``servers`` are the labels that select servers.
    """
    idle = of_miners("chutes_server_gpus", "server_id", "gpu", state="idle", **servers)
    slot = select("chutes_server_state", state="~in_maintenance|maintenance_pending")
    in_slot = f"sum({idle} and on (hotkey, server_id) {slot} == 1) > 0"
    is_unknown = f"({idle} > 0 unless on (hotkey, server_id) chutes_server_state)"
    expression = f"{in_slot} unless on () {is_unknown}"
    return Query(of_known(expression, "gpus"), "of them in maintenance", color=PLAIN)


def idle_gpus(size: tuple[int, int], **servers: str) -> Panel:
    """Return the stat of what idle GPUs lose, with its size on the board.

    ``servers`` are the labels that select servers. Without any, it is about all GPUs, and has no
    sparkline, like the stats beside it on the Overview board.
    """
    # The exporter has one number for the whole fleet. The numbers of some servers are summed here.
    if servers:
        pay = of_miners(_IDLE_UNITS, "server_id", **servers)
        idle = f"sum by (hotkey, server_id) ({_gpus_by_model(state='idle', **servers)} > 0)"
        # A server with idle GPUs of unknown pay adds infinity (1 / 0), and then the sum is absent.
        pay_if_known = f"sum({pay} or on (hotkey, server_id) {idle} / 0) < Inf"
        first_day = f"86400 * {of_known(pay_if_known, 'gpus')}"
    else:
        of_fleet = of_miners("chutes_fleet_idle_compute_units_per_second")
        first_day = f"86400 * {total(of_fleet, with_gpus=True)}"
    return stat(
        "Not earned, next 24 h",
        "What the idle GPUs that can be used would earn in their first day, in the best use that "
        "chutes-exporter advise shows. US dollars need --chain.url.",
        Query(f"{first_day} * on () {UNIT_USD}", "idle GPUs"),
        Query(
            f"{first_day} unless on () {UNIT_USD}",
            "units; dollars: docs/money.md",
            AMOUNT,
        ),
        unit=DOLLARS,
        thresholds=[(0.5, RED)],
        empty=NO_GPUS,
        trend=bool(servers),
        size=size,
    )


def _gpus(state: str) -> str:
    """Return the number of GPUs in a state on each of the chosen servers."""
    return f"sum by ({BY_SERVER}) ({_gpus_by_model(state=state, **ON_SERVERS)})"


def _gpus_of_all(state: str) -> str:
    """Return the number of GPUs in a state on all chosen servers, absent while one is unknown."""
    return of_known(f"sum({_gpus_by_model(state=state, **ON_SERVERS)})", "gpus")


def _dcgm(metric: str) -> str:
    """Return a metric of NVIDIA's exporter for the GPUs of the chosen servers, with their names.

    The GPUs are those of the metric of their state.
    """
    # NVIDIA's exporter calls the label `UUID`, and our metric `uuid`.
    by_uuid = f'max by (uuid) (label_replace({metric}, "uuid", "$1", "UUID", "(.+)"))'
    chosen = select("chutes_gpu_state", MINERS, **ON_SERVERS)
    named = _named(f"group by (uuid, server, device_index) ({chosen})")
    # `group_left` fails if a GPU has two series there, such as one for each of two servers.
    one_name_each = f"topk by (uuid) (1, {named})"
    return f"{by_uuid} * on (uuid) group_left (GPU, server) {one_name_each}"


def _named(query: str) -> str:
    """Add the label `GPU`: the server and the index of the GPU.

    It has capital letters, because the label `gpu` is the model.
    """
    return f'label_join({query}, "GPU", " #", "server", "device_index")'


FLEET: Final = Board(
    "chutes-fleet",
    "Chutes fleet",
    "Which servers and GPUs earn nothing, since when, and why? The API does not tell whether a "
    "machine is alive: a dead one looks as before until its instances are deleted.",
    variables=("cluster", "hotkey", "server"),
    empty=NO_KEY,
    stat_empty=NO_GPUS,
)

FLEET.show(
    idle_gpus((8, 3), **ON_SERVERS),
    *(
        stat(
            title,
            text,
            Query(query, legend),
            *more,
            unit=unit,
            thresholds=thresholds,
            trend=True,
        )
        for title, legend, unit, query, more, thresholds, text in (
            (
                "Earning",
                "of all GPUs",
                PERCENT,
                f"{of_known(f'sum({_EARNING_GPUS})', 'gpus')} / on () "
                f"sum({recorded(ALL_GPUS, **ON_SERVERS)})",
                (),
                ((float("-inf"), RED), (0.5, ORANGE), (0.9, PLAIN)),
                "Share of the GPUs in an active instance, or in a disabled one, which keeps "
                "earning until it is deleted.",
            ),
            (
                "Idle",
                "GPUs",
                COUNT,
                _gpus_of_all("idle"),
                (idle_in_slot(**ON_SERVERS),),
                ((1, RED),),
                "Verified GPUs in no instance. The Market board says what to launch on them. "
                "Nothing can be launched on those in maintenance.",
            ),
            (
                "Unverified",
                "GPUs",
                COUNT,
                _gpus_of_all("unverified"),
                (),
                ((1, RED),),
                "GPUs in no instance and not verified. Launches on them are refused. The table "
                "below shows why.",
            ),
        )
    ),
    table(
        SERVERS,
        "Each server with its state: the first that applies of in maintenance, pending, no GPUs, "
        "unverified, idle, starting, disabled and earning. "
        "The time looks back a day at most. Dollars are what its idle GPUs would "
        "earn in the first day; what the others would earn is not known. The cause is an alert "
        "about it, and a click on it opens its runbook. A failed start never became active. The "
        "profit is the pay of a day less the price of all GPUs.",
        Column("State", short(recorded(STATE, **ON_SERVERS)), width=175, states=SERVER),
        Column("", "server_id"),
        Column("Server", "server", width=125, link=THIS_SERVER),
        Column(
            "Not all earning for",
            NOT_ALL_EARNING,
            TIME,
            150,
            missing=" ",
        ),
        Column("", copied(CAUSES, "first")),
        Column(
            "Not earned a day",
            NOT_EARNED,
            CENTS,
            155,
            thresholds=[(0.01, RED)],
            missing="not known",
        ),
        Column(
            "Cause", "alertname", width=240, link=RUNBOOK, tooltip="Open the runbook", missing=" "
        ),
        Column(
            "What to do first",
            "first",
            width=390,
            states=FIRST_STEPS,
            missing=" ",
        ),
        *(
            Column(title, _gpus(state), COUNT, thresholds=thresholds)
            for title, state, thresholds in (
                ("Earning", "~earning|disabled", ()),
                ("Idle", "idle", [(1, RED)]),
                ("Unverified", "unverified", [(1, RED)]),
            )
        ),
        Column(
            "Failed starts, 6 h",
            f"sum by ({BY_SERVER}) ({recorded(FAILED, **ON_SERVERS)})",
            COUNT,
            thresholds=[(3, RED)],
            missing=" ",
        ),
        *MINER_COLUMNS,
        Column(
            "Profit",
            of_miners(
                "chutes_server_estimated_profit_usd_per_day", "server_id", "server", **ON_SERVERS
            ),
            CENTS,
            missing=" ",
        ),
        sort=["State", "-Not earned a day"],
        size=(24, 10),
    ),
    timeline(
        "Servers over time",
        "State of each server. A step from earning to idle is an instance that ended.",
        Query(f"max by (server) ({recorded(STATE, **ON_SERVERS)})", "{{server}}", step="5m"),
        states=SERVER,
        size=(24, 8),
    ),
    stat(
        "Upgrade window",
        "The newest maintenance window for TEE servers: when it begins or ends, and the upgrade "
        "slots of the chosen miners.",
        Query(
            f"max({of_miners('chutes_maintenance_window_start_timestamp_seconds')}) - time() > 0",
            "begins in",
            TIME,
        ),
        Query(
            f"max({of_miners('chutes_maintenance_window_end_timestamp_seconds')}) - time() > 0 and "
            f"on () max({of_miners('chutes_maintenance_window_open')}) == 1",
            "ends in",
            TIME,
        ),
        Query(total(of_miners("chutes_maintenance_slots_in_use"), with_gpus=True), "slots used"),
        Query(
            total(of_miners("chutes_maintenance_slots_limit"), with_gpus=True),
            "slots in all",
        ),
        empty="no window is known",
        size=(24, 3),
    ),
    table(
        "Maintenance",
        "What to do with each TEE server now, as chutes-exporter status says. Request maintenance "
        "with: chutes-miner tee start-maintenance --name SERVER.",
        Column("", "server_id"),
        Column("Server", "server", width=230, link=THIS_SERVER, states=[NO_UPGRADE]),
        Column("", STEPS_NOW),
        Column("Step", "step", width=400, states=STEPS, missing="not known: do not reboot it"),
        Column("Version", OLDER_SERVERS, width=200, states=OLDER, missing=" "),
        Column("Upgrade done in", f"{UPGRADE_DONE} - time()", TIME, missing=" "),
        Column(
            "Earning instances",
            f"{EARNING_INSTANCES} and on (hotkey, server_id) {OLDER_SERVERS}",
            COUNT,
            missing=" ",
        ),
        Column("", nothing_row(NO_UPGRADES, "server")),
        sort=["Step", "Upgrade done in"],
        size=(24, 5),
    ),
)

FLEET.show(
    table(
        "GPUs",
        "Each GPU with its state, and the error of its last failed verification. A timeout points "
        "at load and network, a failed attestation at driver and firmware.",
        Column("", short(_named(GPU_STATE))),
        Column("State", "state", width=100, states=GPU),
        Column("GPU", "GPU", width=150),
        Column("Model", "gpu", width=90),
        Column("", f"{ERRORS} and on (hotkey, gpu_id) {GPU_STATE}"),
        Column("Error", "error", width=420, missing=" "),
        Column("Id", "gpu_id", width=290),
        *MINER_COLUMNS,
        sort=["-State", "GPU"],
        size=(24, 12),
    ),
    title="Every GPU",
)

FLEET.show(
    *(
        graph(title, text, Query(query, "{{GPU}}"), unit=Unit(unit, 0), empty=DCGM_NEEDED)
        for title, unit, query, text in (
            (
                "GPU utilization",
                "percent",
                f"bottomk(10, {_dcgm('DCGM_FI_DEV_GPU_UTIL')})",
                "The ten GPUs with the lowest utilization. One that is earning and does nothing "
                "has a stuck instance.",
            ),
            (
                "GPU temperature",
                "celsius",
                f"topk(10, {_dcgm('DCGM_FI_DEV_GPU_TEMP')})",
                "The ten hottest GPUs. Above 85 degrees most models slow down: look at fans and "
                "air flow.",
            ),
            (
                "XID errors",
                "none",
                f"topk(10, {_dcgm('DCGM_FI_DEV_XID_ERRORS')})",
                "Number of each GPU's last XID error. 0 is none. 79 means that it has fallen off "
                "the bus: restart it.",
            ),
        )
    ),
    title="Hardware (DCGM)",
)

"""Which servers and GPUs earn nothing, since when, and why?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana.alerts import FIRST_STEPS, verdict
from grafana.dashboard import Board
from grafana.panels import (
    AMOUNT,
    CENTS,
    COUNT,
    DOLLARS,
    MINER_COLUMNS,
    RUNBOOK,
    TIME,
    Column,
    Query,
    Unit,
    board_link,
    graph,
    stat,
    table,
    timeline,
)
from grafana.queries import (
    MINERS,
    UNIT_USD,
    copied,
    nothing_row,
    of_known,
    of_miners,
    recorded,
    select,
    short,
    total,
    while_known,
)
from grafana.states import (
    GPU,
    NO_UPGRADE,
    OLDER,
    RED,
    SERVER,
    STEPS,
)

if TYPE_CHECKING:
    from grafana.panels import Panel

ON_SERVERS: Final = {"server": "~$server"}
BY_SERVER: Final = "hotkey, server_id, server"
_STATE: Final = "hotkey_server_id:chutes_server_state:number"
STATE: Final = recorded(_STATE, **ON_SERVERS)
FAILED_STARTS: Final = "hotkey_server_id_chute_id:chutes_failed_starts:count6h"
_OF_GPU: Final = ("gpu_id", "server", "gpu", "device_index", "state")
GPU_STATE: Final = f"({of_miners('chutes_gpu_state', *_OF_GPU, **ON_SERVERS)} == 1)"
ERRORS: Final = of_miners("chutes_gpu_verification_error_info", "gpu_id", "error")
THIS_SERVER: Final = board_link(
    "chutes-fleet", hotkey="${__data.fields.hotkey}", server="${__value.raw}"
)
SERVERS: Final = "Servers by state"
_FIRING: Final = 'alertstate="firing", server=~"$server"'
CAUSES: Final = (
    'topk by (hotkey, server_id) (1, 2 * ALERTS{alertname=~"ChutesServer.+", '
    f'{_FIRING}}} or ALERTS{{server_id!="", {_FIRING}}}) '
    f"and on (hotkey, server_id) {select('chutes_server_state', MINERS)}"
)
"""The alert about each server. One that says not to reboot it comes before the others."""
NOT_EARNING: Final = (
    f"clamp_max(time() - max_over_time((timestamp({STATE}) "
    f"* on (hotkey, server_id) ({_STATE} >= bool 6))[1d:10m]), 86400) > 600 "
    "and on (hotkey, server_id) chutes_server_state"
)
"""Seconds since all GPUs of a server earned, at most a day. The states from 6 on are those in which
they do.
"""
IDLE_UNITS: Final = of_miners(
    "chutes_server_idle_compute_units_per_second", "server_id", "server", **ON_SERVERS
)
NOT_EARNED: Final = f"86400 * {IDLE_UNITS} * on () group_left () {UNIT_USD} > 0"
"""Dollars that the idle GPUs of a server do not earn in a day, where that is known."""
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
# Two exporters count twice, on both sides.
_TEE_SERVERS: Final = select("chutes_server_info", MINERS, tee="true")
_NO_STEP: Final = select(_STEP, MINERS, step="nothing")
_UNKNOWN: Final = f"{select('chutes_fleet_known', MINERS, topic='servers')} == 0"
NO_UPGRADES: Final = f"count({_TEE_SERVERS}) == on () sum({_NO_STEP}) unless on () {_UNKNOWN}"
"""All TEE servers are known to have no step."""
EARNING_INSTANCES: Final = of_miners("chutes_server_earning_instances", "server_id", "server")


def _gpus_by_model(**where: str) -> str:
    """Return the GPUs of each server by model and state."""
    return of_miners("chutes_server_gpus", "server_id", "server", "gpu", "state", **where)


def idle_gpus(size: tuple[int, int]) -> Panel:
    """Return the stat of what idle GPUs lose, with its size on the board."""
    of_fleet = of_miners("chutes_fleet_idle_compute_units_per_second")
    first_day = f"86400 * {total(of_fleet, with_gpus=True)}"
    return stat(
        "Not earned, next 24 h",
        "What the idle GPUs that can be used would earn in their first day, in the best use that "
        "chutes-exporter advise shows. US dollars need --chain.url.",
        Query(f"{first_day} * on () {UNIT_USD}", "idle GPUs"),
        Query(f"{first_day} unless on () {UNIT_USD}", "units; dollars: docs/money.md", AMOUNT),
        unit=DOLLARS,
        thresholds=[(0.5, RED)],
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
    named = with_gpu_name(f"group by (uuid, server, device_index) ({chosen})")
    # `group_left` fails if a GPU has two series there, such as one for each of two servers.
    one_name_each = f"topk by (uuid) (1, {named})"
    return f"{by_uuid} * on (uuid) group_left (GPU, server) {one_name_each}"


def with_gpu_name(query: str) -> str:
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
)

FLEET.show(
    verdict((6, 3), needs_key=True),
    stat(
        "GPUs now",
        "GPUs on the chosen servers. Earning ones are in an active instance, or in a disabled one "
        "until it is deleted. Idle ones are verified, and in no instance: the Market board says "
        "what to launch on them. Launches on unverified ones are refused: the table shows why.",
        Query(_gpus_of_all("~earning|disabled"), "earning"),
        Query(_gpus_of_all("idle"), "idle", thresholds=[(1, RED)]),
        Query(_gpus_of_all("unverified"), "unverified", thresholds=[(1, RED)]),
        size=(12, 3),
    ),
    idle_gpus((6, 3)),
    table(
        SERVERS,
        "Each server with its state: the first that applies of in maintenance, pending, no GPUs, "
        "unverified, idle, starting, disabled and earning. "
        "The time looks back a day at most. Dollars are what its idle GPUs would earn in the first "
        "day: none are known where nothing can be launched. The cause is an alert about it, and a "
        "click on it opens its runbook. A failed start never became active. The profit is the pay "
        "of a day less the price of all GPUs.",
        Column("State", short(STATE), width=175, states=SERVER),
        Column("", "server_id"),
        Column("Server", "server", width=125, link=THIS_SERVER),
        Column(
            "Not all earn for",
            NOT_EARNING,
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
            missing="none known",
        ),
        Column(
            "Cause",
            "alertname",
            width=240,
            link=RUNBOOK,
            tooltip="Open the runbook",
            missing="no alert",
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
            f"sum by ({BY_SERVER}) ({recorded(FAILED_STARTS, **ON_SERVERS)})",
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
        Query(while_known(f"max by (server) ({STATE})", STATE), "{{server}}", step="5m"),
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
        Column("", short(with_gpu_name(GPU_STATE))),
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
        graph(title, text, Query(query, "{{GPU}}"), unit=Unit(unit, 0))
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

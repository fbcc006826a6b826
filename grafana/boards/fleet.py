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
    LAUNCH,
    NO_UPGRADE,
    NONE,
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
SERVERS: Final = "Servers"
NOT_EARNING: Final = (
    f"time() - (max_over_time(timestamp({_STATE} >= 6)[1d:10m]) or on (hotkey, server_id) "
    f"min_over_time(timestamp({_STATE})[1d:10m])) > 600 "
    f"and on (hotkey, server_id) {select('chutes_server_state', MINERS, **ON_SERVERS)}"
)
"""Seconds since all GPUs of a server earned, or since it was first seen, at most a day. The states
from 6 on are those in which they do.
"""
IDLE_UNITS: Final = "chutes_server_idle_compute_units_per_second"
NOT_EARNED: Final = (
    f"86400 * {of_miners(IDLE_UNITS, 'server_id', 'server', **ON_SERVERS)} "
    f"* on () group_left () {UNIT_USD}"
)
"""Dollars that the idle GPUs of a server do not earn in a day, where that is known."""
_RENT: Final = select("chutes_server_idle_cost_usd_per_day", MINERS, **ON_SERVERS)
UNUSED_RENT: Final = f"max by ({BY_SERVER}) ({_RENT} or on (hotkey, server_id) 0 * ({STATE} >= 5))"
"""The rent of the unused GPUs of each server. Without prices, it is 0 where none is unused: in the
states from 5 on.
"""
_STEP: Final = "chutes_server_maintenance_step"
_STEP_BY: Final = "hotkey, server_id, server, step"


def _steps(steps: str, **where: str) -> str:
    """Return the step of each server that has one of these. Only if all exporters agree, it is to
    boot.
    """
    return (
        f"{of_miners(_STEP, 'server_id', 'server', 'step', step=steps, **where)} == 1 "
        f"unless on ({_STEP_BY}) {select(_STEP, step='boot')} == 0"
    )


TO_DO: Final = "!~nothing|wait"
_HAS_STEP: Final = f"on (hotkey, server) {select(_STEP, step=TO_DO)} == 1"
_FIRING: Final = "alert:chutes_alerts:severity"
_ABOUT_SERVERS: Final = select(_FIRING, MINERS, 'server!=""', **ON_SERVERS)
CAUSES: Final = f"bottomk by (hotkey, server) (1, {_ABOUT_SERVERS}) unless {_HAS_STEP}"
"""The gravest alert about each server that has no step of a maintenance."""
LAUNCHES: Final = (
    f"{of_miners(IDLE_UNITS, 'server', **ON_SERVERS)} > 0 "
    f"unless on (hotkey, server) {_FIRING} unless {_HAS_STEP}"
)
"""The servers with idle GPUs that can be used and have neither an alert nor a step."""
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


def _gpus_by_model(**where: str) -> str:
    """Return the GPUs of each server by model and state."""
    return of_miners("chutes_server_gpus", "server_id", "server", "gpu", "state", **where)


def idle_gpus(size: tuple[int, int]) -> Panel:
    """Return the stat of what idle GPUs lose, with its size on the board."""
    of_fleet = of_miners("chutes_fleet_idle_compute_units_per_second")
    first_day = f"86400 * {total(of_fleet, with_gpus=True)}"
    idle = of_miners("chutes_server_gpus", "server_id", "gpu", state="idle")
    others = f"sum({idle} unless on (hotkey, server_id) {IDLE_UNITS} > 0) > 0"
    return stat(
        "Not earned, next 24 h",
        "What the idle GPUs that can be used would earn in their first day, in the best use that "
        "chutes-exporter advise shows. US dollars need --chain.url. The idle GPUs that are "
        "not counted could earn an unknown amount, or nothing can be launched on their server: "
        "the Market board says why.",
        Query(f"{first_day} * on () {UNIT_USD}", "idle GPUs"),
        Query(f"{first_day} unless on () {UNIT_USD}", "units; dollars: docs/money.md", AMOUNT),
        Query(of_known(others, "gpus"), "not counted", COUNT),
        unit=DOLLARS,
        thresholds=[(0.5, RED)],
        size=size,
    )


def _gpus(state: str) -> str:
    """Return the number of GPUs in a state on each of the chosen servers."""
    return f"sum by ({BY_SERVER}) ({_gpus_by_model(state=state, **ON_SERVERS)})"


def _gpus_of_all(states: str) -> str:
    """Return the GPUs on all chosen servers by state, absent while one is unknown."""
    return of_known(f"sum by (state) ({_gpus_by_model(state=states, **ON_SERVERS)})", "gpus")


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
        Query(_gpus_of_all("!~idle|unverified"), "{{state}}"),
        Query(_gpus_of_all("~idle|unverified"), "{{state}}", thresholds=[(1, RED)]),
        size=(12, 3),
    ),
    idle_gpus((6, 3)),
    table(
        SERVERS,
        "Each server with its state: the first that applies of in maintenance, pending, no GPUs, "
        "unverified, idle, starting, disabled and earning. "
        "Unused GPUs are idle or unverified. The time looks back a day at most. Not earned is what "
        "the idle GPUs would earn in the first day: nothing where nothing can be launched. The "
        "rent of unused GPUs is that of --gpu.cost or --server.cost. The cause is an alert, and a "
        "click on it opens its runbook. A failed start never became active in the past 6 hours.",
        Column("State", short(STATE), width=175, states=SERVER),
        Column("", "server_id"),
        Column("Server", "server", width=110, link=THIS_SERVER),
        Column(
            "Not all earn for",
            NOT_EARNING,
            TIME,
            150,
            missing=" ",
        ),
        Column("", copied(CAUSES, "first")),
        Column("", copied(_steps(TO_DO, **ON_SERVERS), "first", "step")),
        Column("", f'label_replace({LAUNCHES}, "first", "{LAUNCH.value}", "", "")'),
        *(
            Column(title, query, CENTS, width, NONE, [(0.01, RED)], missing="not known")
            for title, query, width in (
                ("Not earned a day", NOT_EARNED, 155),
                ("Rent of unused", UNUSED_RENT, 0),
            )
        ),
        Column(
            "Cause",
            "alertname",
            width=190,
            link=RUNBOOK,
            tooltip="Open the runbook",
            missing=" ",
        ),
        Column(
            "What to do first",
            "first",
            width=355,
            states=[*FIRST_STEPS, *STEPS, LAUNCH],
            missing=" ",
        ),
        Column("Earning", _gpus("~earning|disabled"), COUNT),
        Column("Unused", _gpus("~idle|unverified"), COUNT, 90, thresholds=[(1, RED)]),
        Column(
            "Failed starts",
            f"sum by ({BY_SERVER}) ({recorded(FAILED_STARTS, **ON_SERVERS)})",
            COUNT,
            thresholds=[(3, RED)],
            missing=" ",
        ),
        *MINER_COLUMNS,
        sort=["-Not earned a day", "-Unused"],
        size=(24, 12),
    ),
    timeline(
        "Servers over time",
        "State of each server. A step from earning to idle is an instance that ended.",
        Query(while_known(f"max by (server) ({STATE})", STATE), "{{server}}", step="5m"),
        states=SERVER,
        size=(24, 10),
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
        Query(
            total(
                f"{of_miners('chutes_maintenance_slots_limit')} "
                f"- on (hotkey) {of_miners('chutes_maintenance_slots_in_use')}",
                with_gpus=True,
            ),
            "free slots",
        ),
        size=(24, 3),
    ),
    table(
        "Maintenance",
        "What to do with each TEE server now, as chutes-exporter status says. Request maintenance "
        "with: chutes-miner tee start-maintenance --name SERVER.",
        Column("", "server_id"),
        Column("Server", "server", width=230, link=THIS_SERVER, states=[NO_UPGRADE]),
        Column("", _steps("!nothing")),
        Column("Step", "step", width=400, states=STEPS, missing="not known: do not reboot it"),
        Column("Version", OLDER_SERVERS, width=200, states=OLDER, missing=" "),
        Column("Upgrade done in", f"{UPGRADE_DONE} - time()", TIME, 165, missing=" "),
        Column("", nothing_row(NO_UPGRADES, "server")),
        sort=["Step", "Upgrade done in"],
        size=(24, 8),
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

"""Which servers and GPUs earn nothing, since when, and why?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana.parts import (
    AMOUNT,
    CENTS,
    COUNT,
    DOLLARS,
    EXPORTERS,
    MINER_COLUMNS,
    MINERS,
    NO_GPUS,
    NO_KEY,
    PERCENT,
    TIME,
    UNIT_USD,
    Board,
    Column,
    Query,
    Unit,
    board_link,
    graph,
    no_miner,
    of_all,
    of_miners,
    recorded,
    select,
    short,
    stacked,
    stat,
    table,
    timeline,
    total,
    whole,
)
from grafana.states import GPU, MAINTENANCE, NEEDED, ORANGE, PLAIN, RED
from grafana.worlds import COVERED, KEYED, PRICED, SICK, STOCKED

if TYPE_CHECKING:
    from grafana.parts import Panel

ON_SERVERS: Final = {"server": "~$server"}
INFO: Final = recorded("hotkey_gpu_id:chutes_gpu_info:max", **ON_SERVERS)
STATE: Final = recorded("hotkey_gpu_id:chutes_gpu_state:max", **ON_SERVERS)
ERRORS: Final = of_miners("chutes_gpu_verification_error_info", "gpu_id", "error")
ALLOCATION: Final = of_miners("chutes_gpu_allocation_info", "gpu_id", "chute_id", "chute_name")
IN_USE: Final = select("chutes_gpu_in_use", EXPORTERS, MINERS)
THIS_SERVER: Final = board_link(
    "chutes-fleet", hotkey="${__data.fields.hotkey}", server="${__value.raw}"
)
THIS_CHUTE: Final = board_link("chutes-instances", chute="${__data.fields.chute_id}")
COUNTED: Final = recorded("hotkey_server_id_gpu_state:chutes_gpus:count", **ON_SERVERS)
SERVERS: Final = "Servers, and what they lose in the next 24 h"
BY_SERVER: Final = "hotkey, server_id, server, gpu"
ALL_GPUS: Final = recorded("hotkey_gpu_id:chutes_gpu_info:max")
ALL: Final = of_all(f"count({INFO}) == on () count({STATE})", ALL_GPUS, with_gpus=True)
"""The number of GPUs, where the state of each is known."""
LOST: Final = f"{STATE} <= bool 1"
"""1 for each GPU that is idle or unverified, and 0 for each other one."""
IDLE_UNITS: Final = "hotkey_server_id_gpu:chutes_idle_units_per_day:sum"
IDLE_USD: Final = "hotkey_server_id_gpu:chutes_idle_usd_per_day:sum"
RENT: Final = recorded(IDLE_USD, **ON_SERVERS)
UNITS: Final = recorded(IDLE_UNITS, **ON_SERVERS)
# The pay of GPUs that only start instances is not known.
_STARTING: Final = recorded(
    "hotkey_server_id_gpu_state:chutes_gpus:count", **ON_SERVERS, state="starting"
)
IDLE: Final = f"{UNITS} > 0 or {UNITS} unless on (hotkey, server_id, gpu) {_STARTING}"
_SERVER_UNITS: Final = recorded("hotkey_server_id:chutes_compute_units_per_second:sum")
EARNED: Final = f"avg_over_time({_SERVER_UNITS}[30d])"
EARNED_BY_MODEL: Final = (
    f"avg_over_time({recorded('hotkey_gpu:chutes_compute_units_per_second:sum')}[30d])"
)
_HOURLY: Final = f"last_over_time({_SERVER_UNITS}[1h])[30d:1h]"
SUMMED: Final = f"3600 * sum_over_time({_HOURLY})"
KNOWN: Final = f"count_over_time({_HOURLY})"
GPUS: Final = f"count by ({BY_SERVER}) ({INFO})"
PER_GPU: Final = f"86400 / {GPUS} * on (hotkey, server_id) group_left () {EARNED}"
DCGM_NEEDED: Final = (
    "Unknown: no DCGM metrics. Apply deploy/chutes-monitoring-values.yaml, or scrape NVIDIA's "
    "dcgm-exporter."
)


def idle_gpus(size: tuple[int, int], **where: str) -> Panel:
    """Return the stat of what idle GPUs lose, on the servers of which labels have these values."""
    gpus = recorded("hotkey_gpu_id:chutes_gpu_info:max", **where)

    def of_servers(recording: str, needless: str = "") -> str:
        found = recorded(recording, **where)
        missing = f"{gpus} unless on (hotkey, server_id, gpu) {found}{needless}"
        return of_all(f"sum({found}) unless on () ({missing})", ALL_GPUS, with_gpus=True)

    rent = of_servers(IDLE_USD)
    state = recorded("hotkey_gpu_id:chutes_gpu_state:max")
    # GPUs that are not idle need no pay.
    units = of_servers(IDLE_UNITS, f" unless on (hotkey, gpu_id) {state} != 1")
    return stat(
        "Idle GPUs, next 24 h",
        "What the idle GPUs would earn in 24 hours at the market's present pay, if the best paid "
        "chute that they can "
        "launch now had room for all, and the rent of the idle and unverified ones. US dollars "
        "need --chain.url, and the rent a price of all GPUs (--gpu.cost, --server.cost). The "
        "Fleet board shows which they are.",
        Query(f"{units} * on () {UNIT_USD}", "at most", PRICED),
        Query(rent, "rent", PRICED),
        Query(
            f"{units} unless on () {UNIT_USD}",
            "units at most; dollars: docs/money.md",
            STOCKED - PRICED,
            AMOUNT,
        ),
        unit=DOLLARS,
        thresholds=[(0.5, ORANGE)],
        empty=NO_GPUS,
        trend=bool(where),
        size=size,
    )


def _by_server(gpus: str) -> str:
    """Sum a number of each GPU by server and model, where the state of each GPU is known."""
    return f"sum by ({BY_SERVER}) ({gpus}) and on (hotkey, server_id, gpu) {COUNTED}"


def _of_gpus(query: str) -> str:
    """Keep the GPUs of the chosen servers."""
    return f"{query} and on (hotkey, gpu_id) {STATE}"


def _of_servers(query: str) -> str:
    """Keep the chosen servers."""
    return f"{query} and on (hotkey, server_id) {COUNTED}"


def _in_maintenance(statuses: str) -> str:
    """Return whether each server has one of these statuses of maintenance."""
    return of_miners("chutes_server_maintenance_status", "server_id", status=statuses)


def _dcgm(metric: str) -> str:
    """Return a metric of NVIDIA's exporter, with the names of GPUs."""
    labelled = f'max by (uuid) (label_replace({metric}, "uuid", "$1", "UUID", "(.+)"))'
    return f"{labelled} * on (uuid) group_left (GPU, server) topk by (uuid) (1, {_named(INFO)})"


def _named(query: str) -> str:
    """Add the label `GPU`: the server and the index of the GPU.

    A capital letter sorts before the other labels.
    """
    return f'label_join({query}, "GPU", " #", "server", "device_index")'


FLEET: Final = Board(
    "chutes-fleet",
    "Chutes fleet",
    "Which servers and GPUs earn nothing, since when, and why? The API does not tell whether a "
    "machine is alive: a "
    "dead one looks as before until its instances are deleted.",
    variables=("cluster", "job", "instance", "hotkey", "server"),
    data=STOCKED,
    empty=NO_KEY,
    stat_empty=NO_GPUS,
)

FLEET.show(
    idle_gpus((8, 3), **ON_SERVERS),
    *(
        stat(title, text, Query(query, legend), unit=unit, thresholds=thresholds, trend=True)
        for title, legend, unit, query, thresholds, text in (
            (
                "All",
                "GPUs",
                COUNT,
                ALL,
                (),
                "GPUs of the chosen servers. If some are missing, look at the machine.",
            ),
            (
                "Earning",
                "of all GPUs",
                PERCENT,
                f"avg({STATE} >= bool 3) and on () {ALL}",
                ((float("-inf"), RED), (0.5, ORANGE), (0.9, PLAIN)),
                (
                    "Share of the GPUs in an active instance, or in a disabled one, which keeps "
                    "earning."
                ),
            ),
            (
                "Idle",
                "GPUs",
                COUNT,
                f"sum({STATE} == bool 1) and on () {ALL}",
                ((1, ORANGE),),
                (
                    "Verified GPUs in no instance. The Market board ranks the chutes that can run "
                    "on them now."
                ),
            ),
            (
                "Unverified",
                "GPUs",
                COUNT,
                f"sum({STATE} == bool 0) and on () {ALL}",
                ((1, RED),),
                (
                    "GPUs in no instance and not verified. Launches on them are refused. The "
                    "table below shows why."
                ),
            ),
        )
    ),
    table(
        SERVERS,
        "Each server and model, with its GPUs by state. Those first that lose most GPU-hours in "
        "the next 24 hours, if "
        "nothing changes, with what these would earn. A click on a server shows its GPUs alone. "
        "An error is the newest "
        "of a failed verification. All GPUs idle can mean that the machine is dead. While "
        "maintenance is pending, the "
        "last instances of their chutes still serve, for up to 3 hours.",
        Column("", "server_id"),
        Column("", no_miner("server"), data=frozenset()),
        Column("Server", "server", width=115, link=THIS_SERVER),
        *MINER_COLUMNS,
        Column("GPU-hours", f"24 * {_by_server(LOST)}", COUNT, 115, thresholds=[(1, RED)]),
        Column(
            "Not earned",
            f"({IDLE}) * on () group_left () {UNIT_USD}",
            CENTS,
            130,
            missing="unknown",
            data=PRICED,
        ),
        Column("Units", IDLE, AMOUNT, 90, missing="unknown"),
        Column("Rent", RENT, CENTS, 80, data=PRICED),
        *(
            Column(
                title,
                _by_server(f"{STATE} == bool {value}"),
                COUNT,
                100 * (title == "Starting"),
                thresholds=thresholds,
            )
            for title, value, thresholds in (
                ("Earning", 4, ()),
                ("Starting", 2, ()),
                ("Disabled", 3, ()),
                ("Idle", 1, [(1, ORANGE)]),
                ("Unverified", 0, [(1, RED)]),
            )
        ),
        Column("All", short(f"count by ({BY_SERVER}) {whole(INFO, 'nodes')}"), COUNT),
        Column("Model", "gpu", width=90),
        Column(
            "",
            f"topk by (hotkey, server_id) (1, max by (hotkey, server_id, error) ({ERRORS}"
            f" * on (hotkey, gpu_id) group_left (server_id) ({STATE} == bool 0)))",
            data=SICK,
        ),
        Column("Error", "error", width=220, missing=" "),
        Column(
            "Maintenance",
            _of_servers(
                f"({_in_maintenance('pending')} == 1 or 2 * {_in_maintenance('maintenance')} == 2)"
            ),
            width=165,
            states=MAINTENANCE,
            missing=" ",
            data=SICK,
        ),
        Column(
            "Upgrade",
            _of_servers(
                f"({of_miners('chutes_server_upgrade_needed', 'server_id')} == 1 unless on "
                "(hotkey, server_id)"
                f" {_in_maintenance('~pending|maintenance')} == 1)"
            ),
            states=NEEDED,
            missing=" ",
            data=SICK,
        ),
        sort=["-GPU-hours", "-Starting", "-Not earned"],
    ),
    timeline(
        "GPU states, worst 20",
        "State of each GPU over time, for the 20 GPUs that are in the worst state at the end of "
        "the time range. Choose "
        "a server above to see its GPUs alone.",
        Query(
            "max by (GPU, gpu_id) "
            f"({_named(f'{STATE} and on (hotkey, gpu_id) bottomk(20, {STATE} @ end())')})",
            "{{GPU}}",
            step="5m",
        ),
        states=GPU,
    ),
)

FLEET.show(
    table(
        "Compute units by server, 30 days",
        "What the instances of each server earned per GPU and day on average, the worst first, "
        "beside the average of "
        "its model, and the share of the fleet. Compare servers of a model that are known for "
        "about as many days. "
        "Units of instances that ended too early are included. Without them, a day differs from "
        "/miner/stats by less "
        "than 2 %.",
        Column("", "server_id"),
        Column("Server", "server", width=150, link=THIS_SERVER),
        Column("Model", "gpu", width=90),
        Column("GPUs", short(GPUS), COUNT),
        Column("Units per GPU and day", PER_GPU, AMOUNT, 200),
        Column(
            "Of the model's average",
            f"{PER_GPU} / on (hotkey, gpu) group_left ()"
            f" ((86400 * {EARNED_BY_MODEL} > 0) / on (hotkey, gpu) count by (hotkey, gpu) "
            f"({ALL_GPUS}))",
            PERCENT,
            thresholds=[(float("-inf"), RED), (0.5, ORANGE), (0.8, PLAIN)],
        ),
        Column("Units", f"0 * {GPUS} + on (hotkey, server_id) group_left () {SUMMED}", AMOUNT),
        Column(
            "Share",
            f"0 * {GPUS} + on (hotkey, server_id) group_left () {SUMMED} / on (hotkey) group_left "
            "()"
            f" sum by (hotkey) ({SUMMED})",
            PERCENT,
        ),
        Column(
            "Days known",
            f"0 * {GPUS} + on (hotkey, server_id) group_left () {KNOWN} / 24",
            Unit("none", 1),
        ),
        *MINER_COLUMNS,
        sort=["Of the model's average", "Units per GPU and day"],
        size=(24, 9),
    ),
    title="Compute units by server",
)

FLEET.show(
    table(
        "GPUs",
        "Each GPU with its state, the chute that it runs and the error of its last failed "
        "verification. A timeout "
        "points at load and network, a failed attestation at driver and firmware. The share of a "
        "day is unknown until "
        "a day is known.",
        Column("State", short(_named(STATE)), width=100, states=GPU),
        Column("GPU", "GPU", width=150),
        Column("Model", "gpu", width=90),
        Column("", "chute_id"),
        Column("", _of_gpus(f"topk by (gpu_id) (1, {ALLOCATION})")),
        Column("Chute", "chute_name", width=250, link=THIS_CHUTE, missing=" "),
        Column(
            "In instances, 1 day",
            _of_gpus(
                f"max by (hotkey, gpu_id) (avg_over_time({IN_USE}[1d]) and on (job, instance, "
                "hotkey, gpu_id)"
                f" count_over_time(last_over_time({IN_USE}[1h])[1d:1h]) >= 24)"
            ),
            PERCENT,
            data=COVERED,
        ),
        Column(
            "Verified since",
            _of_gpus(f"time() - {of_miners('chutes_gpu_verified_timestamp_seconds', 'gpu_id')}"),
            TIME,
        ),
        Column("", _of_gpus(ERRORS), data=SICK),
        Column("Error", "error", width=220, missing=" "),
        Column("Id", "gpu_id", width=290),
        *MINER_COLUMNS,
        sort=["State", "GPU"],
        size=(24, 12),
    ),
    title="Every GPU",
)

FLEET.show(
    stacked(
        "GPUs by state",
        "Each GPU of the chosen servers in exactly one state. A step from earning to idle is "
        "an instance that ended.",
        Query(of_all(f"sum by (state) ({COUNTED})", ALL_GPUS, with_gpus=True), "{{state}}"),
        states=GPU,
    ),
    graph(
        "Servers",
        "Servers, those that list no GPU, and those whose maintenance is pending or that are "
        "in maintenance.",
        Query(total(of_miners("chutes_fleet_servers")), "servers", KEYED),
        Query(total(of_miners("chutes_fleet_servers_without_gpus")), "without GPUs", KEYED),
        Query(total(_in_maintenance("pending"), with_gpus=True), "maintenance pending"),
        Query(total(_in_maintenance("maintenance"), with_gpus=True), "in maintenance"),
    ),
    title="Fleet over time",
)

FLEET.show(
    *(
        graph(
            title, text, Query(query, "{{GPU}}", frozenset()), unit=Unit(unit, 0), empty=DCGM_NEEDED
        )
        for title, unit, query, text in (
            (
                "GPU utilisation",
                "percent",
                f"bottomk(10, {_dcgm('DCGM_FI_DEV_GPU_UTIL')})",
                (
                    "The ten GPUs with the lowest utilisation. One that is earning and does "
                    "nothing has a stuck instance."
                ),
            ),
            (
                "GPU temperature",
                "celsius",
                f"topk(10, {_dcgm('DCGM_FI_DEV_GPU_TEMP')})",
                (
                    "The ten hottest GPUs. Above 85 degrees most models slow down: look at fans "
                    "and air flow."
                ),
            ),
            (
                "XID errors",
                "none",
                f"topk(10, {_dcgm('DCGM_FI_DEV_XID_ERRORS')})",
                (
                    "Number of each GPU's last XID error. 0 is none. 79 means that it has fallen "
                    "off the bus: restart it."
                ),
            ),
        )
    ),
    title="Hardware (DCGM)",
)

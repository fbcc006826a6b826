"""Which servers and GPUs earn nothing, since when, and why?"""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    EXPORTERS,
    MINER_COLUMNS,
    MINERS,
    NO_GPUS,
    NO_KEY,
    Board,
    Column,
    Query,
    board_link,
    graph,
    of_miners,
    or_load_rules,
    recorded,
    select,
    short,
    stat_panel,
    table_panel,
    timeline,
    whole,
)
from grafana.states import GPU, MAINTENANCE, NEEDED, ORANGE, PLAIN, RED
from grafana.worlds import COVERED, KEYED, PRICED, SICK, STOCKED

ON_SERVERS: Final = {"server": "~$server"}
INFO: Final = recorded("hotkey_gpu_id:chutes_gpu_info:max", **ON_SERVERS)
STATE: Final = recorded("hotkey_gpu_id:chutes_gpu_state:max", **ON_SERVERS)
ERRORS: Final = of_miners("chutes_gpu_verification_error_info", "gpu_id", "error")
ALLOCATION: Final = of_miners("chutes_gpu_allocation_info", "gpu_id", "chute_id", "chute_name")
IN_USE: Final = select("chutes_gpu_in_use", EXPORTERS, MINERS)
THIS_SERVER: Final = board_link("chutes-fleet", hotkey="${__data.fields.hotkey}", server="${__value.raw}")
COUNT: Final = "hotkey_server_id_gpu_state:chutes_gpus:count"
BY_SERVER: Final = ("hotkey", "server_id", "server", "gpu")
ALL: Final = f"(count({INFO}) == on () count({STATE}))"
"""The number of GPUs, where the state of each is known."""
LOST: Final = f"{STATE} <= bool 1"
"""1 for each GPU that is idle or unverified, and 0 for each other one."""
LOST_USD: Final = recorded("hotkey_server_id_gpu:chutes_idle_usd_per_day:sum", **ON_SERVERS)
DCGM_NEEDED: Final = (
    "Unknown: no DCGM metrics. Apply deploy/chutes-monitoring-values.yaml, or scrape NVIDIA's dcgm-exporter."
)


def _by_server(gpus: str) -> str:
    """Sum a number of each GPU by server and model, where the state of each GPU is known."""
    return f"sum by ({', '.join(BY_SERVER)}) ({gpus}) and on (hotkey, server_id, gpu) {recorded(COUNT, **ON_SERVERS)}"


def _of_gpus(query: str) -> str:
    """Keep the GPUs of the chosen servers."""
    return f"{query} and on (hotkey, gpu_id) {STATE}"


def _of_servers(query: str) -> str:
    """Keep the chosen servers."""
    return f"{query} and on (hotkey, server_id) {recorded(COUNT, **ON_SERVERS)}"


def _in_maintenance(statuses: str) -> str:
    """Return whether each server has one of these statuses of maintenance."""
    return of_miners("chutes_server_maintenance_status", "server_id", status=statuses)


def _dcgm(metric: str) -> str:
    """Return a metric of NVIDIA's exporter, with the names of GPUs."""
    return (
        f'max by (uuid) (label_replace({metric}, "uuid", "$1", "UUID", "(.+)"))'
        " * on (uuid) group_left (GPU, server) topk by (uuid) (1,"
        f" {_named(INFO)})"
    )


def _named(query: str) -> str:
    """Add the label `GPU`: the server and the index of the GPU. A capital letter sorts before the other labels."""
    return f'label_join({query}, "GPU", " #", "server", "device_index")'


FLEET: Final = Board(
    "chutes-fleet",
    "Chutes fleet",
    "Which servers and GPUs earn nothing, since when, and why? The API does not tell whether a machine is alive: a "
    "dead one looks as before until its instances are deleted.",
    variables=("cluster", "job", "instance", "hotkey", "server"),
)

FLEET.show(
    stat_panel(
        "Lost per day",
        "Cost of the GPUs that are idle or unverified, in US dollars a day at the present rate, and their hours. "
        "Dollars need --gpu.cost for all models of the chosen servers.",
        [
            Query(
                f"sum({LOST_USD}) unless on () ({INFO} unless on (hotkey, server_id, gpu) {LOST_USD})",
                "at this rate",
                PRICED,
                unit="currencyUSD",
            ),
            Query(or_load_rules(f"24 * sum({LOST}) and on () {ALL}"), "GPU-hours", STOCKED),
        ],
        decimals=0,
        thresholds=[(0.5, ORANGE)],
        empty=NO_GPUS,
        trend=True,
        size=(8, 3),
    ),
    *(
        stat_panel(
            title,
            description,
            [Query(or_load_rules(query), legend, STOCKED)],
            unit=unit,
            decimals=0,
            thresholds=thresholds,
            empty=NO_GPUS,
            trend=True,
        )
        for title, description, query, legend, unit, thresholds in (
            (
                "All",
                "GPUs of the chosen servers. If some are missing, look at the machine.",
                ALL,
                "GPUs",
                "none",
                (),
            ),
            (
                "Earning",
                "Share of the GPUs in an active instance, or in a disabled one, which keeps earning.",
                f"avg({STATE} >= bool 3) and on () {ALL}",
                "of all GPUs",
                "percentunit",
                [(float("-inf"), RED), (0.5, ORANGE), (0.9, PLAIN)],
            ),
            (
                "Idle",
                "Verified GPUs in no instance. The Market board ranks the chutes that can run on them now.",
                f"sum({STATE} == bool 1) and on () {ALL}",
                "GPUs",
                "none",
                [(1, ORANGE)],
            ),
            (
                "Unverified",
                "GPUs in no instance and not verified. Launches on them are refused. The table below shows why.",
                f"sum({STATE} == bool 0) and on () {ALL}",
                "GPUs",
                "none",
                [(1, RED)],
            ),
        )
    ),
    table_panel(
        "Servers",
        "Each server and model, with its GPUs by state, those first that lose most. A click on a server shows its GPUs "
        "alone. An error is the newest of a failed verification. All GPUs idle can mean that the machine is dead. "
        "While maintenance is pending, the last instances of their chutes still serve, for up to 3 hours. Dollars need "
        "--gpu.cost for the model.",
        [
            Query(short(f"count by ({', '.join(BY_SERVER)}) {whole(INFO, 'nodes')}"), data=STOCKED),
            *(Query(_by_server(f"{STATE} == bool {state.value}"), data=STOCKED) for state in reversed(GPU)),
            Query(LOST_USD, data=PRICED),
            Query(f"24 * {_by_server(LOST)}", data=STOCKED),
            Query(
                f"topk by (hotkey, server_id) (1, max by (hotkey, server_id, error) ({ERRORS}"
                f" * on (hotkey, gpu_id) group_left (server_id) ({STATE} == bool 0)))",
                data=SICK,
            ),
            Query(
                _of_servers(f"({_in_maintenance('pending')} == 1 or 2 * {_in_maintenance('maintenance')} == 2)"),
                data=SICK,
            ),
            Query(
                _of_servers(
                    f"({of_miners('chutes_server_upgrade_needed', 'server_id')} == 1 unless on (hotkey, server_id)"
                    f" {_in_maintenance('~pending|maintenance')} == 1)"
                ),
                data=SICK,
            ),
        ],
        [
            Column("server_id", ""),
            Column("server", "Server", width=150, link=THIS_SERVER),
            Column("G", "Lost per day", "currencyUSD", 2, width=125, missing="unknown", thresholds=[(0.01, RED)]),
            Column("H", "GPU-hours lost", "none", 0, width=145, thresholds=[(1, RED)]),
            Column("B", "Earning", "none", 0, width=80),
            Column("D", "Starting", "none", 0, width=80),
            Column("C", "Disabled", "none", 0, width=85),
            Column("E", "Idle", "none", 0, width=60, thresholds=[(1, ORANGE)]),
            Column("F", "Unverified", "none", 0, width=95, thresholds=[(1, RED)]),
            Column("A", "All", "none", 0, width=50),
            Column("gpu", "Model", width=90),
            Column("error", "Error", width=220, missing=" "),
            Column("J", "Maintenance", states=MAINTENANCE, width=165, missing=" "),
            Column("K", "Upgrade", states=NEEDED, width=80, missing=" "),
            *MINER_COLUMNS,
        ],
        empty=NO_KEY,
        sort=[("Lost per day", True), ("GPU-hours lost", True)],
        size=(24, 8),
    ),
    timeline(
        "GPU states",
        "State of each GPU over time, for the 20 GPUs that are in the worst state at the end of the time range. "
        "Choose a server above to see its GPUs alone.",
        [
            Query(
                f"max by (GPU, gpu_id) ({_named(f'{STATE} and on (hotkey, gpu_id) bottomk(20, {STATE} @ end())')})",
                "{{GPU}}",
                STOCKED,
                step="5m",
            )
        ],
        states=GPU,
        empty=NO_KEY,
        size=(24, 10),
    ),
)

FLEET.fold(
    "Every GPU",
    table_panel(
        "GPUs",
        "Each GPU with its state, the chute that it runs and the error of its last failed verification. A timeout "
        "points at load and network, a failed attestation at driver and firmware. The share of a day is unknown until "
        "a day is known.",
        [
            Query(short(_named(STATE)), data=STOCKED),
            Query(_of_gpus(f"topk by (gpu_id) (1, {ALLOCATION})"), data=STOCKED),
            Query(
                _of_gpus(
                    f"max by (hotkey, gpu_id) (avg_over_time({IN_USE}[1d]) and on (job, instance, hotkey, gpu_id)"
                    f" count_over_time(last_over_time({IN_USE}[1h])[1d:1h]) >= 24)"
                ),
                data=COVERED,
            ),
            Query(
                _of_gpus(f"time() - {of_miners('chutes_gpu_verified_timestamp_seconds', 'gpu_id')}"),
                data=STOCKED,
            ),
            Query(_of_gpus(ERRORS), data=SICK),
        ],
        [
            Column("A", "State", states=GPU, width=100),
            Column("GPU", "GPU", width=150),
            Column("gpu", "Model", width=90),
            Column("chute_id", ""),
            Column(
                "chute_name",
                "Chute",
                width=250,
                link=board_link("chutes-instances", chute="${__data.fields.chute_id}"),
                missing=" ",
            ),
            Column("C", "In instances, 1 day", "percentunit", 0, width=155),
            Column("D", "Verified since", "s", 1, width=120),
            Column("error", "Error", width=220, missing=" "),
            Column("gpu_id", "Id", width=290),
            *MINER_COLUMNS,
        ],
        empty=NO_KEY,
        sort=[("State", False), ("GPU", False)],
        size=(24, 12),
    ),
)

FLEET.fold(
    "Fleet over time",
    graph(
        "GPUs by state",
        "Each GPU of the chosen servers in exactly one state. A step from earning to idle is an instance that ended.",
        [Query(f"sum by (state) ({recorded(COUNT, **ON_SERVERS)})", "{{state}}", STOCKED)],
        unit="none",
        decimals=0,
        states=GPU,
        stacked=True,
        empty=NO_KEY,
    ),
    graph(
        "Servers",
        "Servers, those that list no GPU, and those whose maintenance is pending or that are in maintenance.",
        [
            Query(f"sum({of_miners('chutes_fleet_servers')})", "servers", KEYED),
            Query(f"sum({of_miners('chutes_fleet_servers_without_gpus')})", "without GPUs", KEYED),
            Query(f"sum({_in_maintenance('pending')})", "maintenance pending", STOCKED),
            Query(f"sum({_in_maintenance('maintenance')})", "in maintenance", STOCKED),
        ],
        unit="none",
        decimals=0,
        empty=NO_KEY,
    ),
)

FLEET.fold(
    "Hardware (DCGM)",
    *(
        graph(
            title,
            description,
            [Query(f"{function}(10, {query})", "{{GPU}}", frozenset())],
            unit=unit,
            decimals=0,
            empty=DCGM_NEEDED,
            size=(12, 8),
        )
        for title, description, query, unit, function in (
            (
                "GPU utilisation",
                "The ten GPUs with the lowest utilisation. One that is earning and does nothing has a stuck instance.",
                _dcgm("DCGM_FI_DEV_GPU_UTIL"),
                "percent",
                "bottomk",
            ),
            (
                "GPU temperature",
                "The ten hottest GPUs. Above 85 degrees most models slow down: look at fans and air flow.",
                _dcgm("DCGM_FI_DEV_GPU_TEMP"),
                "celsius",
                "topk",
            ),
            (
                "XID errors",
                "Number of each GPU's last XID error. 0 is none. 79 means that it has fallen off the bus: restart it.",
                _dcgm("DCGM_FI_DEV_XID_ERRORS"),
                "none",
                "topk",
            ),
        )
    ),
)

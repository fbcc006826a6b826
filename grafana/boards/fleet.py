"""Which servers and GPUs earn nothing, since when, and why?"""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    EXPORTERS,
    MINER_COLUMNS,
    MINERS,
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
    timeline,
    top_ten_at_end,
)
from grafana.states import FLAG, GPU, ORANGE, PENDING, RED
from grafana.worlds import KEYED, SICK, STOCKED

ON_SERVERS: Final = {"server": "~$server"}
SERVER: Final = ("hotkey", "server_id", "server")
NO_GPUS: Final = "No GPUs known. They need the miner's key and the rules; the Exporter board shows what is missing."
STATE: Final = recorded("hotkey_gpu_id:chutes_gpu_state:max", **ON_SERVERS)
ALL_STATE: Final = select("hotkey_gpu_id:chutes_gpu_state:max", **ON_SERVERS)
ERRORS: Final = of_miners("chutes_gpu_verification_error_info", "gpu_id", "error")
ALLOCATION: Final = of_miners("chutes_gpu_allocation_info", "gpu_id", "chute_id", "chute_name")
PENDING_SERVERS: Final = of_miners("chutes_server_maintenance_pending", "server_id")
IN_USE: Final = select("chutes_gpu_in_use", EXPORTERS, MINERS)
IN_USE_OF_DAY: Final = f"max by (hotkey, gpu_id) (avg_over_time({IN_USE}[1d]))"
THIS_SERVER: Final = board_link("chutes-fleet", server="${__value.raw}")
COUNT: Final = "hotkey_server_id_gpu_state:chutes_gpus:count"


def _gpus(states: str, *by: str) -> str:
    labels = f" by ({', '.join(by)})" if by else ""
    return f"sum{labels} ({recorded(COUNT, state=states, **ON_SERVERS)})"


ALL: Final = f"sum({recorded(COUNT, **ON_SERVERS)})"
LOST: Final = _gpus("~idle|unverified", "gpu")


def _of_gpus(query: str) -> str:
    """Keep the GPUs of the chosen servers."""
    return f"{query} and on (hotkey, gpu_id) {ALL_STATE}"


def _of_servers(query: str) -> str:
    """Keep the chosen servers."""
    return f"{query} and on (hotkey, server_id) {recorded(COUNT, **ON_SERVERS)}"


DCGM: Final = (
    'avg by (hotkey, server) (max by (uuid) (label_replace(DCGM_FI_DEV_GPU_UTIL, "uuid", "$1", "UUID", "(.+)"))'
    " * on (uuid) group_left (hotkey, server) topk by (uuid) (1,"
    f" {recorded('hotkey_gpu_id:chutes_gpu_info:max', **ON_SERVERS)} and on (hotkey, gpu_id)"
    " hotkey_gpu_id:chutes_gpu_state:max >= 2))"
)


FLEET: Final = Board(
    "chutes-fleet",
    "Chutes fleet",
    "Which servers and GPUs earn nothing, since when, and why? The API does not tell whether a machine is alive: a "
    "dead one looks as before until its instances are deleted.",
    variables=("cluster", "job", "instance", "hotkey", "server"),
)

FLEET.show(
    stat_panel(
        "GPUs",
        "GPUs of the chosen servers. If some are missing, compare with the table of servers, and look at the machine.",
        [Query(or_load_rules(ALL), "all", STOCKED)],
        decimals=0,
        empty="no GPUs known",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Earning",
        "Share of the GPUs in an active instance, or in a disabled one, which keeps earning.",
        [
            Query(
                or_load_rules(f"{_gpus('~earning|disabled')} / on () {ALL}"),
                "of all GPUs",
                STOCKED,
            )
        ],
        unit="percentunit",
        decimals=0,
        thresholds=[(float("-inf"), RED), (0.5, ORANGE), (0.9, "text")],
        empty="no GPUs known",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Idle",
        "Verified GPUs in no instance. They earn nothing. The Market board ranks the chutes that can run on them now.",
        [
            Query(
                or_load_rules(f"({_gpus('idle')} or on () 0 * {ALL})"),
                "GPUs",
                STOCKED,
            )
        ],
        decimals=0,
        thresholds=[(1, ORANGE)],
        empty="no GPUs known",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Unverified",
        "GPUs in no instance and not verified. Launches on them are refused. The table of errors shows why.",
        [
            Query(
                or_load_rules(f"({_gpus('unverified')} or on () 0 * {ALL})"),
                "GPUs",
                STOCKED,
            )
        ],
        decimals=0,
        thresholds=[(1, RED)],
        empty="no GPUs known",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Idle cost",
        "Cost of the GPUs that are idle or unverified, in US dollars a day at the present rate. It needs --gpu.cost.",
        [
            Query(
                f"24 * sum({recorded('hotkey_state:chutes_fleet_cost_usd_per_hour:sum', state='~idle|unverified')})",
                "per day",
                SICK,
            )
        ],
        unit="currencyUSD",
        decimals=2,
        thresholds=[(0.01, ORANGE)],
        empty="needs --gpu.cost",
        trend=True,
        size=(4, 4),
    ),
    table_panel(
        "Servers",
        "Each server and model, with its GPUs by state, those with most idle GPUs first. A click on a server shows its "
        "GPUs alone. The time of its registration is no heartbeat.",
        [
            Query(short(f"sum by (hotkey, server_id, server, gpu) ({recorded(COUNT, **ON_SERVERS)})"), data=STOCKED),
            *(
                Query(_gpus(state, "hotkey", "server_id", "gpu"), data=data)
                for state, data in (
                    ("~earning|disabled", STOCKED),
                    ("starting", SICK),
                    ("idle", SICK),
                    ("unverified", SICK),
                )
            ),
            Query(
                _of_servers(f"{PENDING_SERVERS} == 1"),
                data=SICK,
            ),
            Query(
                _of_servers(of_miners("chutes_server_upgrade_needed", "server_id")),
                data=STOCKED,
                sometimes=True,
            ),
            Query(
                f"{_gpus('~idle|unverified', 'hotkey', 'server_id', 'gpu')}"
                f" * on (gpu) group_left () (24 * {of_exporters('chutes_gpu_cost_usd_per_hour', 'gpu')})",
                data=SICK,
            ),
            Query(_of_servers(of_miners("chutes_server_info", "server_id", "ip", "tee")), data=STOCKED),
        ],
        [
            Column("server_id", ""),
            Column(
                "server",
                "Server",
                width=130,
                link=board_link("chutes-fleet", hotkey="${__data.fields.hotkey}", server="${__value.raw}"),
            ),
            Column("D", "Idle", "none", 0, width=70, thresholds=[(1, ORANGE)]),
            Column("E", "Unverified", "none", 0, width=110, thresholds=[(1, RED)]),
            Column("B", "Earning", "none", 0, width=80),
            Column("C", "Starting", "none", 0, width=80),
            Column("A", "GPUs", "none", 0, width=65),
            Column("gpu", "Model", width=100),
            Column("H", "Idle cost, 1 day", "currencyUSD", 2, width=130),
            *MINER_COLUMNS,
            Column("F", "Maintenance", states=PENDING, width=110),
            Column("G", "Upgrade needed", states=PENDING, width=135),
            Column("tee", "TEE", width=60),
            Column("ip", "Address", width=130),
        ],
        empty="No servers known. They need the miner's key and the rules.",
        sort=("Idle", True),
        size=(24, 8),
    ),
    timeline(
        "GPU states",
        "State of each GPU over time, for the 20 GPUs that are in the worst state at the end of the time range. "
        "Choose a server above to see its GPUs alone.",
        [
            Query(
                # Prometheus orders series by their labels, and a capital letter comes first.
                "max by (GPU, gpu_id) (label_join("
                f"{STATE} and on (hotkey, gpu_id) bottomk(20, {STATE} @ end())"
                ', "GPU", " #", "server", "device_index"))',
                "{{GPU}}",
                STOCKED,
                step="5m",
            )
        ],
        states=GPU,
        empty=NO_GPUS,
        size=(24, 12),
    ),
    table_panel(
        "Verification errors",
        "Error of each GPU's last failed verification; the next success clears it. A timeout points at load and "
        "network, a failed attestation at driver and firmware. A verified GPU is usable in spite of an error.",
        [
            Query(f"{ERRORS} * on (hotkey, gpu_id) group_left (server, gpu) ({ALL_STATE} >= bool 0)", data=SICK),
            Query(f"{of_miners('chutes_gpu_verified', 'gpu_id')} and on (hotkey, gpu_id) {ERRORS}", data=SICK),
        ],
        [
            Column("server", "Server", width=130, link=THIS_SERVER),
            Column("error", "Error", width=320),
            Column("B", "Verified", states=FLAG, width=80),
            Column("gpu", "Model", width=100),
            Column("gpu_id", "GPU", width=320),
        ],
        empty="No GPU has a verification error, if the numbers above are known",
        sort=("Server", False),
        size=(24, 6),
    ),
)

FLEET.fold(
    "Every GPU",
    table_panel(
        "GPUs",
        "Each GPU with its state and the chute that it runs, those that cost most first.",
        [
            Query(STATE, data=STOCKED),
            Query(_of_gpus(f"topk by (gpu_id) (1, {ALLOCATION})"), data=STOCKED),
            Query(
                _of_gpus(f"time() - {of_miners('chutes_gpu_verified_timestamp_seconds', 'gpu_id')}"),
                data=STOCKED,
            ),
            Query(
                _of_gpus(IN_USE_OF_DAY),
                data=STOCKED,
            ),
        ],
        [
            Column("A", "State", states=GPU, width=100),
            Column("server", "Server", width=130, link=THIS_SERVER),
            Column("device_index", "Slot", width=60),
            Column("gpu", "Model", width=100),
            Column("chute_id", ""),
            Column(
                "chute_name", "Chute", width=250, link=board_link("chutes-instances", chute="${__data.fields.chute_id}")
            ),
            Column("D", "In instances, 1 day", "percentunit", 0, width=155),
            Column("C", "Verified since", "s", 1, width=120),
            Column("gpu_id", "GPU", width=320),
        ],
        empty=NO_GPUS,
        sort=("State", False),
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
        empty=NO_GPUS,
    ),
    graph(
        "GPUs that earn nothing, by model",
        "Idle and unverified GPUs, for the ten models with the most. A model that is idle for hours has too few "
        "chutes that take it: see the Market board.",
        [Query(top_ten_at_end(LOST, LOST, "gpu"), "{{gpu}}", SICK)],
        unit="none",
        decimals=0,
        stacked=True,
        empty="No GPU is idle or unverified, if the numbers above are known",
    ),
    graph(
        "GPUs with a verification error",
        "GPUs whose last verification failed. Many at once point at one server.",
        [Query(f"count({ERRORS})", "with an error", SICK)],
        unit="none",
        decimals=0,
        empty="No GPU has a verification error",
    ),
    graph(
        "Servers",
        "Servers, those that list no GPU, and those that hold an upgrade slot of a maintenance window.",
        [
            Query(f"sum({of_miners('chutes_fleet_servers')})", "servers", KEYED),
            Query(f"sum({of_miners('chutes_fleet_servers_without_gpus')})", "without GPUs", KEYED),
            Query(
                f"sum({PENDING_SERVERS})",
                "maintenance pending",
                STOCKED,
            ),
        ],
        unit="none",
        decimals=0,
        empty="No servers known. They need the miner's key.",
    ),
)

FLEET.fold(
    "Hardware (DCGM)",
    graph(
        "GPU utilisation by server",
        "Average utilisation that DCGM measures on GPUs of an instance, for the ten servers with the lowest. GPUs "
        "that are allocated and do nothing have a stuck instance.",
        [
            Query(
                f"bottomk(10, {DCGM})",
                "{{server}}",
                frozenset(),
            )
        ],
        unit="percent",
        decimals=0,
        empty="No DCGM metrics: Prometheus does not scrape dcgm-exporter.",
        size=(24, 8),
    ),
)

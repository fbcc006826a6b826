"""Servers and GPUs: inventory, states, and what does not earn."""

from __future__ import annotations

from typing import Final

from grafana.parts import WATCHED, Board, Column, Query, lines, miner, or_absence, rows, tile
from grafana.states import GPU, ORANGE, PENDING, RED
from grafana.worlds import FADING_KEYED, KEYED, SICK, STOCKED

FLEET: Final = Board(
    "chutes-fleet",
    "Chutes fleet",
    "The watched miners' servers and GPUs: what each does, and which earn nothing. All of it needs the miner's key. "
    "The API does not tell whether a machine is alive: a dead one looks as before until its instances are deleted.",
)

VERIFIED: Final = miner("chutes_gpu_verified", "gpu_id")
IN_USE: Final = miner("chutes_gpu_in_use", "gpu_id")
ACTIVE: Final = miner("chutes_gpu_active", "gpu_id")


def _chutes_of_instances(operator: str) -> str:
    """Select the chutes of inactive instances: `and` for those that were active before, `unless` for the others."""
    return (
        f"({miner('chutes_instance_info', 'instance_id', 'chute_id')}"
        f" and on (hotkey, instance_id) {miner('chutes_instance_active', 'instance_id')} == 0"
        f" {operator} on (hotkey, instance_id) {miner('chutes_instance_activated_timestamp_seconds', 'instance_id')})"
    )


DISABLED: Final = (
    f"{miner('chutes_gpu_allocation_info', 'gpu_id', 'chute_id')} and on (hotkey, chute_id) "
    f"({_chutes_of_instances('and')} unless on (hotkey, chute_id) {_chutes_of_instances('unless')})"
)
"""GPUs of chutes with disabled and without starting instances, because the inventory has only the instance's chute."""
STATE: Final = (
    f"(4 * ({ACTIVE} == 1))\n"
    f"or on (hotkey, gpu_id) (3 * ({IN_USE} == 1 and on (hotkey, gpu_id) ({DISABLED})))\n"
    f"or on (hotkey, gpu_id) (2 * ({IN_USE} == 1))\n"
    f"or on (hotkey, gpu_id) ({VERIFIED} and on (hotkey, gpu_id) {IN_USE} == 0)"
)
"""The number of each GPU's state in `grafana.states.GPU`."""
GPU_INFO: Final = (
    "topk by (hotkey, gpu_id) (1, "
    f"{miner('chutes_gpu_info', 'gpu_id', 'gpu', 'name', 'server_id', 'device_index', 'verification_host')})"
)
SERVER_NAMES: Final = (
    "label_replace(topk by (hotkey, server_id) (1, "
    f'{miner("chutes_server_info", "server_id", "name")}), "server", "$1", "name", "(?s)(.*)")'
)


def _changed(metric: str) -> str:
    """Return the Unix time of the last change of a metric that is 0 or 1 for each GPU, within the past day."""
    now = miner(metric, "gpu_id")
    return (
        f"(max_over_time(timestamp({now} == 0)[1d:5m]) and on (hotkey, gpu_id) {now} == 1\n"
        f"or on (hotkey, gpu_id) max_over_time(timestamp({now} == 1)[1d:5m]) and on (hotkey, gpu_id) {now} == 0)"
    )


SINCE: Final = "max by (hotkey, gpu_id) (\n{}\n)".format(
    "\nor on (hotkey, gpu_id, of) ".join(
        f'label_replace({since} and on (hotkey, gpu_id) {kept}, "of", "{of}", "", "")'
        for of, since, kept in (
            # While an instance holds a GPU, the verification does not affect its state.
            ("verified", _changed("chutes_gpu_verified"), f"{IN_USE} == 0"),
            ("in use", _changed("chutes_gpu_in_use"), VERIFIED),
            ("active", _changed("chutes_gpu_active"), f"{IN_USE} == 1"),
            ("known", f"min_over_time(timestamp({VERIFIED})[1d:5m])", VERIFIED),
        )
    )
)
"""The Unix time since which each GPU is in its state. The GPU may be in it for longer than a day."""


def _gpus(state: str) -> str:
    return f"sum({miner('chutes_fleet_gpus', 'gpu', 'state', state=state)})"


FLEET.row(
    "Which servers and GPUs are there, and what is wrong with them?",
    tile(
        "Servers",
        "Servers that the API lists. One that is missing was removed, or never added: compare with the miner's own "
        "list.",
        or_absence(f"sum({miner('chutes_fleet_servers')})", "servers"),
        decimals=0,
    ),
    tile(
        "GPUs",
        "GPUs of all servers. When some are missing, look at the servers' GPU counts below, and at the machine itself.",
        or_absence(f"sum({miner('chutes_fleet_gpus', 'gpu', 'state')})", "fleet"),
        decimals=0,
    ),
    tile(
        "Idle",
        "Verified GPUs that are in no instance: they earn nothing. The Market board says which chute pays best for "
        "them.",
        or_absence(_gpus("idle"), "fleet"),
        thresholds=[(1, ORANGE)],
        decimals=0,
    ),
    tile(
        "Unverified",
        "GPUs that are in no instance and not verified: launches on them are refused. The errors are below; most want "
        "the server to be added again.",
        or_absence(_gpus("unverified"), "fleet"),
        thresholds=[(1, RED)],
        decimals=0,
    ),
    tile(
        "Starting",
        "GPUs in an instance that was never active. Minutes are normal; an instance that starts for longer than half "
        "an hour is stuck: see the Instances board.",
        or_absence(_gpus("starting"), "fleet"),
        decimals=0,
    ),
    tile(
        "Disabled",
        "GPUs in an instance that was active and that its miner disabled. It serves no requests and keeps earning "
        "until it is deleted.",
        or_absence(_gpus("disabled"), "fleet"),
        decimals=0,
    ),
    tile(
        "Without GPUs",
        "Servers that list no GPU: the GPUs were deleted, or the registration stopped halfway. Add the server again, "
        "or remove it.",
        or_absence(f"sum({miner('chutes_fleet_servers_without_gpus')})", "servers"),
        thresholds=[(1, ORANGE)],
        decimals=0,
    ),
    tile(
        "Maintenance",
        "Servers that hold an upgrade slot of a maintenance window; their instances were deleted, validly. Upgrade "
        "them: they hold it until they boot with the target version.",
        or_absence(f"sum({miner('chutes_server_maintenance_pending', 'server_id')})", "servers"),
        thresholds=[(1, ORANGE)],
        decimals=0,
    ),
)

FLEET.row(
    "Every GPU, what costs most first",
    rows(
        "GPUs",
        "Unverified GPUs first, then idle ones. How long each is in its state reaches back a day, in steps of five "
        "minutes. Where a chute has starting and disabled instances at once, its GPUs that are not active show as "
        "starting.",
        [
            Query(f"({STATE}) * on (hotkey, gpu_id) group_left (gpu, device_index) {GPU_INFO}", data=STOCKED),
            Query(
                f"{GPU_INFO} * on (hotkey, server_id) group_left (server) {SERVER_NAMES}",
                data=STOCKED,
            ),
            Query(
                f"topk by (hotkey, gpu_id) (1, {miner('chutes_gpu_allocation_info', 'gpu_id', 'chute_name')})",
                data=STOCKED,
            ),
            Query(
                f"time() - {SINCE}",
                data=STOCKED,
            ),
            Query(f"time() - {miner('chutes_gpu_verified_timestamp_seconds', 'gpu_id')}", data=STOCKED),
            Query(miner("chutes_gpu_memory_bytes", "gpu_id"), data=STOCKED),
        ],
        [
            Column("A", "State", states=GPU, width=100),
            Column("D", "In this state for", "s", width=130),
            Column("gpu", "Model", width=100),
            Column("server", "Server", width=180),
            Column("device_index", "Slot", "none", width=60),
            Column("chute_name", "Chute"),
            Column("E", "Verified", "s", width=110),
            Column("F", "Memory", "bytes", width=100),
            Column("gpu_id", "GPU", width=340),
            Column("hotkey", "Miner", width=160),
        ],
        empty="No GPU known: there is none, the exporter has no key, or the API has not answered (see the tiles)",
        sort=("State", False),
        size=(24, 14),
    ),
    rows(
        "Verification errors",
        "The error of each GPU's last failed verification; the next success clears it. A GPU that is verified is "
        "usable in spite of an error. Timeouts point at load and network, a failed attestation at driver and firmware.",
        [
            Query(
                f"{miner('chutes_gpu_verification_error_info', 'gpu_id', 'error')} * on (hotkey, gpu_id)"
                f" group_left (gpu, server_id, verification_host) {GPU_INFO}",
                data=SICK,
            ),
            Query(
                f"(topk by (hotkey, gpu_id) (1, {miner('chutes_gpu_verification_error_info', 'gpu_id', 'error')})"
                f" * on (hotkey, gpu_id) group_left (server_id) {GPU_INFO})"
                f" * on (hotkey, server_id) group_left (server) {SERVER_NAMES}",
                data=SICK,
            ),
        ],
        [
            Column("error", "Error"),
            Column("gpu", "Model", width=100),
            Column("server", "Server", width=180),
            Column("verification_host", "Verified by", width=160),
            Column("gpu_id", "GPU", width=340),
        ],
        empty="No GPU has an error, if the tiles above have numbers",
        sort=("Server", False),
        size=(24, 7),
    ),
)

FLEET.row(
    "How does it move?",
    lines(
        "GPUs by state",
        "Every GPU in exactly one state. A step from earning to idle is an instance that ended; disabled ones keep "
        "earning until they are deleted.",
        [Query(f"sum by (state) ({miner('chutes_fleet_gpus', 'gpu', 'state')})", "{{state}}", STOCKED)],
        unit="none",
        states=GPU,
        stacked=True,
        empty="No GPU known: there is none, the exporter has no key, or the API has not answered",
    ),
    lines(
        "GPUs that earn nothing, by model",
        "Idle and unverified GPUs by model. A model that is idle for hours has too few chutes that take it, or pays "
        "too little: see the Market board.",
        [
            Query(
                f"sum by (gpu) ({miner('chutes_fleet_gpus', 'gpu', 'state', state='~idle|unverified')})",
                "{{gpu}}",
                STOCKED,
            )
        ],
        unit="none",
        stacked=True,
        empty="No GPU known: there is none, the exporter has no key, or the API has not answered",
    ),
    lines(
        "New verification errors of GPUs, past hour",
        "How often a verification error appeared on a GPU that had none, in the hour before. Checks run while GPUs are "
        "registered; many errors point at one server: find it in the errors above.",
        [
            Query(
                f"max by (hotkey) (increase(chutes_observed_gpu_verification_failures_total{{{WATCHED}}}[1h]))",
                "{{hotkey}}",
                FADING_KEYED,
            )
        ],
        unit="none",
        empty="Nothing observed: the exporter has no key, or Prometheus has not scraped it twice",
    ),
    lines(
        "Servers",
        "Servers, those that list no GPU, and those that hold an upgrade slot of a maintenance window.",
        [
            Query(f"sum({miner('chutes_fleet_servers')})", "servers", KEYED),
            Query(f"sum({miner('chutes_fleet_servers_without_gpus')})", "without GPUs", KEYED),
            Query(f"sum({miner('chutes_server_maintenance_pending', 'server_id')})", "maintenance pending", STOCKED),
        ],
        unit="none",
        empty="Nothing known: the exporter has no key, or the API has not answered",
    ),
)

FLEET.row(
    "Servers and models",
    rows(
        "Servers",
        "Every server that the API lists, with its registration. When it last changed is no heartbeat: the API does "
        "not tell whether a server is alive.",
        [
            Query(
                f"topk by (hotkey, server_id) (1, "
                f"{miner('chutes_server_info', 'server_id', 'name', 'ip', 'tee', 'version')})",
                data=STOCKED,
            ),
            Query(miner("chutes_server_gpus", "server_id"), data=STOCKED),
            Query(miner("chutes_server_maintenance_pending", "server_id"), data=STOCKED),
            Query(f"time() - {miner('chutes_server_created_timestamp_seconds', 'server_id')}", data=STOCKED),
            Query(f"time() - {miner('chutes_server_updated_timestamp_seconds', 'server_id')}", data=STOCKED),
        ],
        [
            Column("B", "GPUs", "none", width=70, thresholds=[(float("-inf"), ORANGE), (1, "text")]),
            Column("name", "Server"),
            Column("ip", "Address", width=140),
            Column("C", "Maintenance", states=PENDING, width=110),
            Column("tee", "TEE", width=70),
            Column("version", "Version", width=80),
            Column("D", "Added", "s", width=100),
            Column("E", "Changed", "s", width=100),
            Column("server_id", "Server id", width=300),
        ],
        empty="No server known: there is none, the exporter has no key, or the API has not answered (see the tiles)",
        sort=("GPUs", False),
        size=(16, 9),
    ),
    rows(
        "Models",
        "The miner's GPUs of each model. A model with fewer GPUs than its servers should have wants a look at them.",
        [
            Query(f"sum by (gpu) ({miner('chutes_fleet_gpus', 'gpu', 'state')})", data=STOCKED),
            Query(f"sum by (gpu) ({miner('chutes_fleet_gpus', 'gpu', 'state', state='earning')})", data=STOCKED),
            *(
                Query(
                    f"max by (gpu) ({miner(metric, 'gpu_id')} * on (hotkey, gpu_id) group_left (gpu) {GPU_INFO})",
                    data=STOCKED,
                )
                for metric in ("chutes_gpu_memory_bytes", "chutes_gpu_clock_rate_hertz", "chutes_gpu_processors")
            ),
            Query(
                f"time() - min by (gpu) ({miner('chutes_gpu_created_timestamp_seconds', 'gpu_id')}"
                f" * on (hotkey, gpu_id) group_left (gpu) {GPU_INFO})",
                data=STOCKED,
            ),
        ],
        [
            Column("gpu", "Model"),
            Column("A", "GPUs", "none", width=65),
            Column("B", "Earning", "none", width=75),
            Column("C", "Memory", "bytes", width=85),
            Column("D", "Clock", "hertz", width=85),
            Column("E", "SMs", "none", width=60),
            Column("F", "Oldest", "s", width=85),
        ],
        empty="No GPU known: there is none, the exporter has no key, or the API has not answered (see the tiles)",
        sort=("GPUs", True),
        size=(8, 9),
    ),
)

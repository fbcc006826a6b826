"""The newest maintenance window for TEE servers, and which of the miner's servers are older than its target."""

from __future__ import annotations

from msgspec import UNSET

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import MAINTENANCE
from chutes_exporter.rules.maintenance import MAINTENANCE_STATUSES, maintenance_status, slots_of_older_windows

METRICS = Metrics("GET /servers/maintenance/policy", ("hotkey",))

OPEN = METRICS.declare(
    "chutes_maintenance_window_open",
    "Whether a maintenance window for TEE servers is open (1). Servers can be upgraded only in an open window.",
    "window_open",
)
START = METRICS.declare(
    "chutes_maintenance_window_start_timestamp_seconds",
    "When the newest maintenance window for TEE servers begins or began. The window may be over, open or to come. "
    "Absent before the first window.",
    "active_window.upgrade_window_start",
)
END = METRICS.declare(
    "chutes_maintenance_window_end_timestamp_seconds",
    "When the newest maintenance window for TEE servers ends or ended. Absent before the first window.",
    "active_window.upgrade_window_end",
)
INFO = METRICS.declare(
    "chutes_maintenance_window_info",
    "The version to which TEE servers are upgraded in the newest window.",
    "active_window.target_measurement_version",
    labels=("hotkey", "target_version"),
)
SLOTS = METRICS.declare(
    "chutes_maintenance_slots_in_use",
    "Servers of the miner that hold an upgrade slot of the newest window.",
    "current_slots",
)
OLDER_SLOTS = METRICS.declare(
    "chutes_maintenance_older_slots_in_use",
    "Servers of the miner that hold the upgrade slot of an older window. They never booted with its target version.",
    "current_slots, servers",
)
SLOTS_LIMIT = METRICS.declare(
    "chutes_maintenance_slots_limit",
    "Upgrade slots of the newest window that the miner may hold at once. Absent before the first window.",
    "active_window.max_concurrent_per_miner",
)
UPGRADE_NEEDED = METRICS.declare(
    "chutes_server_upgrade_needed",
    "Whether the TEE server is older than the target of the newest window (1). The upgrade is possible only while "
    "chutes_maintenance_window_open is 1.",
    "servers.needs_upgrade",
    labels=("hotkey", "server_id"),
)
STATUS = METRICS.declare(
    "chutes_server_maintenance_status",
    "Whether the TEE server has this status (1): none, pending (do not reboot: the last instances of their chutes "
    "still serve, for up to 3 hours) or maintenance (nothing runs: reboot now). With the last two, it "
    "holds an upgrade slot, of this window or of an earlier one that it did not finish.",
    "servers.maintenance_status, servers.in_maintenance",
    labels=("hotkey", "server_id", "status"),
)


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    hotkey = scope.hotkey
    policy = answers[MAINTENANCE]
    out.add(SLOTS, policy.current_slots, hotkey)
    out.add(OLDER_SLOTS, slots_of_older_windows(policy), hotkey)
    window = policy.active_window
    # A deployment without the field lists a window only while it is open.
    out.add(OPEN, window is not None if policy.window_open is UNSET else policy.window_open, hotkey)
    if window is not None:
        out.add(START, window.upgrade_window_start, hotkey)
        out.add(END, window.upgrade_window_end, hotkey)
        out.add(SLOTS_LIMIT, window.max_concurrent_per_miner, hotkey)
        if window.target_measurement_version is not None:
            out.add(INFO, 1, hotkey, window.target_measurement_version)
    for server in distinct(policy.servers or [], lambda server: server.server_id, out):
        out.add(UPGRADE_NEEDED, server.needs_upgrade, hotkey, server.server_id)
        if (status := maintenance_status(server)) is not None:
            for other in MAINTENANCE_STATUSES:
                out.add(STATUS, other == status, hotkey, server.server_id, other)


COLLECTOR = Collector(
    name="maintenance",
    summary="the newest maintenance window for TEE servers, and which of them are older than its target",
    feeds=(MAINTENANCE,),
    metrics=METRICS,
    collect=_collect,
    cost="7 for each hotkey with a key, 4 for each server",
)

"""The newest maintenance window for TEE servers, and which of the miner's servers are older than
its target.
"""

from __future__ import annotations

from msgspec import UNSET

from chutes_exporter.api.records import MaintenancePolicy, MaintenanceServer
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table
from chutes_exporter.feeds.table import MAINTENANCE
from chutes_exporter.rules.maintenance import (
    MAINTENANCE_STATUSES,
    maintenance_status,
    slots_of_older_windows,
)


def _is_open(policy: MaintenancePolicy) -> bool | None:
    # A deployment without the field lists a window only while it is open.
    return policy.active_window is not None if policy.window_open is UNSET else policy.window_open


def _status(server: MaintenanceServer) -> dict[str, bool] | None:
    found = maintenance_status(server)
    return None if found is None else {status: status == found for status in MAINTENANCE_STATUSES}


POLICY = Table[MaintenancePolicy](
    MAINTENANCE,
    records=lambda policy: [policy],
    chutes_maintenance_slots_in_use=Row(
        "Servers of the miner that hold an upgrade slot of the newest window.", "current_slots"
    ),
    chutes_maintenance_older_slots_in_use=Row(
        "Servers of the miner that hold the upgrade slot of an older window, and never booted "
        "with its target version.",
        slots_of_older_windows,
        whole=True,
    ),
    chutes_maintenance_window_open=Row(
        "Whether a maintenance window for TEE servers is open (1). Servers can be upgraded "
        "only in an open window.",
        _is_open,
    ),
    chutes_maintenance_window_start_timestamp_seconds=Row(
        "When the newest maintenance window for TEE servers begins or began. The window may be "
        "over, open or to come. "
        "Absent before the first window.",
        "active_window.upgrade_window_start",
    ),
    chutes_maintenance_window_end_timestamp_seconds=Row(
        "When the newest maintenance window for TEE servers ends or ended. Absent before the "
        "first window.",
        "active_window.upgrade_window_end",
    ),
    chutes_maintenance_slots_limit=Row(
        "Upgrade slots of the newest window that the miner may hold at once. Absent before "
        "the first window.",
        "active_window.max_concurrent_per_miner",
    ),
    chutes_maintenance_window_info=Info(
        "The version to which TEE servers are upgraded in the newest window.",
        {"target_version": "active_window.target_measurement_version"},
        only="active_window.target_measurement_version",
    ),
)

SERVER = Table[MaintenanceServer](
    MAINTENANCE,
    key="server_id",
    records=lambda policy: policy.servers or [],
    chutes_server_upgrade_needed=Row(
        "Whether the TEE server is older than the target of the newest window (1). The upgrade is "
        "possible only while "
        "chutes_maintenance_window_open is 1.",
        "needs_upgrade",
    ),
    chutes_server_maintenance_status=Row(
        "Whether the TEE server has this status (1): none, pending (do not reboot: the last "
        "instances of their chutes "
        "still serve, for up to 3 hours) or maintenance (nothing runs: reboot now). With the last "
        "two, it holds an "
        "upgrade slot, of this window or of an earlier one that it did not finish.",
        _status,
        by="status",
    ),
)

COLLECTOR = Collector(
    "maintenance",
    "the newest maintenance window for TEE servers, and which of them are older than its target",
    (POLICY, SERVER),
)

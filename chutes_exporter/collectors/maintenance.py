"""The newest maintenance window for TEE servers, and which of the miner's servers are older than its target."""

from __future__ import annotations

from msgspec import UNSET

from chutes_exporter.api.records import MaintenancePolicy, MaintenanceServer
from chutes_exporter.collectors.table import Info, Row, Table, collector
from chutes_exporter.feeds.table import MAINTENANCE


def _is_open(policy: MaintenancePolicy) -> bool | None:
    # A deployment without the field lists a window only while it is open.
    return policy.active_window is not None if policy.window_open is UNSET else policy.window_open


POLICY = Table[MaintenancePolicy](
    MAINTENANCE,
    records=lambda policy: [policy],
    chutes_maintenance_slots_in_use=Row(
        "Servers of the miner that hold an upgrade slot of the newest window.", "current_slots"
    ),
    chutes_maintenance_window_open=Row(
        "Whether a maintenance window for TEE servers is open (1). Servers can be upgraded only in an open window.",
        _is_open,
    ),
    chutes_maintenance_window_start_timestamp_seconds=Row(
        "When the newest maintenance window for TEE servers begins or began. The window may be over, open or to come. "
        "Absent before the first window.",
        "active_window.upgrade_window_start",
    ),
    chutes_maintenance_window_end_timestamp_seconds=Row(
        "When the newest maintenance window for TEE servers ends or ended. Absent before the first window.",
        "active_window.upgrade_window_end",
    ),
    chutes_maintenance_slots_limit=Row(
        "Upgrade slots of the newest window that the miner may hold at once. Absent before the first window.",
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
        "Whether the TEE server is older than the target of the newest window (1). The upgrade is possible only while "
        "chutes_maintenance_window_open is 1.",
        "needs_upgrade",
    ),
    chutes_server_in_maintenance=Row(
        "Whether the TEE server holds an upgrade slot (1), of this window or of an earlier one that it did not finish.",
        "in_maintenance",
    ),
)

COLLECTOR = collector(
    "maintenance",
    "the newest maintenance window for TEE servers, and which of them are older than its target",
    POLICY,
    SERVER,
)

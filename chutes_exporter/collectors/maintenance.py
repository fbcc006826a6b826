"""The newest maintenance window for TEE servers, and its slots."""

from __future__ import annotations

from chutes_exporter.api.records import MaintenancePolicy
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table
from chutes_exporter.feeds.definitions import MAINTENANCE
from chutes_exporter.rules.maintenance import (
    slots_of_older_windows,
    window_is_open,
)

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
        window_is_open,
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

COLLECTOR = Collector(
    "maintenance", "the newest maintenance window for TEE servers, and its slots", (POLICY,)
)

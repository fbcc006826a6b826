"""A miner's servers and GPUs, and its maintenance window."""

from __future__ import annotations

from msgspec import UNSET

from chutes_exporter.api.records import MaintenancePolicy, Node, Server
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table, fields_named
from chutes_exporter.feeds.definitions import MAINTENANCE, NODES, SERVERS
from chutes_exporter.rules.maintenance import window_is_open

SERVER = Table[Server](
    SERVERS,
    key="server_id",
    chutes_server_info=Info(
        "The server's name and address. Neither is necessarily unique.",
        {"name": "name", "ip": "ip", "tee": "is_tee", "version": "version"},
    ),
    chutes_server_created_timestamp_seconds=Row("When the server was added.", "created_at"),
    chutes_server_updated_timestamp_seconds=Row(
        "When the server's registration last changed. It does not show whether the server is "
        "alive. Absent before the first change.",
        "updated_at",
    ),
)

SERVERS_COLLECTOR = Collector(
    "servers", "the miner's servers: names, addresses, versions, times", (SERVER,)
)


GPU = Table[Node](
    NODES,
    key="uuid",
    label="gpu_id",
    chutes_gpu_info=Info(
        "What the GPU told about itself when it was added: its name, the version of its CUDA "
        "architecture (major and minor), whether it has SXM and ECC, and where the service "
        "verified it.",
        fields_named(
            *("name", "major", "minor", "sxm", "ecc", "verification_host", "verification_port")
        ),
    ),
    chutes_gpu_verified=Row(
        "Whether the GPU is verified (1). Launches on an unverified GPU are refused. A verified "
        "GPU is usable, even if it has an error text from a later check.",
        lambda gpu: None if gpu.verified_at is UNSET else gpu.verified_at is not None,
    ),
    chutes_gpu_verified_timestamp_seconds=Row("When the GPU was verified.", "verified_at"),
    chutes_gpu_verification_error_info=Info(
        "Why the GPU's last verification failed. Only for GPUs with an error. The next "
        "success clears it.",
        {"error": "verification_error"},
    ),
    chutes_gpu_created_timestamp_seconds=Row("When the GPU was added.", "created_at"),
    chutes_gpu_memory_bytes=Row("The GPU's memory.", "memory"),
    chutes_gpu_clock_rate_hertz=Row(
        "The GPU's clock rate.",
        "clock_rate",
        # The service sends kHz.
        convert=lambda kilohertz: kilohertz * 1000,
    ),
    chutes_gpu_processors=Row("The GPU's streaming multiprocessors.", "processors"),
)

NODES_COLLECTOR = Collector(
    "nodes", "the miner's GPUs: verification, memory, clock rate, hardware", (GPU,)
)


POLICY = Table[MaintenancePolicy](
    MAINTENANCE,
    records=lambda policy: [policy],
    chutes_maintenance_slots_in_use=Row(
        "Servers of the miner that hold an upgrade slot of the newest window.", "current_slots"
    ),
    chutes_maintenance_window_open=Row(
        "Whether a maintenance window for TEE servers is open (1). Servers can be upgraded "
        "only in an open window.",
        window_is_open,
    ),
    chutes_maintenance_window_start_timestamp_seconds=Row(
        "When the newest maintenance window for TEE servers begins or began. The window may be "
        "over, open or to come. Absent before the first window.",
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
    ),
)

MAINTENANCE_COLLECTOR = Collector(
    "maintenance", "the newest maintenance window for TEE servers, and its slots", (POLICY,)
)

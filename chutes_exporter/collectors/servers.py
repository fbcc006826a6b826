"""The signing miner's servers, and whether the versions of its TEE servers may still boot."""

from __future__ import annotations

from typing import NamedTuple

from chutes_exporter.api.records import Server, TeeMeasurement
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table, Total
from chutes_exporter.feeds.table import SERVERS, TEE_MEASUREMENTS
from chutes_exporter.rules.maintenance import version_accepted

SERVER = Table[Server](
    SERVERS,
    key="server_id",
    chutes_server_info=Info(
        "The server's name and address. Neither is necessarily unique.",
        {"name": "name", "ip": "ip", "tee": "is_tee", "version": "version"},
    ),
    chutes_server_gpus=Row(
        "GPUs of the server.",
        "gpus",
        convert=lambda gpus: len({gpu.uuid for gpu in gpus}),
        whole=True,
    ),
    chutes_server_maintenance_pending=Row(
        "Whether the server holds an upgrade slot of a maintenance window (1).",
        "maintenance_pending",
    ),
    chutes_server_created_timestamp_seconds=Row("When the server was added.", "created_at"),
    chutes_server_updated_timestamp_seconds=Row(
        "When the server's registration last changed. It does not show whether the server is "
        "alive.",
        "updated_at",
    ),
    chutes_fleet_servers=Total("Servers of the miner.", len),
    chutes_fleet_servers_without_gpus=Total(
        "Servers of the miner without GPUs.",
        lambda lists: sum(not gpus for gpus in lists),
        of="gpus",
    ),
)


class _Version(NamedTuple):
    server_id: str
    version: str
    listed: set[str]


def _versions(servers: list[Server], measurements: list[TeeMeasurement]) -> list[_Version]:
    listed = {measurement.version for measurement in measurements}
    return [
        _Version(server.server_id, server.version, listed)
        for server in servers
        if server.is_tee and server.version
    ]


VERSION = Table[_Version](
    SERVERS,
    TEE_MEASUREMENTS,
    key="server_id",
    records=_versions,
    chutes_server_version_accepted=Row(
        "Whether the service accepts the boot of a TEE server with this server's version. It is 1 "
        "for the highest "
        "listed version. It is 0 for a version that is not listed and is no release candidate: "
        "the server does not "
        "come back after a reboot until it is upgraded. Absent for others, because no answer "
        "shows the least version.",
        lambda server: version_accepted(server.version, server.listed),
    ),
    chutes_server_version_listed=Row(
        "Whether the service lists the version of the TEE server among those that may boot (1). "
        "Release candidates are "
        "never listed.",
        lambda server: server.version in server.listed,
    ),
)

COLLECTOR = Collector("servers", "the miner's servers: names, GPUs, maintenance", (SERVER,))
VERSIONS = Collector(
    "server_versions", "whether the versions of the miner's TEE servers may still boot", (VERSION,)
)

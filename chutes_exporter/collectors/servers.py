"""The signing miner's servers, and whether the versions of its TEE servers may still boot."""

from __future__ import annotations

from collections import Counter

from chutes_exporter.api.records import Server
from chutes_exporter.collectors.base import Answers, Collector, Miners, Samples, distinct, metrics_of
from chutes_exporter.collectors.table import Info, Row, Table, Total, collector
from chutes_exporter.feeds.table import SERVERS, TEE_MEASUREMENTS
from chutes_exporter.rules.maintenance import version_accepted


def _repeated(values: list[str]) -> int:
    """Return how many values occur more than once."""
    return sum(count > 1 for count in Counter(values).values())


SERVER = Table[Server](
    SERVERS,
    key="server_id",
    chutes_server_info=Info(
        "The server's name and address. Neither is necessarily unique.",
        {"name": "name", "ip": "ip", "tee": "is_tee", "version": "version"},
    ),
    chutes_server_gpus=Row(
        "GPUs of the server.", "gpus", convert=lambda gpus: len({gpu.uuid for gpu in gpus}), whole=True
    ),
    chutes_server_maintenance_pending=Row(
        "Whether the server holds an upgrade slot of a maintenance window (1).", "maintenance_pending"
    ),
    chutes_server_created_timestamp_seconds=Row("When the server was added.", "created_at"),
    chutes_server_updated_timestamp_seconds=Row(
        "When the server's registration last changed. It does not show whether the server is alive.", "updated_at"
    ),
    chutes_fleet_servers=Total("Servers of the miner.", len),
    chutes_fleet_servers_without_gpus=Total(
        "Servers of the miner without GPUs.", lambda lists: sum(not gpus for gpus in lists), of="gpus"
    ),
    chutes_fleet_duplicate_server_ips=Total("IP addresses shared by several servers of the miner.", _repeated, of="ip"),
    chutes_fleet_duplicate_server_names=Total("Names shared by several servers of the miner.", _repeated, of="name"),
)

VERSION = metrics_of(TEE_MEASUREMENTS, labels=("hotkey", "server_id"), each="server")
ACCEPTED = VERSION.declare(
    "chutes_server_version_accepted",
    "Whether the service accepts the boot of a TEE server with this server's version. It is 1 for the highest listed "
    "version. It is 0 for a version that is not listed and is no release candidate: the server does not come back "
    "after a reboot until it is upgraded. Absent for others, because no answer shows the least version.",
)
LISTED = VERSION.declare(
    "chutes_server_version_listed",
    "Whether the service lists the version of the TEE server among those that may boot (1). Release candidates are "
    "never listed.",
)


def _collect_versions(answers: Answers, miners: Miners, out: Samples) -> None:
    versions = {measurement.version for measurement in answers[TEE_MEASUREMENTS]}
    for server in distinct(answers[SERVERS], lambda server: server.server_id, out):
        if server.is_tee and server.version:
            out.add(ACCEPTED, version_accepted(server.version, versions), miners.hotkey, server.server_id)
            out.add(LISTED, server.version in versions, miners.hotkey, server.server_id)


COLLECTOR = collector("servers", "the miner's servers: names, GPUs, maintenance, duplicates", SERVER)
VERSIONS = Collector(
    "server_versions",
    "whether the versions of the miner's TEE servers may still boot",
    feeds=(SERVERS, TEE_MEASUREMENTS),
    metrics=VERSION,
    collect=_collect_versions,
)

"""The signing miner's servers, and whether the versions of its TEE servers may still boot."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import SERVERS, TEE_MEASUREMENTS
from chutes_exporter.rules.maintenance import version_accepted

if TYPE_CHECKING:
    from collections.abc import Sequence

METRICS = Metrics("GET /miner/servers/", ("hotkey", "server_id"))

INFO = METRICS.declare(
    "chutes_server_info",
    "The server's name and address. Neither is necessarily unique.",
    "name, ip, is_tee, version",
    labels=("hotkey", "server_id", "name", "ip", "tee", "version"),
)
GPUS = METRICS.declare("chutes_server_gpus", "GPUs of the server.", "gpus")
MAINTENANCE = METRICS.declare(
    "chutes_server_maintenance_pending",
    "Whether the server holds an upgrade slot of a maintenance window (1).",
    "maintenance_pending",
)
CREATED = METRICS.declare(
    "chutes_server_created_timestamp_seconds",
    "When the server was added.",
    "created_at",
)
UPDATED = METRICS.declare(
    "chutes_server_updated_timestamp_seconds",
    "When the server's registration last changed. It does not show whether the server is alive.",
    "updated_at",
)
SERVER_COUNT = METRICS.declare("chutes_fleet_servers", "Servers of the miner.", labels=("hotkey",))
WITHOUT_GPUS = METRICS.declare(
    "chutes_fleet_servers_without_gpus",
    "Servers of the miner without GPUs.",
    "gpus that are empty",
    labels=("hotkey",),
)
DUPLICATE_IPS = METRICS.declare(
    "chutes_fleet_duplicate_server_ips",
    "IP addresses shared by several servers of the miner.",
    "ip",
    labels=("hotkey",),
)
DUPLICATE_NAMES = METRICS.declare(
    "chutes_fleet_duplicate_server_names",
    "Names shared by several servers of the miner.",
    "name",
    labels=("hotkey",),
)

VERSION_METRICS = Metrics("GET /servers/tee/measurements", ("hotkey", "server_id"))
ACCEPTED = VERSION_METRICS.declare(
    "chutes_server_version_accepted",
    "Whether the service accepts the boot of a TEE server with this server's version. It is 1 for the highest listed "
    "version. It is 0 for a version that is not listed and is no release candidate: the server does not come back "
    "after a reboot until it is upgraded. Absent for others, because no answer shows the least version.",
    "version; GET /miner/servers/: version",
)
LISTED = VERSION_METRICS.declare(
    "chutes_server_version_listed",
    "Whether the service lists the version of the TEE server among those that may boot (1). Release candidates are "
    "never listed.",
    "version; GET /miner/servers/: version",
)


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    hotkey = scope.hotkey
    servers = distinct(answers[SERVERS], lambda server: server.server_id, out)
    for server in servers:
        key = server.server_id
        out.add(INFO, 1, hotkey, key, server.name, server.ip, server.is_tee, server.version or None)
        if server.gpus is not None and answers.complete():
            out.add(GPUS, len({gpu.uuid for gpu in server.gpus}), hotkey, key)
        out.add(MAINTENANCE, server.maintenance_pending, hotkey, key)
        out.add(CREATED, server.created_at, hotkey, key)
        out.add(UPDATED, server.updated_at, hotkey, key)
    if not answers.complete():
        return
    out.add(SERVER_COUNT, len(servers), hotkey)
    if all(server.gpus is not None for server in servers):
        out.add(WITHOUT_GPUS, sum(1 for server in servers if not server.gpus), hotkey)
    out.add(DUPLICATE_IPS, _repeated([server.ip for server in servers]), hotkey)
    out.add(DUPLICATE_NAMES, _repeated([server.name for server in servers]), hotkey)


def _repeated(values: Sequence[str | None]) -> int | None:
    """Return how many values occur more than once, None if a value is unknown."""
    return None if None in values else sum(1 for count in Counter(values).values() if count > 1)


def _collect_versions(answers: Answers, scope: Scope, out: Samples) -> None:
    if not answers.complete(TEE_MEASUREMENTS):
        return
    versions = {measurement.version for measurement in answers[TEE_MEASUREMENTS]}
    for server in distinct(answers[SERVERS], lambda server: server.server_id, out):
        if server.is_tee and server.version:
            out.add(ACCEPTED, version_accepted(server.version, versions), scope.hotkey, server.server_id)
            out.add(LISTED, server.version in versions, scope.hotkey, server.server_id)


COLLECTOR = Collector(
    name="servers",
    summary="the miner's servers: names, GPUs, maintenance, duplicates",
    feeds=(SERVERS,),
    metrics=METRICS,
    collect=_collect,
    cost="4 for each hotkey with a key, 5 for each server",
)
VERSIONS = Collector(
    name="server_versions",
    summary="whether the versions of the miner's TEE servers may still boot",
    feeds=(SERVERS, TEE_MEASUREMENTS),
    metrics=VERSION_METRICS,
    collect=_collect_versions,
    cost="2 for each server",
)

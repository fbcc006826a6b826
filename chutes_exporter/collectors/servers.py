"""The signing miner's servers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chutes_exporter.api.meaning import is_old_tee_server
from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import SERVERS

if TYPE_CHECKING:
    from collections.abc import Sequence

METRICS = Metrics()
_SOURCE = "GET /miner/servers/"
_SERVER = ("hotkey", "server_id")
_FLEET = ("hotkey",)

INFO = METRICS.info(
    "chutes_server_info",
    "The server's name and address. Neither is necessarily unique.",
    ("hotkey", "server_id", "name", "ip", "tee", "version"),
    f"{_SOURCE}: name, ip, is_tee, version",
    changes="once; version at boot",
)
GPUS = METRICS.gauge("chutes_server_gpus", "GPUs of the server.", _SERVER, f"{_SOURCE}: gpus")
MAINTENANCE = METRICS.gauge(
    "chutes_server_maintenance_pending",
    "Whether the server holds an upgrade slot of a maintenance window (1).",
    _SERVER,
    f"{_SOURCE}: maintenance_pending",
)
LAUNCHES_REFUSED = METRICS.gauge(
    "chutes_server_launches_refused",
    "Whether the TEE server has no version or one below 0.2.1 (1). One such server makes the service refuse all the "
    "miner's launches of newer TEE chutes. Only for TEE servers.",
    _SERVER,
    f"{_SOURCE}: is_tee, version",
)
CREATED = METRICS.gauge(
    "chutes_server_created_timestamp_seconds",
    "When the server was added.",
    _SERVER,
    f"{_SOURCE}: created_at",
    changes="once",
)
UPDATED = METRICS.gauge(
    "chutes_server_updated_timestamp_seconds",
    "When the server's registration last changed. It does not show whether the server is alive.",
    _SERVER,
    f"{_SOURCE}: updated_at",
)
SERVER_COUNT = METRICS.gauge("chutes_fleet_servers", "Servers of the miner.", _FLEET, _SOURCE)
WITHOUT_GPUS = METRICS.gauge(
    "chutes_fleet_servers_without_gpus",
    "Servers of the miner without GPUs.",
    _FLEET,
    f"{_SOURCE}: gpus that are empty",
)
DUPLICATE_IPS = METRICS.gauge(
    "chutes_fleet_duplicate_server_ips",
    "IP addresses shared by several servers of the miner.",
    _FLEET,
    f"{_SOURCE}: ip",
)
DUPLICATE_NAMES = METRICS.gauge(
    "chutes_fleet_duplicate_server_names",
    "Names shared by several servers of the miner.",
    _FLEET,
    f"{_SOURCE}: name",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Add the miner's servers."""
    hotkey = scope.hotkey
    servers = distinct(answers[SERVERS], lambda server: server.server_id, out)
    for server in servers:
        key = server.server_id
        out.add(INFO, 1, hotkey, key, server.name, server.ip, server.is_tee, server.version or None)
        if server.gpus is not None and answers.complete():
            out.add(GPUS, len({gpu.uuid for gpu in server.gpus}), hotkey, key)
        out.add(MAINTENANCE, server.maintenance_pending, hotkey, key)
        if server.is_tee:
            out.add(LAUNCHES_REFUSED, is_old_tee_server(server), hotkey, key)
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


COLLECTOR = Collector(
    name="servers",
    summary="the miner's servers: names, GPUs, maintenance, duplicates",
    feeds=(SERVERS,),
    metrics=METRICS,
    collect=collect,
    cost=Cost(fixed=4, server=6),
)

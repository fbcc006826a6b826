"""Whether the image versions of the miner's TEE servers may still boot."""

from __future__ import annotations

from msgspec import UNSET

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import SERVERS, TEE_MEASUREMENTS

METRICS = Metrics()
ACCEPTED = METRICS.gauge(
    "chutes_server_version_accepted",
    "Whether the service accepts the boot of a TEE server with this server's version (1). With 0, the server does not "
    "come back after a reboot until it is upgraded. 0 for a TEE server without a version, too.",
    ("hotkey", "server_id"),
    "GET /servers/tee/measurements: version; GET /miner/servers/: version",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Look up the version of each TEE server."""
    if not answers.complete(TEE_MEASUREMENTS):
        return
    versions = {measurement.version for measurement in answers[TEE_MEASUREMENTS]}
    for server in distinct(answers[SERVERS], lambda server: server.server_id, out):
        if server.is_tee and server.version is not UNSET:
            out.add(ACCEPTED, server.version in versions, scope.hotkey, server.server_id)


COLLECTOR = Collector(
    name="server_versions",
    summary="whether the versions of the miner's TEE servers may still boot",
    feeds=(SERVERS, TEE_MEASUREMENTS),
    metrics=METRICS,
    collect=collect,
    cost=Cost(server=1),
)

"""The collectors, one module a topic."""

from chutes_exporter.collectors import (
    chutes,
    fleet,
    instances,
    metagraph,
    metrics,
    nodes,
    scores,
    servers,
    stats,
    stats_per_chute,
)
from chutes_exporter.collectors.base import Answers, Collector, Scope

COLLECTORS: tuple[Collector, ...] = (
    metagraph.COLLECTOR,
    scores.COLLECTOR,
    stats.COLLECTOR,
    stats_per_chute.COLLECTOR,
    metrics.COLLECTOR,
    chutes.COLLECTOR,
    servers.COLLECTOR,
    nodes.COLLECTOR,
    fleet.COLLECTOR,
    instances.COLLECTOR,
)

__all__ = ["COLLECTORS", "Answers", "Collector", "Scope"]

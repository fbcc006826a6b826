"""The collectors, one module for each topic."""

from chutes_exporter.collectors import (
    active_instances,
    bounties,
    chutes,
    fleet,
    images,
    instance_gpus,
    instances,
    jobs,
    launch,
    maintenance,
    metagraph,
    metrics,
    nodes,
    rolling_updates,
    score_heading,
    scores,
    servers,
    stats,
    thrash_cooldowns,
    unique_chute_history,
    utilization,
)
from chutes_exporter.collectors.base import Answers, Collector, MinersChoice, Scope

COLLECTORS: tuple[Collector, ...] = (
    metagraph.COLLECTOR,
    scores.COLLECTOR,
    score_heading.COLLECTOR,
    stats.COLLECTOR,
    fleet.COLLECTOR,
    servers.COLLECTOR,
    servers.VERSIONS,
    maintenance.COLLECTOR,
    nodes.COLLECTOR,
    instances.COLLECTOR,
    instance_gpus.COLLECTOR,
    launch.COLLECTOR,
    rolling_updates.COLLECTOR,
    thrash_cooldowns.COLLECTOR,
    unique_chute_history.COLLECTOR,
    jobs.COLLECTOR,
    images.COLLECTOR,
    active_instances.COLLECTOR,
    bounties.COLLECTOR,
    utilization.COLLECTOR,
    chutes.COLLECTOR,
    metrics.COLLECTOR,
    stats.PER_CHUTE,
    jobs.DETAILS,
    images.DETAILS,
    chutes.SUPPORTED_GPUS,
)
"""All collectors, the most important first. A page that would be too large keeps those that fit, in this order."""

__all__ = ["COLLECTORS", "Answers", "Collector", "MinersChoice", "Scope"]

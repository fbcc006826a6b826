"""The collectors, one module for each topic."""

from chutes_exporter.collectors import (
    active_instances,
    bounties,
    chute_gpus,
    chutes,
    fleet,
    image_details,
    images,
    instances,
    job_details,
    jobs,
    maintenance,
    metagraph,
    metrics,
    nodes,
    private_gate,
    rolling_updates,
    score_heading,
    scores,
    servers,
    stats,
    stats_per_chute,
    thrash_cooldowns,
    unique_chute_history,
    utilization,
)
from chutes_exporter.collectors.base import Answers, Collector, Cost, MinersChoice, Scope

COLLECTORS: tuple[Collector, ...] = (
    metagraph.COLLECTOR,
    scores.COLLECTOR,
    score_heading.COLLECTOR,
    stats.COLLECTOR,
    fleet.COLLECTOR,
    servers.COLLECTOR,
    maintenance.COLLECTOR,
    nodes.COLLECTOR,
    instances.COLLECTOR,
    rolling_updates.COLLECTOR,
    private_gate.COLLECTOR,
    thrash_cooldowns.COLLECTOR,
    unique_chute_history.COLLECTOR,
    jobs.COLLECTOR,
    images.COLLECTOR,
    active_instances.COLLECTOR,
    bounties.COLLECTOR,
    utilization.COLLECTOR,
    chutes.COLLECTOR,
    metrics.COLLECTOR,
    stats_per_chute.COLLECTOR,
    job_details.COLLECTOR,
    image_details.COLLECTOR,
    chute_gpus.COLLECTOR,
)
"""All collectors, the most important first. A page that would be too large keeps those that fit, in this order."""

__all__ = ["COLLECTORS", "Answers", "Collector", "Cost", "MinersChoice", "Scope"]

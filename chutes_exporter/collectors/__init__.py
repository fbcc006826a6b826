"""The collectors, one module for each topic."""

from chutes_exporter.collectors import (
    active_instances,
    bounties,
    chain,
    chutes,
    demand,
    ended_instances,
    fleet,
    images,
    instances,
    jobs,
    launch,
    maintenance,
    metagraph,
    money,
    nodes,
    platform_gpus,
    rolling_updates,
    score_heading,
    scores,
    servers,
    stats,
    thrash_cooldowns,
    unique_chute_history,
    utilization,
)
from chutes_exporter.collectors.base import Answers, Collector, Miners

COLLECTORS: tuple[Collector, ...] = (
    metagraph.COLLECTOR,
    chain.COLLECTOR,
    money.EARNINGS,
    money.COMPUTE_UNIT,
    scores.COLLECTOR,
    score_heading.COLLECTOR,
    stats.COLLECTOR,
    fleet.COLLECTOR,
    servers.COLLECTOR,
    money.COSTS,
    money.PROFIT_OF_DAY,
    money.PROFIT_BY_SERVER,
    maintenance.COLLECTOR,
    nodes.COLLECTOR,
    instances.COLLECTOR,
    launch.COLLECTOR,
    ended_instances.COLLECTOR,
    rolling_updates.COLLECTOR,
    thrash_cooldowns.COLLECTOR,
    unique_chute_history.COLLECTOR,
    jobs.COLLECTOR,
    images.COLLECTOR,
    active_instances.COLLECTOR,
    bounties.COLLECTOR,
    utilization.COLLECTOR,
    platform_gpus.COLLECTOR,
    chutes.COLLECTOR,
    demand.COLLECTOR,
    stats.PER_CHUTE,
    chutes.DETAILS,
    jobs.DETAILS,
    images.DETAILS,
)
"""All collectors, the most important first.

A page that would be too large keeps those that fit, in this order.
"""

__all__ = ["COLLECTORS", "Answers", "Collector", "Miners"]

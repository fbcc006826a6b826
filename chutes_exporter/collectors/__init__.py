"""The collectors, one module for each topic."""

from chutes_exporter.collectors import (
    chutes,
    ended_instances,
    fleet,
    instances,
    launch,
    money,
    platform,
    scores,
    seats,
    servers,
)
from chutes_exporter.collectors.base import Answers, Collector, Miners

COLLECTORS: tuple[Collector, ...] = (
    seats.METAGRAPH_COLLECTOR,
    seats.CHAIN_COLLECTOR,
    money.EARNINGS_COLLECTOR,
    money.COMPUTE_UNIT_COLLECTOR,
    scores.SCORES_COLLECTOR,
    scores.SCORE_HEADING_COLLECTOR,
    scores.STATS_COLLECTOR,
    fleet.COLLECTOR,
    servers.SERVERS_COLLECTOR,
    money.COSTS_COLLECTOR,
    money.PROFIT_COLLECTOR,
    money.SERVER_PROFIT_COLLECTOR,
    servers.MAINTENANCE_COLLECTOR,
    servers.NODES_COLLECTOR,
    instances.INSTANCES_COLLECTOR,
    launch.COLLECTOR,
    ended_instances.COLLECTOR,
    instances.ROLLING_UPDATES_COLLECTOR,
    instances.THRASH_COOLDOWNS_COLLECTOR,
    scores.UNIQUE_CHUTE_HISTORY_COLLECTOR,
    platform.JOBS_COLLECTOR,
    platform.IMAGES_COLLECTOR,
    instances.ACTIVE_INSTANCES_COLLECTOR,
    chutes.BOUNTIES_COLLECTOR,
    chutes.UTILIZATION_COLLECTOR,
    platform.PLATFORM_GPUS_COLLECTOR,
    chutes.CHUTES_COLLECTOR,
    chutes.DEMAND_COLLECTOR,
    scores.STATS_PER_CHUTE_COLLECTOR,
    chutes.CHUTE_DETAILS_COLLECTOR,
    platform.JOB_DETAILS_COLLECTOR,
    platform.IMAGE_DETAILS_COLLECTOR,
)
"""All collectors, the most important first.

A page that would be too large keeps those that fit, in this order.
"""

__all__ = ["COLLECTORS", "Answers", "Collector", "Miners"]

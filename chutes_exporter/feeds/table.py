"""The table of feeds with their lifetimes."""

from __future__ import annotations

from typing import Any

from chutes_exporter.api import endpoints as e
from chutes_exporter.feeds import doubt
from chutes_exporter.feeds.feed import Feed

# The times to live in seconds follow the service's refresh periods:
# - 55: the miner's instances, requested at each scrape with the usual interval of one minute.
# - 115: live lists of the platform, servers and GPUs. The service caches /miner/metrics/ for 120 s, and its autoscaler
#   sets targets every 2 minutes at most.
# - 175: the service reads the metagraph every 3 minutes.
# - 300: the service computes stats and scores every 10 minutes. The list of jobs contains all jobs ever. A rolling
#   update takes hours, and a maintenance window days.
# - 900: chutes and the GPUs of all miners are MB, and the autoscaler changes chutes every 15 minutes. The history gets
#   a point an hour.
METAGRAPH = Feed("metagraph", e.METAGRAPH, changes="every 3 minutes", ttl=175.0, max_age=3600.0)
SCORES = Feed("scores", e.SCORES, changes="every 10 minutes", ttl=300.0, max_age=1800.0, checks={})
STATS = Feed("stats", e.STATS, changes="every 10 minutes", ttl=300.0, max_age=1800.0, checks={})
STATS_PER_CHUTE = Feed(
    "stats_per_chute", e.STATS, changes="every 10 minutes", ttl=300.0, max_age=1800.0, per_chute=True, checks={}
)
METRICS = Feed(
    "metrics",
    e.METRICS,
    changes="every 2 minutes",
    ttl=115.0,
    max_age=900.0,
    checks={"shrunk": doubt.shrunk, "no_demand": doubt.no_demand},
)
SERVERS = Feed("servers", e.SERVERS, changes="live", ttl=115.0, max_age=900.0)
NODES = Feed(
    "nodes",
    e.NODES,
    changes="live",
    ttl=115.0,
    max_age=900.0,
    checks={"shrunk": doubt.shrunk, "disagrees": doubt.gpus_are_missing},
    evidence=(SERVERS,),
)
INVENTORY = Feed("inventory", e.INVENTORY, changes="live", ttl=55.0, max_age=600.0)
INSTANCES = Feed(
    "instances",
    e.INSTANCES,
    changes="live",
    ttl=55.0,
    max_age=600.0,
    checks={"shrunk": doubt.shrunk, "disagrees": doubt.instances_are_missing},
    evidence=(INVENTORY,),
)
IMAGES = Feed("images", e.IMAGES, changes="live", ttl=900.0, max_age=3600.0)
# No jobs and a failed query look the same, and nothing tells them apart. So a second answer must confirm that all are
# gone.
JOBS = Feed("jobs", e.JOBS, changes="live", ttl=300.0, max_age=1800.0)
ACTIVE_INSTANCES = Feed("active_instances", e.ACTIVE_INSTANCES, changes="live", ttl=115.0, max_age=900.0)
CHUTES = Feed(
    "chutes",
    e.CHUTES,
    changes="live",
    ttl=900.0,
    max_age=3600.0,
    checks={
        "shrunk": doubt.shrunk,
        "disagrees": doubt.chutes_are_missing,
        "no_bounties": doubt.bounties_of_chutes_are_gone,
    },
    evidence=(ACTIVE_INSTANCES, METRICS),
)
THRASH_COOLDOWNS = Feed(
    "thrash_cooldowns", e.THRASH_COOLDOWNS, changes="never since May 2026", ttl=900.0, max_age=7200.0
)
# A new miner has no history yet.
UNIQUE_CHUTE_HISTORY = Feed(
    "unique_chute_history",
    e.UNIQUE_CHUTE_HISTORY,
    changes="hourly",
    ttl=900.0,
    max_age=7200.0,
    value_if_404=[],
    checks={"no_history": doubt.history_is_gone},
)
UTILIZATION = Feed(
    "utilization",
    e.UTILIZATION,
    changes="counts live, the rest every 2 minutes",
    ttl=115.0,
    max_age=900.0,
    optional=True,
    checks={"shrunk": doubt.shrunk, "no_demand": doubt.no_load},
)
BOUNTIES = Feed(
    "bounties",
    e.BOUNTIES,
    changes="live",
    ttl=115.0,
    max_age=900.0,
    optional=True,
    checks={"no_bounties": doubt.bounties_are_gone},
    evidence=(CHUTES,),
)
ROLLING_UPDATES = Feed(
    "rolling_updates",
    e.ROLLING_UPDATES,
    changes="live",
    ttl=300.0,
    max_age=1800.0,
    optional=True,
    checks={},
)
MAINTENANCE = Feed("maintenance", e.MAINTENANCE, changes="live", ttl=300.0, max_age=1800.0, optional=True, checks={})
HELD_GPUS = Feed("held_gpus", e.HELD_GPUS, changes="live", ttl=900.0, max_age=3600.0, optional=True)
MINER_GPUS = Feed("miner_gpus", e.MINER_GPUS, changes="live", ttl=300.0, max_age=1800.0, optional=True, checks={})
SUPPORTED_GPUS = Feed(
    "supported_gpus", e.SUPPORTED_GPUS, changes="by hand", ttl=86400.0, max_age=7 * 86400.0, optional=True, checks={}
)
TEE_MEASUREMENTS = Feed(
    "tee_measurements", e.TEE_MEASUREMENTS, changes="by hand", ttl=3600.0, max_age=86400.0, optional=True, checks={}
)

FEEDS: tuple[Feed[Any], ...] = (
    METAGRAPH,
    SCORES,
    STATS,
    STATS_PER_CHUTE,
    METRICS,
    CHUTES,
    SERVERS,
    NODES,
    INVENTORY,
    INSTANCES,
    IMAGES,
    JOBS,
    ACTIVE_INSTANCES,
    THRASH_COOLDOWNS,
    UNIQUE_CHUTE_HISTORY,
    UTILIZATION,
    BOUNTIES,
    ROLLING_UPDATES,
    MAINTENANCE,
    HELD_GPUS,
    MINER_GPUS,
    SUPPORTED_GPUS,
    TEE_MEASUREMENTS,
)

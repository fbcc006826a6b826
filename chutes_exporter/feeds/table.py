"""The table of feeds with their lifetimes."""

from __future__ import annotations

from typing import Any

from chutes_exporter.api import endpoints as e
from chutes_exporter.api import records as r
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
METAGRAPH: Feed[list[r.MetagraphNode]] = Feed(
    "metagraph", e.METAGRAPH, changes="every 3 minutes", ttl=175.0, max_age=3600.0
)
SCORES: Feed[r.Scores] = Feed("scores", e.SCORES, changes="every 10 minutes", ttl=300.0, max_age=1800.0, doubts=())
STATS: Feed[r.Stats] = Feed("stats", e.STATS, changes="every 10 minutes", ttl=300.0, max_age=1800.0, doubts=())
STATS_PER_CHUTE: Feed[r.Stats] = Feed(
    "stats_per_chute", e.STATS, changes="every 10 minutes", ttl=300.0, max_age=1800.0, per_chute=True, doubts=()
)
METRICS: Feed[list[r.ChuteMetrics]] = Feed(
    "metrics",
    e.METRICS,
    changes="every 2 minutes",
    ttl=115.0,
    max_age=900.0,
    doubts=("shrunk", "no_demand"),
    check=doubt.check_metrics,
)
SERVERS: Feed[list[r.Server]] = Feed("servers", e.SERVERS, changes="live", ttl=115.0, max_age=900.0)
NODES: Feed[list[r.Node]] = Feed(
    "nodes",
    e.NODES,
    changes="live",
    ttl=115.0,
    max_age=900.0,
    doubts=("shrunk", "disagrees"),
    check=doubt.check_nodes,
    evidence=(SERVERS,),
)
INVENTORY: Feed[list[r.InventoryItem]] = Feed("inventory", e.INVENTORY, changes="live", ttl=55.0, max_age=600.0)
INSTANCES: Feed[list[r.Instance]] = Feed(
    "instances",
    e.INSTANCES,
    changes="live",
    ttl=55.0,
    max_age=600.0,
    doubts=("shrunk", "disagrees"),
    check=doubt.check_instances,
    evidence=(INVENTORY,),
)
IMAGES: Feed[list[r.Image]] = Feed("images", e.IMAGES, changes="live", ttl=900.0, max_age=3600.0)
JOBS: Feed[list[r.Job]] = Feed("jobs", e.JOBS, changes="live", ttl=300.0, max_age=1800.0)
ACTIVE_INSTANCES: Feed[list[r.ActiveInstance]] = Feed(
    "active_instances", e.ACTIVE_INSTANCES, changes="live", ttl=115.0, max_age=900.0
)
CHUTES: Feed[list[r.Chute]] = Feed(
    "chutes",
    e.CHUTES,
    changes="live",
    ttl=900.0,
    max_age=3600.0,
    doubts=("shrunk", "disagrees", "no_bounties"),
    check=doubt.check_chutes,
    evidence=(ACTIVE_INSTANCES, METRICS),
)
THRASH_COOLDOWNS: Feed[list[r.ThrashCooldown]] = Feed(
    "thrash_cooldowns", e.THRASH_COOLDOWNS, changes="never since May 2026", ttl=900.0, max_age=7200.0
)
# A new miner has no history yet.
UNIQUE_CHUTE_HISTORY: Feed[list[r.HistoryPoint]] = Feed(
    "unique_chute_history",
    e.UNIQUE_CHUTE_HISTORY,
    changes="hourly",
    ttl=900.0,
    max_age=7200.0,
    value_if_404=[],
    doubts=("no_history",),
)
UTILIZATION: Feed[list[r.ChuteUtilization]] = Feed(
    "utilization",
    e.UTILIZATION,
    changes="counts live, the rest every 2 minutes",
    ttl=115.0,
    max_age=900.0,
    optional=True,
    doubts=("shrunk", "no_demand"),
    check=doubt.of_utilization,
)
BOUNTIES: Feed[list[r.Bounty]] = Feed(
    "bounties",
    e.BOUNTIES,
    changes="live",
    ttl=115.0,
    max_age=900.0,
    optional=True,
    doubts=("no_bounties",),
    check=doubt.of_bounties,
    evidence=(CHUTES,),
)
ROLLING_UPDATES: Feed[list[r.RollingUpdate]] = Feed(
    "rolling_updates",
    e.ROLLING_UPDATES,
    changes="live",
    ttl=300.0,
    max_age=1800.0,
    optional=True,
    doubts=(),
)
MAINTENANCE: Feed[r.MaintenancePolicy] = Feed(
    "maintenance", e.MAINTENANCE, changes="live", ttl=300.0, max_age=1800.0, optional=True, doubts=()
)
HELD_GPUS: Feed[list[r.HeldGpu]] = Feed(
    "held_gpus", e.HELD_GPUS, changes="live", ttl=900.0, max_age=3600.0, optional=True
)
MINER_GPUS: Feed[list[r.HeldGpu]] = Feed(
    "miner_gpus", e.MINER_GPUS, changes="live", ttl=300.0, max_age=1800.0, optional=True, doubts=()
)
SUPPORTED_GPUS: Feed[list[r.SupportedGpu]] = Feed(
    "supported_gpus", e.SUPPORTED_GPUS, changes="by hand", ttl=86400.0, max_age=7 * 86400.0, optional=True, doubts=()
)
TEE_MEASUREMENTS: Feed[list[r.TeeMeasurement]] = Feed(
    "tee_measurements", e.TEE_MEASUREMENTS, changes="by hand", ttl=3600.0, max_age=86400.0, optional=True, doubts=()
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

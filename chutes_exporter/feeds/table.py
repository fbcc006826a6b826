"""The table of feeds with their lifetimes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chutes_exporter.api import endpoints as e
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.feeds import doubt
from chutes_exporter.feeds.feed import Feed
from chutes_exporter.rules.demand import demand_is_unknown, load_is_unknown

# The times to live in seconds, the first number, follow the service's refresh periods:
# - 55: the miner's instances, requested at each scrape with the usual interval of one minute.
# - 115: live lists of the platform, servers and GPUs. The service caches /miner/metrics/ for 120 s, and its autoscaler
#   sets targets every 2 minutes at most.
# - 175: the service reads the metagraph every 3 minutes.
# - 300: the service computes stats and scores every 10 minutes. The list of jobs contains all jobs ever. A rolling
#   update takes hours, and a maintenance window days.
# - 900: chutes and the GPUs of all miners are MB, and the autoscaler changes chutes every 15 minutes. The history gets
#   a point an hour.
METAGRAPH = Feed("metagraph", e.METAGRAPH, 175.0, HOUR, changes="every 3 minutes")
SCORES = Feed("scores", e.SCORES, 300.0, 1800.0, changes="every 10 minutes", checks={})
STATS = Feed("stats", e.STATS, 300.0, 1800.0, changes="every 10 minutes", checks={})
STATS_PER_CHUTE = replace(STATS, name="stats_per_chute", per_chute=True)
CHUTE_METRICS = Feed(
    "metrics",
    e.CHUTE_METRICS,
    115.0,
    900.0,
    changes="every 2 minutes",
    checks={"shrunk": doubt.shrunk, "no_demand": lambda _old, new: demand_is_unknown(new.value)},
)
ACTIVE_INSTANCES = Feed("active_instances", e.ACTIVE_INSTANCES, 115.0, 900.0)
CHUTES = Feed(
    "chutes",
    e.CHUTES,
    900.0,
    HOUR,
    checks={
        "shrunk": doubt.shrunk,
        "disagrees": doubt.chutes_are_missing,
        "no_bounties": doubt.bounties_of_chutes_are_gone,
    },
    evidence=(ACTIVE_INSTANCES, CHUTE_METRICS),
)
SERVERS = Feed("servers", e.SERVERS, 115.0, 900.0)
NODES = Feed(
    "nodes",
    e.NODES,
    115.0,
    900.0,
    checks={"shrunk": doubt.shrunk, "disagrees": doubt.gpus_are_missing},
    evidence=(SERVERS,),
)
INVENTORY = Feed("inventory", e.INVENTORY, 55.0, 600.0)
INSTANCES = Feed(
    "instances",
    e.INSTANCES,
    55.0,
    600.0,
    checks={"shrunk": doubt.shrunk, "disagrees": doubt.instances_are_missing},
    evidence=(INVENTORY,),
)
IMAGES = Feed("images", e.IMAGES, 900.0, HOUR)
# No jobs and a failed query look the same, and nothing tells them apart. So a second answer must confirm that all are
# gone.
JOBS = Feed("jobs", e.JOBS, 300.0, 1800.0)
# A new miner has no history yet.
UNIQUE_CHUTE_HISTORY = Feed(
    "unique_chute_history",
    e.UNIQUE_CHUTE_HISTORY,
    900.0,
    7200.0,
    changes="hourly",
    value_if_404=[],
    checks={"no_history": doubt.history_is_gone},
)
UTILIZATION = Feed(
    "utilization",
    e.UTILIZATION,
    115.0,
    900.0,
    changes="counts live, the rest every 2 minutes",
    optional=True,
    checks={"shrunk": doubt.shrunk, "no_demand": lambda _old, new: load_is_unknown(new.value)},
)
BOUNTIES = Feed(
    "bounties",
    e.BOUNTIES,
    115.0,
    900.0,
    optional=True,
    checks={"no_bounties": doubt.bounties_are_gone},
    evidence=(CHUTES,),
)
ROLLING_UPDATES = Feed("rolling_updates", e.ROLLING_UPDATES, 300.0, 1800.0, optional=True, checks={})
MAINTENANCE = Feed("maintenance", e.MAINTENANCE, 300.0, 1800.0, optional=True, checks={})
HELD_GPUS = Feed(
    "held_gpus",
    e.HELD_GPUS,
    900.0,
    HOUR,
    optional=True,
    checks={"shrunk": doubt.shrunk, "disagrees": doubt.held_gpus_are_missing},
    evidence=(ACTIVE_INSTANCES,),
)
MINER_GPUS = Feed("miner_gpus", e.MINER_GPUS, 300.0, 1800.0, optional=True, checks={})
SUPPORTED_GPUS = Feed("supported_gpus", e.SUPPORTED_GPUS, DAY, 7 * DAY, changes="by hand", optional=True, checks={})
TEE_MEASUREMENTS = Feed("tee_measurements", e.TEE_MEASUREMENTS, HOUR, DAY, changes="by hand", optional=True, checks={})
PLATFORM_GPUS = Feed("platform_gpus", e.PLATFORM_GPUS, 300.0, 1800.0, optional=True, checks={})
# The report of an hour is made a minute after its end. While it is late, the list of reports is requested every minute.
AUDIT_REPORT = Feed(
    "audit_report",
    e.AUDIT_REPORT,
    55.0,
    3 * HOUR,
    changes="hourly",
    due=lambda report: report.end + 3690.0,
    optional=True,
    checks={},
)

FEEDS: tuple[Feed[Any], ...] = tuple(value for value in [*globals().values()] if isinstance(value, Feed))
"""All of the above."""

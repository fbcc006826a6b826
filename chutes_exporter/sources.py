"""Which questions the exporter asks the API, and how fresh it keeps each answer: one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from chutes_exporter.api import endpoints as e
from chutes_exporter.api import records as r
from chutes_exporter.feeds import Policy

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Source(Generic[T]):
    """A question to the API that collectors build on.

    Attributes:
        name: Its name in metrics: the endpoint's, or longer where an endpoint is asked in two ways.
        endpoint: What is asked.
        policy: How fresh the answer is kept.
        per_chute: Whether stats are asked for each chute.
        none: What the answer is where the API knows none (404); an error when None.
    """

    name: str
    endpoint: e.Endpoint[T]
    policy: Policy
    per_chute: bool = False
    none: T | None = None


# Times to live stay below a minute for what a miner acts on, so that every scrape of the usual one-minute interval
# brings a new answer; what the service itself refreshes more slowly is asked less often.
_OWN = Policy(ttl=45, max_age=600)
_EARNINGS = Policy(ttl=55, max_age=900)
_CACHED_UPSTREAM = Policy(ttl=115, max_age=900)  # /miner/metrics/ itself is cached for 120 s
_SLOW = Policy(ttl=240, max_age=3600)  # the metagraph is synced every few minutes; chutes are many MB
_HOURLY = Policy(ttl=900, max_age=7200)  # a point an hour

METAGRAPH: Source[list[r.MetagraphNode]] = Source("metagraph", e.METAGRAPH, _SLOW)
SCORES: Source[r.Scores] = Source("scores", e.SCORES, _EARNINGS)
STATS: Source[r.Stats] = Source("stats", e.STATS, _EARNINGS)
STATS_PER_CHUTE: Source[r.Stats] = Source("stats_per_chute", e.STATS, _EARNINGS, per_chute=True)
METRICS: Source[list[r.ChuteMetrics]] = Source("metrics", e.METRICS, _CACHED_UPSTREAM)
CHUTES: Source[list[r.Chute]] = Source("chutes", e.CHUTES, _SLOW)
SERVERS: Source[list[r.Server]] = Source("servers", e.SERVERS, _OWN)
NODES: Source[list[r.Node]] = Source("nodes", e.NODES, _OWN)
INVENTORY: Source[list[r.InventoryItem]] = Source("inventory", e.INVENTORY, _OWN)
INSTANCES: Source[list[r.Instance]] = Source("instances", e.INSTANCES, _OWN)
IMAGES: Source[list[r.Image]] = Source("images", e.IMAGES, _SLOW)
JOBS: Source[list[r.Job]] = Source("jobs", e.JOBS, _OWN)
ACTIVE_INSTANCES: Source[list[r.ActiveInstance]] = Source("active_instances", e.ACTIVE_INSTANCES, _EARNINGS)
THRASH_COOLDOWNS: Source[list[r.ThrashCooldown]] = Source("thrash_cooldowns", e.THRASH_COOLDOWNS, _OWN)
# A miner that is new has no history yet, which is no failure.
UNIQUE_CHUTE_HISTORY: Source[list[r.HistoryPoint]] = Source(
    "unique_chute_history", e.UNIQUE_CHUTE_HISTORY, _HOURLY, none=[]
)

SOURCES: tuple[Source[Any], ...] = (
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
)

AnySource = Source[Any]

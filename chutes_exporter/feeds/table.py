"""Which questions the exporter asks the API, and how fresh it keeps each answer: one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from chutes_exporter.api import endpoints as e
from chutes_exporter.api import records as r
from chutes_exporter.feeds import doubt
from chutes_exporter.feeds.cache import Policy

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Source(Generic[T]):
    """A question to the API that collectors build on.

    Attributes:
        name: Its name in metrics: the endpoint's, or longer where an endpoint is asked in two ways.
        endpoint: What is asked.
        policy: How fresh the answer is kept.
        changes: How often the service changes the answer, in words.
        per_chute: Whether stats are asked for each chute.
        none: What the answer is where the API knows none (404); an error when None.
        doubts: Reasons for which an answer can be doubted.
        check: Finds such a reason, besides a list that shrinks.
        evidence: The sources that the check compares the answer with.
    """

    name: str
    endpoint: e.Endpoint[T]
    policy: Policy
    changes: str
    per_chute: bool = False
    none: T | None = None
    doubts: tuple[doubt.Reason, ...] = ("shrunk",)
    check: doubt.Check[T] | None = None
    evidence: tuple[Source[Any], ...] = ()


# A time to live never exceeds what users notice, and is never much shorter than the service's own refresh period.
# docs/metrics.md has both. What a miner acts on is asked at every scrape of the usual interval of one minute.
_LIVE = Policy(ttl=55, max_age=600)
_INVENTORY = Policy(ttl=115, max_age=900)  # servers and GPUs change when a miner works on them
_PLATFORM = Policy(ttl=115, max_age=900)  # /miner/metrics/ itself is cached for 120 s
_METAGRAPH = Policy(ttl=175, max_age=3600)  # synced every 3 minutes
_CACHED = Policy(ttl=300, max_age=1800)  # stats and scores are computed every 10 minutes
_HEAVY = Policy(ttl=600, max_age=3600)  # chutes are many MB; the autoscaler changes them every 20 to 30 minutes
_HOURLY = Policy(ttl=900, max_age=7200)  # a point an hour

METAGRAPH: Source[list[r.MetagraphNode]] = Source("metagraph", e.METAGRAPH, _METAGRAPH, "every 3 minutes")
SCORES: Source[r.Scores] = Source("scores", e.SCORES, _CACHED, "every 10 minutes", doubts=())
STATS: Source[r.Stats] = Source("stats", e.STATS, _CACHED, "every 10 minutes", doubts=())
STATS_PER_CHUTE: Source[r.Stats] = Source(
    "stats_per_chute", e.STATS, _CACHED, "every 10 minutes", per_chute=True, doubts=()
)
METRICS: Source[list[r.ChuteMetrics]] = Source(
    "metrics", e.METRICS, _PLATFORM, "every 2 minutes", doubts=("shrunk", "no_demand"), check=doubt.of_metrics
)
SERVERS: Source[list[r.Server]] = Source("servers", e.SERVERS, _INVENTORY, "live")
NODES: Source[list[r.Node]] = Source(
    "nodes", e.NODES, _INVENTORY, "live", doubts=("shrunk", "disagrees"), check=doubt.of_nodes, evidence=(SERVERS,)
)
INVENTORY: Source[list[r.InventoryItem]] = Source("inventory", e.INVENTORY, _LIVE, "live")
INSTANCES: Source[list[r.Instance]] = Source(
    "instances",
    e.INSTANCES,
    _LIVE,
    "live",
    doubts=("shrunk", "disagrees"),
    check=doubt.of_instances,
    evidence=(INVENTORY,),
)
IMAGES: Source[list[r.Image]] = Source("images", e.IMAGES, _HEAVY, "live")
JOBS: Source[list[r.Job]] = Source("jobs", e.JOBS, _PLATFORM, "live")
ACTIVE_INSTANCES: Source[list[r.ActiveInstance]] = Source("active_instances", e.ACTIVE_INSTANCES, _PLATFORM, "live")
CHUTES: Source[list[r.Chute]] = Source(
    "chutes",
    e.CHUTES,
    _HEAVY,
    "live",
    doubts=("shrunk", "disagrees", "no_bounties"),
    check=doubt.of_chutes,
    evidence=(ACTIVE_INSTANCES, METRICS),
)
THRASH_COOLDOWNS: Source[list[r.ThrashCooldown]] = Source(
    "thrash_cooldowns", e.THRASH_COOLDOWNS, _HOURLY, "never since May 2026"
)
# A miner that is new has no history yet, which is no failure.
UNIQUE_CHUTE_HISTORY: Source[list[r.HistoryPoint]] = Source(
    "unique_chute_history", e.UNIQUE_CHUTE_HISTORY, _HOURLY, "hourly", none=[], doubts=("no_history",)
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

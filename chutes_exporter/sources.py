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
    """

    name: str
    endpoint: e.Endpoint[T]
    policy: Policy
    per_chute: bool = False

    @property
    def of_signer(self) -> bool:
        """Whether each watched hotkey with a key has an answer of its own."""
        return self.endpoint.scope == "signer"


# Times to live stay below a minute for what a miner acts on, so that every scrape of the usual one-minute interval
# brings a new answer; what the service itself refreshes more slowly is asked less often.
_OWN = Policy(ttl=45, max_age=600)
_EARNINGS = Policy(ttl=55, max_age=900)
_CACHED_UPSTREAM = Policy(ttl=115, max_age=900)  # /miner/metrics/ itself is cached for 120 s
_SLOW = Policy(ttl=240, max_age=3600)  # the metagraph is synced every few minutes; chutes are many MB

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

AnySource = Source[Any]

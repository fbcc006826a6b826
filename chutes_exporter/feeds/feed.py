"""What a feed is, and what reading it gives."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from typing import Self

    from chutes_exporter.api.client import Answer
    from chutes_exporter.api.endpoints import Endpoint
    from chutes_exporter.feeds.doubt import Check, Reason

T = TypeVar("T")

Result = Literal["hit", "miss", "coalesced", "stale", "failed"]
"""How a reading came: from the cache, by its own request, by waiting for a request under way, as older data because
nothing newer is there, or not at all."""
RESULTS: tuple[Result, ...] = ("hit", "miss", "coalesced", "stale", "failed")


class MissingEndpointError(Exception):
    """The deployment does not have the endpoint of an optional feed.

    Attributes:
        retry_in: Seconds after which to ask again: the service may be updated meanwhile.
    """

    reason = "missing"
    retry_in = 3600.0


@dataclass(frozen=True)
class Feed(Generic[T]):
    """A question that the exporter keeps an answer of. Feeds with the same name and hotkey are equal.

    Attributes:
        name: Its name in metrics and flags: the endpoint's, or longer where an endpoint is asked in two ways.
        hotkey: The miner whose answer it is; empty for the platform's.
        endpoint: Which endpoint is asked.
        ttl: Seconds for which an answer is fresh.
        max_age: Seconds after which an answer is dropped.
        changes: How often the service changes the answer, in words.
        per_chute: Whether stats are asked for each chute.
        none: The answer where the API returns 404; an error when None.
        optional: Whether a deployment may lack the endpoint. A 404 then switches the feed off.
        doubts: Reasons for which an answer can be doubted.
        check: Finds such a reason, besides a list that shrinks.
        evidence: Feeds that the check compares the answer with.
    """

    name: str
    endpoint: Endpoint[T] = field(compare=False)
    ttl: float = field(compare=False)
    max_age: float = field(compare=False)
    changes: str = field(compare=False)
    hotkey: str = ""
    per_chute: bool = field(default=False, compare=False)
    none: T | None = field(default=None, compare=False)
    optional: bool = field(default=False, compare=False)
    doubts: tuple[Reason, ...] = field(default=("shrunk",), compare=False)
    check: Check[T] | None = field(default=None, compare=False)
    evidence: tuple[Feed[Any], ...] = field(default=(), compare=False)

    def of(self, hotkey: str) -> Self:
        """Return the feed of one miner."""
        return replace(self, hotkey=hotkey)

    def kept(self, ttl: float, max_age: float) -> Self:
        """Return the feed with other bounds of freshness."""
        return replace(self, ttl=ttl, max_age=max_age)


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """A good answer, with the time at which it was asked for: nothing in it is older.

    Attributes:
        answer: The answer.
        version: Differs for every answer of the process: derived data can be kept under it.
        at: Unix time at which it was asked for.
        asked: The same on the monotonic clock.
    """

    answer: Answer[T]
    version: int
    at: float
    asked: float


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """What a feed gives a scrape.

    Attributes:
        snapshot: The newest good answer within its maximum age, or None.
        result: How it came.
        error: Why it is not fresh, or None where it is.
        seconds: How long the scrape waited for it.
    """

    snapshot: Snapshot[T] | None
    result: Result
    error: BaseException | None = None
    seconds: float = 0.0

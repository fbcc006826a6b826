"""Freshness: what was asked lately is not asked again, and what is old is never passed off as new.

A feed is one question to the upstream. It knows no endpoint and no metric: callers bring a key, a way to ask and a
policy. For each key there is at most one request under way (single flight); an answer serves everybody until its time
to live is over; after a failure the last answer serves until its bound of staleness, and the upstream is left alone
for a while.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import cachetools

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterator

T = TypeVar("T")

Result = Literal["hit", "miss", "joined", "stale", "failed"]
"""How a reading came about: from the cache, by a request of its own, by joining one under way, old data because
nothing newer is there, or nothing at all."""
RESULTS: tuple[Result, ...] = ("hit", "miss", "joined", "stale", "failed")

_FIRST_BACKOFF = 5.0
_MAX_BACKOFF = 120.0
_MAX_RETRY_AFTER = 3600.0
_MAX_FEEDS = 4096


@dataclass(frozen=True, slots=True)
class Policy:
    """How fresh a feed is kept.

    Attributes:
        ttl: Seconds for which an answer is fresh.
        max_age: Seconds after which an answer is dropped.
    """

    ttl: float
    max_age: float


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """A good answer.

    Attributes:
        value: What was answered.
        version: Differs for every answer of the process: what is derived from it can be kept under it.
        at: Unix time at which it was complete.
    """

    value: T
    version: int
    at: float


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """What a feed can say now.

    Attributes:
        snapshot: The newest good answer inside its bound of staleness, or None.
        result: How it came about.
        error: Why it is not fresh, or None where it is.
    """

    snapshot: Snapshot[T] | None
    result: Result
    error: BaseException | None = None


@dataclass(slots=True)
class Feed:
    """What is known of a feed.

    Attributes:
        policy: How fresh it is kept.
        up: Whether its last request succeeded; None before any ended.
        last_success: Unix time of the newest good answer, or None.
        last_error: Why the last request failed, or None where it did not.
        results: How often each way of reading it happened.
        failures: Requests that failed in a row.
    """

    policy: Policy
    up: bool | None = None
    last_success: float | None = None
    last_error: BaseException | None = None
    failures: int = 0
    results: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(RESULTS, 0))
    fresh_until: float = 0.0  # monotonic
    closed_until: float = 0.0  # monotonic: backing off


class DeadlineError(Exception):
    """The answer did not come by the time the caller had to go on; the request itself does."""


class Feeds:
    """All feeds of the process.

    Args:
        monotonic: A clock that never jumps, in seconds, for ages.
        clock: Unix time in seconds, for timestamps.
        jitter: Returns a number from 0 to 1 that spreads retries.
        on_change: Is told, with the feed's key and state, when a feed goes down and when it comes up again.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        on_change: Callable[[Hashable, Feed], None] | None = None,
    ) -> None:
        self._monotonic = monotonic
        self._clock = clock
        self._jitter = jitter
        self._on_change = on_change
        self._version = 0
        self._feeds: cachetools.LRUCache[Hashable, Feed] = cachetools.LRUCache(_MAX_FEEDS)
        # Drops each answer at its own bound of staleness, so that nothing older can ever be served.
        self._snapshots: cachetools.TLRUCache[Hashable, Snapshot[Any]] = cachetools.TLRUCache(
            _MAX_FEEDS, ttu=self._expiry, timer=monotonic
        )
        self._flights: dict[Hashable, asyncio.Task[None]] = {}

    def _expiry(self, key: Hashable, _snapshot: Snapshot[Any], now: float) -> float:
        return now + self._feeds[key].policy.max_age

    def items(self) -> Iterator[tuple[Hashable, Feed]]:
        """Return every feed that was ever read, by its key."""
        return iter(list(self._feeds.items()))

    def peek(self, key: Hashable) -> Snapshot[Any] | None:
        """Return a feed's newest good answer inside its bound of staleness, without asking for anything."""
        return self._snapshots.get(key)

    async def read(
        self, key: Hashable, ask: Callable[[], Awaitable[T]], policy: Policy, *, timeout: float
    ) -> Reading[T]:
        """Return the feed's answer, asking for it where it is not fresh.

        Cancelling the caller cancels no request: others may wait for it, and its answer is good for the next.

        Args:
            key: Which feed.
            ask: Asks the upstream; what it raises is the reading's error. An error's ``retry_after`` in seconds
                is obeyed.
            policy: How fresh the feed is kept.
            timeout: Seconds to wait at most.
        """
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(policy)
        feed.policy = policy
        reading = await self._read(key, feed, ask, timeout)
        feed.results[reading.result] += 1
        return reading

    async def _read(self, key: Hashable, feed: Feed, ask: Callable[[], Awaitable[T]], timeout: float) -> Reading[T]:
        now = self._monotonic()
        snapshot: Snapshot[T] | None = self._snapshots.get(key)
        if snapshot is not None and now < feed.fresh_until:
            return Reading(snapshot, "hit")
        flight = self._flights.get(key)
        result: Result = "joined"
        if flight is None:
            if now < feed.closed_until:
                return self._old(key, feed.last_error)
            result = "miss"
            flight = asyncio.create_task(self._fly(key, feed, ask))
            self._flights[key] = flight
        # Unlike wait_for, wait cancels nothing when it times out or is itself cancelled.
        await asyncio.wait({flight}, timeout=timeout)
        if not flight.done():
            return self._old(key, DeadlineError("no answer yet"))
        if flight.cancelled():
            return self._old(key, DeadlineError("the request was given up"))
        snapshot = self._snapshots.get(key)
        if snapshot is None or feed.last_error is not None:
            return self._old(key, feed.last_error)
        return Reading(snapshot, result)

    def _old(self, key: Hashable, error: BaseException | None) -> Reading[Any]:
        snapshot = self._snapshots.get(key)
        return Reading(snapshot, "failed" if snapshot is None else "stale", error)

    async def _fly(self, key: Hashable, feed: Feed, ask: Callable[[], Awaitable[T]]) -> None:
        before = feed.up
        try:
            value = await ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, the feed failed and says so
            feed.up = False
            feed.last_error = error
            feed.failures += 1
            feed.closed_until = self._monotonic() + self._backoff(feed.failures, error)
        else:
            self._version += 1
            feed.up = True
            feed.last_error = None
            feed.failures = 0
            feed.last_success = self._clock()
            feed.fresh_until = self._monotonic() + feed.policy.ttl
            self._feeds[key] = feed
            self._snapshots[key] = Snapshot(value, self._version, feed.last_success)
        finally:
            del self._flights[key]
        if self._on_change is not None and feed.up is not before and not (before is None and feed.up):
            self._on_change(key, feed)

    def _backoff(self, failures: int, error: Exception) -> float:
        """Return the seconds to leave the upstream alone: doubling, spread, and never less than it asks for."""
        delay: float = min(_FIRST_BACKOFF * 2.0 ** min(failures - 1, 10), _MAX_BACKOFF)
        delay *= 0.5 + self._jitter() / 2
        asked: float = getattr(error, "retry_after", None) or 0.0
        return max(delay, min(asked, _MAX_RETRY_AFTER))

    async def aclose(self) -> None:
        """Give up the requests under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

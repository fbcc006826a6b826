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
    from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator

T = TypeVar("T")

Result = Literal["hit", "miss", "joined", "stale", "failed"]
"""How a reading came about: from the cache, by a request of its own, by joining one under way, old data because
nothing newer is there, or nothing at all."""
RESULTS: tuple[Result, ...] = ("hit", "miss", "joined", "stale", "failed")

_FIRST_BACKOFF = 5.0
_MAX_BACKOFF = 120.0
_MAX_RETRY_AFTER = 24 * 3600.0
_MAX_FEEDS = 8192
_REMEMBERED_SECONDS = 900.0


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

    Its age counts from when it was asked for: nothing in it is older, while its end may have come much later.

    Attributes:
        value: What was answered.
        version: Differs for every answer of the process: what is derived from it can be kept under it.
        at: Unix time at which it was asked for.
        asked: The same on the monotonic clock.
    """

    value: T
    version: int
    at: float
    asked: float


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
        last_success: Unix time at which the newest good answer was asked for, or None.
        last_error: Why the last request failed, or None where it did not.
        last_failure: The newest failure, even where all is well again: its Unix time, and why.
        results: How often each way of reading it happened.
        failures: Requests that failed in a row.
    """

    policy: Policy
    up: bool | None = None
    last_success: float | None = None
    last_error: BaseException | None = None
    last_failure: tuple[float, BaseException] | None = None
    failures: int = 0
    results: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(RESULTS, 0))
    read_at: float = 0.0  # monotonic, as those below
    fresh_until: float = 0.0
    closed_until: float = 0.0  # backing off


class DeadlineError(Exception):
    """The answer did not come by the time the caller had to go on; the request itself does."""


def steady() -> float:
    """Return the seconds since some fixed moment, on a clock that never jumps and goes on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()  # pragma: no cover - not on Linux


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
        monotonic: Callable[[], float] = steady,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        on_change: Callable[[Hashable, Feed], None] | None = None,
    ) -> None:
        self._monotonic = monotonic
        self._clock = clock
        self._jitter = jitter
        self._on_change = on_change
        self._version = 0
        self._feeds: dict[Hashable, Feed] = {}
        # Drops each answer at its own bound of staleness, so that nothing older can ever be served.
        self._snapshots: cachetools.TLRUCache[Hashable, Snapshot[Any]] = cachetools.TLRUCache(
            _MAX_FEEDS, ttu=self._expiry, timer=monotonic
        )
        self._flights: dict[Hashable, asyncio.Task[None]] = {}
        self._closed_groups: cachetools.TLRUCache[Hashable, tuple[float, Exception]] = cachetools.TLRUCache(
            _MAX_FEEDS, ttu=lambda _group, closed, _now: closed[0], timer=monotonic
        )
        self._hurried: asyncio.Future[None] | None = None

    def _expiry(self, key: Hashable, snapshot: Snapshot[Any], _now: float) -> float:
        return snapshot.asked + self._feeds[key].policy.max_age

    def items(self) -> Iterator[tuple[Hashable, Feed]]:
        """Return every feed that is known, by its key: those that were read lately.

        One that nobody has read for longer than its data is kept, and for a quarter of an hour, is forgotten: it
        would only look old.
        """
        now = self._monotonic()
        unread = [
            key
            for key, feed in self._feeds.items()
            if now - feed.read_at > max(feed.policy.max_age, _REMEMBERED_SECONDS) and key not in self._flights
        ]
        self.forget(unread)
        return iter(list(self._feeds.items()))

    def peek(self, key: Hashable) -> Snapshot[Any] | None:
        """Return a feed's newest good answer inside its bound of staleness, without asking for anything."""
        return self._snapshots.get(key)

    def hit(self, key: Hashable) -> Reading[Any] | None:
        """Read a feed whose answer is fresh; None where somebody must be asked."""
        feed, snapshot = self._feeds.get(key), self._snapshots.get(key)
        now = self._monotonic()
        if feed is None or snapshot is None or now >= feed.fresh_until:
            return None
        feed.read_at = now
        feed.results["hit"] += 1
        return Reading(snapshot, "hit")

    def expire(self, key: Hashable) -> None:
        """Let the next reading of a feed ask, however fresh its answer is."""
        if (feed := self._feeds.get(key)) is not None:
            feed.fresh_until = 0.0

    def under_way(self, key: Hashable) -> bool:
        """Tell whether a request for the feed is under way."""
        return key in self._flights

    def opens_at(self, feed: Feed) -> float:
        """Return in how many seconds a reading would ask again; 0 or less when the next one does."""
        return max(feed.fresh_until, feed.closed_until) - self._monotonic()

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Forget feeds that nobody will read again; a request under way ends unseen."""
        for key in keys:
            self._feeds.pop(key, None)
            self._snapshots.pop(key, None)

    def hurry(self) -> None:
        """Let nobody wait any longer, now or later: every reading is what is known already."""
        if self._hurried is None:
            self._hurried = asyncio.get_running_loop().create_future()
        if not self._hurried.done():
            self._hurried.set_result(None)

    async def read(
        self,
        key: Hashable,
        ask: Callable[[], Awaitable[T]],
        policy: Policy,
        *,
        timeout: float,
        group: Hashable = None,
    ) -> Reading[T]:
        """Return the feed's answer, asking for it where it is not fresh.

        Cancelling the caller cancels no request: others may wait for it, and its answer is good for the next.

        Args:
            key: Which feed.
            ask: Asks the upstream; what it raises is the reading's error. An error's ``retry_after`` in seconds
                is obeyed for the whole group, its ``retry_in`` for this feed.
            policy: How fresh the feed is kept.
            timeout: Seconds to wait at most.
            group: Feeds that the upstream takes for one: where it asks one of them to wait, all of them do.
        """
        if (known := self.hit(key)) is not None:
            return known
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(policy)
        feed.policy, feed.read_at = policy, self._monotonic()
        reading = await self._read(key, feed, ask, timeout, group)
        feed.results[reading.result] += 1
        return reading

    async def _read(
        self, key: Hashable, feed: Feed, ask: Callable[[], Awaitable[T]], timeout: float, group: Hashable
    ) -> Reading[T]:
        flight = self._flights.get(key)
        result: Result = "joined"
        if flight is None:
            if (closed := self._closed(feed, group)) is not None:
                return self._old(key, closed)
            result = "miss"
            flight = asyncio.create_task(self._fly(key, feed, ask, group))
            self._flights[key] = flight
        if self._hurried is None:
            self._hurried = asyncio.get_running_loop().create_future()
        # Unlike wait_for, wait cancels nothing when it times out or is itself cancelled.
        await asyncio.wait({flight, self._hurried}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not flight.done() or flight.cancelled():
            return self._old(key, DeadlineError("no answer yet"))
        snapshot: Snapshot[T] | None = self._snapshots.get(key)
        if snapshot is None or feed.last_error is not None:
            return self._old(key, feed.last_error)
        return Reading(snapshot, result)

    def _closed(self, feed: Feed, group: Hashable) -> BaseException | None:
        """Say why the upstream is not asked now, or nothing where it may be."""
        if self._monotonic() < feed.closed_until:
            return feed.last_error
        if self._hurried is not None and self._hurried.done():
            return DeadlineError("nothing is asked any more")
        closed = self._closed_groups.get(group)
        return None if closed is None else closed[1]

    def _old(self, key: Hashable, error: BaseException | None) -> Reading[Any]:
        snapshot = self._snapshots.get(key)
        return Reading(snapshot, "failed" if snapshot is None else "stale", error)

    async def _fly(self, key: Hashable, feed: Feed, ask: Callable[[], Awaitable[T]], group: Hashable) -> None:
        before = feed.up
        at, asked = self._clock(), self._monotonic()
        try:
            value = await ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, the feed failed and says so
            feed.up = False
            feed.last_error = error
            feed.last_failure = self._clock(), error
            feed.failures += 1
            wait = getattr(error, "retry_after", None) or 0.0
            delay = max(self._backoff(feed.failures), min(wait, _MAX_RETRY_AFTER), getattr(error, "retry_in", 0.0))
            feed.closed_until = self._monotonic() + delay
            if wait and group is not None:
                self._closed_groups[group] = feed.closed_until, error
        else:
            self._version += 1
            feed.up = True
            feed.last_error = None
            feed.failures = 0
            feed.last_success = at
            feed.fresh_until = asked + feed.policy.ttl
            if self._feeds.get(key) is feed:
                self._snapshots[key] = Snapshot(value, self._version, at, asked)
        finally:
            del self._flights[key]
        if self._on_change is not None and feed.up is not before and not (before is None and feed.up):
            self._on_change(key, feed)

    def _backoff(self, failures: int) -> float:
        """Return the seconds to leave the upstream alone: doubling, and spread."""
        delay: float = min(_FIRST_BACKOFF * 2.0 ** min(failures - 1, 10), _MAX_BACKOFF)
        return delay * (0.5 + self._jitter() / 2)

    async def aclose(self) -> None:
        """Give up the requests under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

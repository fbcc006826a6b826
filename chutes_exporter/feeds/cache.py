"""The cache of feeds.

Each feed has at most one request in flight. Its answer serves all readers until the time to live is over. After a
failure, the last answer serves until its maximum age, and the cache backs off.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import cachetools

from chutes_exporter.feeds.feed import RESULTS, Feed, MissingEndpointError, Reading, Result, Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from chutes_exporter.api.client import Answer
    from chutes_exporter.api.endpoints import Endpoint

T = TypeVar("T")

_FIRST_BACKOFF = 5.0
_MAX_BACKOFF = 120.0
_MAX_RETRY_AFTER = 24 * 3600.0
_MAX_FEEDS = 8192
_REMEMBERED_SECONDS = 900.0


@dataclass(slots=True)
class FeedState:
    """The state of a feed.

    Attributes:
        feed: The feed.
        up: Whether its last request succeeded. None until the first request ends, and while the endpoint is missing.
        last_success: Unix time at which the newest good answer was requested, or None.
        last_error: Error of the last request, or None if it succeeded.
        last_failure: Unix time and error of the newest failure, even if a request succeeded since.
        since: Unix time from which readings are counted.
        results: Number of readings by result.
        failures: Number of failed requests in a row.
    """

    feed: Feed[Any]
    up: bool | None = None
    last_success: float | None = None
    last_error: BaseException | None = None
    last_failure: tuple[float, BaseException] | None = None
    failures: int = 0
    since: float = 0.0
    results: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(RESULTS, 0))
    # Monotonic times. The cache backs off until closed_until.
    read_at: float = 0.0
    fresh_until: float = 0.0
    closed_until: float = 0.0
    # Kept until a reading finds it old. The cache of snapshots takes ten times as long to look up.
    fresh: Reading[Any] | None = None

    @property
    def missing(self) -> bool:
        """Whether the feed is off because the deployment does not have its endpoint."""
        return isinstance(self.last_error, MissingEndpointError)


class DeadlineError(Exception):
    """The answer did not arrive before the reader's deadline. The request continues."""


def steady() -> float:
    """Return the time in seconds of a monotonic clock that also runs while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()  # pragma: no cover - not on Linux


class FeedCache:
    """All feeds of the process.

    Args:
        ask: Requests a feed from the API. Its exception becomes the reading's error. ``retry_after`` of the exception
            delays all feeds of the endpoint, ``retry_in`` delays this feed, both in seconds.
        monotonic: A monotonic clock in seconds, for ages.
        clock: Unix time in seconds, for timestamps.
        jitter: Returns a number from 0 to 1 that spreads retries.
        on_change: Called with a feed's state when the feed goes down, misses its endpoint, or comes back.
    """

    def __init__(
        self,
        ask: Callable[[Feed[Any]], Awaitable[Answer[Any]]],
        *,
        monotonic: Callable[[], float] = steady,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        on_change: Callable[[FeedState], None] | None = None,
    ) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._clock = clock
        self._jitter = jitter
        self._on_change = on_change
        self._version = 0
        self._states: dict[Feed[Any], FeedState] = {}
        # Drops each answer at its maximum age.
        self._snapshots: cachetools.TLRUCache[Feed[Any], Snapshot[Any]] = cachetools.TLRUCache(
            _MAX_FEEDS, ttu=self._expiry, timer=monotonic
        )
        self._flights: dict[Feed[Any], asyncio.Task[None]] = {}
        self._closed_endpoints: cachetools.TLRUCache[Endpoint[Any], tuple[float, Exception]] = cachetools.TLRUCache(
            _MAX_FEEDS, ttu=lambda _endpoint, closed, _now: closed[0], timer=monotonic
        )
        self._hurried: asyncio.Future[None] | None = None

    def _expiry(self, feed: Feed[Any], snapshot: Snapshot[Any], _now: float) -> float:
        return snapshot.monotonic_at + self._states[feed].feed.max_age

    def states(self) -> list[FeedState]:
        """Return the state of every feed.

        A feed is forgotten if it was not read for its maximum age and for 15 minutes. Otherwise it would look stale.
        """
        now = self._monotonic()
        self.forget(
            feed
            for feed, state in list(self._states.items())
            if now - state.read_at > max(state.feed.max_age, _REMEMBERED_SECONDS) and feed not in self._flights
        )
        return list(self._states.values())

    def peek(self, feed: Feed[T]) -> Snapshot[T] | None:
        """Return a feed's newest good answer within its maximum age, without a request."""
        return self._snapshots.get(feed)

    def known(self, feed: Feed[T]) -> Reading[T] | None:
        """Read a feed whose answer is fresh, or that backs off. Return None if a request is necessary."""
        state = self._states.get(feed)
        if state is None:
            return None
        now = self._monotonic()
        if state.fresh is not None and now >= state.fresh_until:
            state.fresh = None
        reading: Reading[T] | None = state.fresh
        if reading is None:
            if now >= state.closed_until or feed in self._flights:
                return None
            reading = self._old(feed, state.last_error)
        state.read_at = now
        if not state.missing:
            state.results[reading.result] += 1
        return reading

    def expire(self, feed: Feed[Any]) -> None:
        """Make the next reading of a feed send a request, even if its answer is fresh."""
        if (state := self._states.get(feed)) is not None:
            state.fresh_until = 0.0

    def ask_missing_again(self) -> None:
        """Let the next reading of each feed whose endpoint was missing ask for it."""
        for state in self._states.values():
            if state.missing:
                state.closed_until = 0.0

    def under_way(self, feed: Feed[Any]) -> bool:
        """Return whether a request for the feed is in flight."""
        return feed in self._flights

    def seconds_to_next_request(self, state: FeedState) -> float:
        """Return the seconds until a reading would send a request. 0 or less means now."""
        return max(state.fresh_until, state.closed_until) - self._monotonic()

    def forget(self, feeds: Iterable[Feed[Any]]) -> None:
        """Forget feeds, and cancel their requests in flight."""
        for feed in feeds:
            self._states.pop(feed, None)
            self._snapshots.pop(feed, None)
            if (flight := self._flights.pop(feed, None)) is not None:
                flight.cancel()

    def hurry(self) -> None:
        """Stop waiting, now and in the future. All readings return at once with the known answers."""
        if self._hurried is None:
            self._hurried = asyncio.get_running_loop().create_future()
        if not self._hurried.done():
            self._hurried.set_result(None)

    async def read(self, feed: Feed[T], timeout: float) -> Reading[T]:
        """Return the feed's answer, and request it first if it is not fresh.

        Cancelling the caller does not cancel the request, because other readers may need its answer.

        Args:
            feed: The feed.
            timeout: Maximum seconds to wait.
        """
        if (known := self.known(feed)) is not None:
            return known
        started = time.monotonic()
        state = self._states.setdefault(feed, FeedState(feed, since=self._clock()))
        state.feed, state.read_at = feed, self._monotonic()
        reading = await self._read(feed, state, timeout)
        if not state.missing:
            state.results[reading.result] += 1
        return replace(reading, seconds=time.monotonic() - started)

    async def _read(self, feed: Feed[T], state: FeedState, timeout: float) -> Reading[T]:
        flight = self._flights.get(feed)
        result: Result = "coalesced"
        if flight is None:
            if (reason := self._reason_not_to_ask(state)) is not None:
                return self._old(feed, reason)
            result = "miss"
            flight = self._flights[feed] = asyncio.create_task(self._fly(feed, state))
        if self._hurried is None:
            self._hurried = asyncio.get_running_loop().create_future()
        # Unlike wait_for, wait does not cancel the request when it times out or is cancelled.
        await asyncio.wait({flight, self._hurried}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not flight.done() or flight.cancelled():
            return self._old(feed, DeadlineError("no answer yet"))
        snapshot = self.peek(feed)
        if snapshot is None or state.last_error is not None:
            return self._old(feed, state.last_error)
        return Reading(snapshot, result)

    def _reason_not_to_ask(self, state: FeedState) -> BaseException | None:
        """Return why no request may be sent now for a feed that does not back off, or None if it may."""
        if self._hurried is not None and self._hurried.done():
            return DeadlineError("the exporter is stopping and sends no requests")
        closed = self._closed_endpoints.get(state.feed.endpoint)
        return None if closed is None else closed[1]

    def _old(self, feed: Feed[T], error: BaseException | None) -> Reading[T]:
        snapshot = self.peek(feed)
        return Reading(snapshot, "failed" if snapshot is None else "stale", error)

    async def _fly(self, feed: Feed[Any], state: FeedState) -> None:
        before = state.up, state.missing
        at, monotonic_at = self._clock(), self._monotonic()
        try:
            answer = await self._ask(feed)
        except Exception as error:  # noqa: BLE001 - the feed reports every failure
            self._fail(state, error)
        else:
            self._version += 1
            state.up = True
            state.last_error = None
            state.failures = 0
            state.last_success = at
            state.fresh_until = monotonic_at + feed.ttl
            self._snapshots[feed] = snapshot = Snapshot(answer, self._version, at, monotonic_at)
            state.fresh = Reading(snapshot, "hit")
            self._drop_old_readings()
        # Not if it was cancelled: a forgotten feed may have another request by now.
        del self._flights[feed]
        now = state.up, state.missing
        first_success = before == (None, False) and state.up
        if self._on_change is not None and now != before and not first_success:
            self._on_change(state)

    def _drop_old_readings(self) -> None:
        """Drop the fresh readings that have become old, as nobody may read these feeds again."""
        now = self._monotonic()
        for state in self._states.values():
            if now >= state.fresh_until:
                state.fresh = None

    def _fail(self, state: FeedState, error: Exception) -> None:
        state.last_error = error
        state.up = None if state.missing else False
        state.last_failure = self._clock(), error
        state.failures += 1
        wait = getattr(error, "retry_after", None) or 0.0
        delay = max(self._backoff(state.failures), min(wait, _MAX_RETRY_AFTER), getattr(error, "retry_in", 0.0))
        state.closed_until = self._monotonic() + delay
        if wait:
            self._closed_endpoints[state.feed.endpoint] = state.closed_until, error

    def _backoff(self, failures: int) -> float:
        """Return the seconds of an exponential back-off with jitter."""
        delay: float = min(_FIRST_BACKOFF * 2.0 ** min(failures - 1, 10), _MAX_BACKOFF)
        return delay * (0.5 + self._jitter() / 2)

    async def aclose(self) -> None:
        """Cancel the requests in flight."""
        flights = list(self._flights.values())
        self._flights.clear()
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

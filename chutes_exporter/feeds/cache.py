"""The cache of feeds: each is asked at most once per time to live, and old data is never shown as new.

For each feed at most one request is under way (single flight). An answer serves every reader until its time to live
is over. After a failure the last answer serves until its maximum age, and the cache backs off.
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
    """What the cache knows of a feed.

    Attributes:
        feed: The feed.
        up: Whether its last request succeeded; None before the first one ended, and while the endpoint is missing.
        last_success: Unix time at which the newest good answer was asked for, or None.
        last_error: Why the last request failed, or None where it did not.
        last_failure: The newest failure, also after a later success: its Unix time and the error.
        results: How many readings came in each way.
        failures: Requests that failed in a row.
    """

    feed: Feed[Any]
    up: bool | None = None
    last_success: float | None = None
    last_error: BaseException | None = None
    last_failure: tuple[float, BaseException] | None = None
    failures: int = 0
    results: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(RESULTS, 0))
    read_at: float = 0.0  # monotonic, as are the next two
    fresh_until: float = 0.0
    closed_until: float = 0.0  # backing off

    @property
    def missing(self) -> bool:
        """Whether the feed is off because the deployment does not have its endpoint."""
        return isinstance(self.last_error, MissingEndpointError)


class DeadlineError(Exception):
    """The answer did not come before the reader's deadline; the request goes on."""


def steady() -> float:
    """Return seconds on a clock that never jumps and that goes on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()  # pragma: no cover - not on Linux


class FeedCache:
    """All feeds of the process.

    Args:
        ask: Asks the API for a feed. What it raises is the reading's error. An error's ``retry_after`` in seconds is
            obeyed for all feeds of the endpoint, its ``retry_in`` for this feed.
        monotonic: A clock that never jumps, in seconds, for ages.
        clock: Unix time in seconds, for timestamps.
        jitter: Returns a number from 0 to 1 that spreads retries.
        on_change: Called with a feed's state when it goes down, when its endpoint is missing, and when it comes back.
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
        # Drops each answer at its own maximum age, so that nothing older can be served.
        self._snapshots: cachetools.TLRUCache[Feed[Any], Snapshot[Any]] = cachetools.TLRUCache(
            _MAX_FEEDS, ttu=self._expiry, timer=monotonic
        )
        self._flights: dict[Feed[Any], asyncio.Task[None]] = {}
        self._closed_endpoints: cachetools.TLRUCache[Endpoint[Any], tuple[float, Exception]] = cachetools.TLRUCache(
            _MAX_FEEDS, ttu=lambda _endpoint, closed, _now: closed[0], timer=monotonic
        )
        self._hurried: asyncio.Future[None] | None = None

    def _expiry(self, feed: Feed[Any], snapshot: Snapshot[Any], _now: float) -> float:
        return snapshot.asked + self._states[feed].feed.max_age

    def states(self) -> list[FeedState]:
        """Return what is known of every feed that was read lately.

        A feed that nobody has read for its maximum age and for a quarter of an hour is forgotten: it would only look
        old.
        """
        now = self._monotonic()
        self.forget(
            feed
            for feed, state in list(self._states.items())
            if now - state.read_at > max(state.feed.max_age, _REMEMBERED_SECONDS) and feed not in self._flights
        )
        return list(self._states.values())

    def peek(self, feed: Feed[T]) -> Snapshot[T] | None:
        """Return a feed's newest good answer within its maximum age, without asking for anything."""
        return self._snapshots.get(feed)

    def hit(self, feed: Feed[T]) -> Reading[T] | None:
        """Read a feed whose answer is fresh; None where the API must be asked."""
        state, snapshot = self._states.get(feed), self._snapshots.get(feed)
        now = self._monotonic()
        if state is None or snapshot is None or now >= state.fresh_until:
            return None
        state.read_at = now
        state.results["hit"] += 1
        return Reading(snapshot, "hit")

    def expire(self, feed: Feed[Any]) -> None:
        """Let the next reading of a feed ask, however fresh its answer is."""
        if (state := self._states.get(feed)) is not None:
            state.fresh_until = 0.0

    def ask_missing_again(self) -> None:
        """Let the next reading of each feed whose endpoint was missing ask for it."""
        for state in self._states.values():
            if state.missing:
                state.closed_until = 0.0

    def under_way(self, feed: Feed[Any]) -> bool:
        """Tell whether a request for the feed is under way."""
        return feed in self._flights

    def opens_in(self, state: FeedState) -> float:
        """Return in how many seconds a reading would ask again; 0 or less when the next one does."""
        return max(state.fresh_until, state.closed_until) - self._monotonic()

    def forget(self, feeds: Iterable[Feed[Any]]) -> None:
        """Forget feeds that nobody will read again; the result of a request under way is dropped."""
        for feed in feeds:
            self._states.pop(feed, None)
            self._snapshots.pop(feed, None)

    def hurry(self) -> None:
        """Stop waiting, now and later: every reading is what is known already."""
        if self._hurried is None:
            self._hurried = asyncio.get_running_loop().create_future()
        if not self._hurried.done():
            self._hurried.set_result(None)

    async def read(self, feed: Feed[T], timeout: float) -> Reading[T]:
        """Return the feed's answer, asking for it where it is not fresh.

        Cancelling the caller cancels no request: others may wait for it, and its answer is good for the next reader.

        Args:
            feed: The feed.
            timeout: Maximum seconds to wait.
        """
        if (known := self.hit(feed)) is not None:
            return known
        started = time.monotonic()
        state = self._states.setdefault(feed, FeedState(feed))
        state.feed, state.read_at = feed, self._monotonic()
        reading = await self._read(feed, state, timeout)
        if not state.missing:
            state.results[reading.result] += 1
        return replace(reading, seconds=time.monotonic() - started)

    async def _read(self, feed: Feed[T], state: FeedState, timeout: float) -> Reading[T]:
        flight = self._flights.get(feed)
        result: Result = "coalesced"
        if flight is None:
            if (closed := self._closed(state)) is not None:
                return self._old(feed, closed)
            result = "miss"
            flight = self._flights[feed] = asyncio.create_task(self._fly(feed, state))
        if self._hurried is None:
            self._hurried = asyncio.get_running_loop().create_future()
        # Unlike wait_for, wait cancels nothing when it times out or is itself cancelled.
        await asyncio.wait({flight, self._hurried}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not flight.done() or flight.cancelled():
            return self._old(feed, DeadlineError("no answer yet"))
        snapshot = self.peek(feed)
        if snapshot is None or state.last_error is not None:
            return self._old(feed, state.last_error)
        return Reading(snapshot, result)

    def _closed(self, state: FeedState) -> BaseException | None:
        """Return why the API is not asked now, or None where it may be."""
        if self._monotonic() < state.closed_until:
            return state.last_error
        if self._hurried is not None and self._hurried.done():
            return DeadlineError("the exporter is stopping and asks for nothing")
        closed = self._closed_endpoints.get(state.feed.endpoint)
        return None if closed is None else closed[1]

    def _old(self, feed: Feed[T], error: BaseException | None) -> Reading[T]:
        snapshot = self.peek(feed)
        return Reading(snapshot, "failed" if snapshot is None else "stale", error)

    async def _fly(self, feed: Feed[Any], state: FeedState) -> None:
        before = state.up, state.missing
        at, asked = self._clock(), self._monotonic()
        try:
            answer = await self._ask(feed)
        except Exception as error:  # noqa: BLE001 - whatever it is, the feed failed and reports it
            self._fail(state, error)
        else:
            self._version += 1
            state.up = True
            state.last_error = None
            state.failures = 0
            state.last_success = at
            state.fresh_until = asked + feed.ttl
            if self._states.get(feed) is state:
                self._snapshots[feed] = Snapshot(answer, self._version, at, asked)
        finally:
            del self._flights[feed]
        now = state.up, state.missing
        first_success = before == (None, False) and state.up
        if self._on_change is not None and now != before and not first_success:
            self._on_change(state)

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
        """Return the seconds for which the API is not asked: doubling, and spread."""
        delay: float = min(_FIRST_BACKOFF * 2.0 ** min(failures - 1, 10), _MAX_BACKOFF)
        return delay * (0.5 + self._jitter() / 2)

    async def aclose(self) -> None:
        """Cancel the requests under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

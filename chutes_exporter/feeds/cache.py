"""The cache of feeds.

Each feed has at most one request in flight. Its answer serves all readers until the time to live is
over. After a failure, the last answer serves until its maximum age, and the cache backs off. A
doubtful answer is requested again, and does not replace a good one.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import cachetools
import structlog

from chutes_exporter.api.clock import steady
from chutes_exporter.api.errors import ApiError, NotFoundError, TimedOutError, UnavailableError
from chutes_exporter.feeds.feed import Feed, MissingEndpointError, Result, Snapshot
from chutes_exporter.feeds.sanity_checks import REPEAT_REQUEST, DoubtedError, reason_to_doubt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from chutes_exporter.api.answer import Answer

T = TypeVar("T")

_log = structlog.get_logger("feeds")

_FIRST_BACKOFF = 5.0
_MAX_BACKOFF = 120.0
_MAX_RETRY_AFTER = 24 * 3600.0
_MAX_FEEDS = 8192
_EVIDENCE_WAIT = 0.5
_OVERDUE = (
    "The service answers, but makes no new data. If this continues, report it to the operators of "
    "the service."
)


@dataclass(slots=True)
class FeedState:
    """The state of a feed.

    Attributes:
        snapshot: The newest good answer within its maximum age, in the copies that
            :meth:`FeedCache.states` returns.
        last_success: Unix time of the API at which the newest good answer was requested, or None.
        last_failure: Unix time of the API and error of the newest failure, even if a request
            succeeded since.
        failures: Number of failed requests in a row.
        flight: The request in flight.
    """

    feed: Feed[Any]
    snapshot: Snapshot[Any] | None = None
    last_success: float | None = None
    last_failure: tuple[float, BaseException] | None = None
    failures: int = 0
    flight: asyncio.Task[None] | None = None
    # Monotonic times. The cache backs off until closed_until.
    fresh_until: float = 0.0
    closed_until: float = 0.0
    # Unix time of the API at which the next answer is due, if the answer is fresh until then.
    due_at: float = math.inf

    @property
    def last_error(self) -> BaseException | None:
        """Error of the last request, or None if it succeeded."""
        if self.last_failure is None or not self.failures:
            return None
        return self.last_failure[1]

    @property
    def missing(self) -> bool:
        """Whether the feed is off because the deployment does not have its endpoint."""
        return isinstance(self.last_error, MissingEndpointError)

    @property
    def up(self) -> bool | None:
        """Whether the last request succeeded. Only copies with a snapshot know it.

        None while the endpoint is missing, and without an answer that may still be used.
        """
        if self.missing:
            return None
        if self.failures:
            return False
        return True if self.snapshot is not None else None

    @property
    def was_requested(self) -> bool:
        """Whether a request has ended, even if it failed."""
        return bool(self.failures) or self.last_success is not None

    @property
    def fresh(self) -> bool:
        """Whether the snapshot needs no newer answer: the last request succeeded, and no reader
        waits for another.
        """
        readers_wait = self.flight is not None and not self.feed.in_background
        return self.snapshot is not None and not self.failures and not readers_wait


class FeedCache:
    """All feeds of the process, whose answers ``fetch`` requests.

    ``retry_after`` of its exception delays the next request, in seconds. ``clock``
    is that of the API, because it decides when an answer is due. The jitter from 0 to 1 spreads
    retries.
    """

    def __init__(
        self,
        fetch: Callable[[Feed[Any]], Awaitable[Answer[Any]]],
        *,
        monotonic: Callable[[], float] = steady,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._clock = clock
        self._jitter = jitter
        self._version = 0
        self._wanted: set[Feed[Any]] | None = None  # all
        self._states: dict[Feed[Any], FeedState] = {}
        self._snapshots: cachetools.TLRUCache[Feed[Any], Snapshot[Any]] = cachetools.TLRUCache(
            _MAX_FEEDS, ttu=lambda _feed, snapshot, _now: snapshot.drop_at, timer=monotonic
        )
        self._changed: list[FeedState] = []

    def states(self) -> dict[Feed[Any], FeedState]:
        """Return the state of every feed at this moment.

        Answers beyond their maximum age leave memory.
        """
        self._snapshots.expire()
        return {feed: self._copy(state) for feed, state in self._states.items()}

    def _copy(self, state: FeedState) -> FeedState:
        """Return the state of a feed as it is now."""
        copy = replace(state, snapshot=self.peek(state.feed))
        was_dropped = state.last_success is not None and copy.snapshot is None
        if was_dropped and state.flight is not None and not state.failures:
            # The request takes longer than an answer is kept, which already is a failure.
            copy.failures = 1
            copy.last_failure = self._clock(), _too_slow(state.feed)
        return copy

    def peek(self, feed: Feed[T]) -> Snapshot[T] | None:
        """Return a feed's newest good answer within its maximum age, without a request."""
        return self._snapshots.get(feed)

    def expire(self, feed: Feed[Any]) -> None:
        """Make the next reading of a feed send a request, even if its answer is fresh."""
        # A reload may have removed the feed.
        if (state := self._states.get(feed)) is not None:
            state.fresh_until = 0.0

    def seconds_to_next_request(self, state: FeedState) -> float:
        """Return the seconds until a reading would send a request. 0 or less means now."""
        return max(self._seconds_fresh(state), state.closed_until - self._monotonic())

    def _seconds_fresh(self, state: FeedState) -> float:
        """Return the seconds until an answer is no longer fresh. 0 or less means now."""
        by_age = state.fresh_until - self._monotonic()
        # A clock that was corrected since may show that the next answer is due earlier.
        return min(by_age, state.due_at - self._clock())

    def keep_only(self, feeds: Iterable[Feed[Any]]) -> None:
        """Forget all other feeds, and let nobody read them any more.

        A miner's feeds that are only compared with these stay, too.
        """
        wanted = set(feeds)
        for feed in list(wanted):
            wanted.update(other for other in feed.evidence if other.hotkey)
        self._wanted = wanted
        self.forget(self._states.keys() - wanted)

    def end_backoffs(self) -> None:
        """Let the next readings request feeds that failed, or whose endpoint is missing."""
        for state in self._states.values():
            state.closed_until = 0.0

    def forget(self, feeds: Iterable[Feed[Any]]) -> None:
        """Forget feeds, and cancel their requests in flight."""
        for feed in feeds:
            self._snapshots.pop(feed, None)
            state = self._states.pop(feed, None)
            if state is not None and state.flight is not None:
                state.flight.cancel()

    async def read(self, feed: Feed[Any], timeout: float) -> Result:
        """Request a feed unless its answer is fresh, and return the result. :meth:`states` has the
        answer then.

        It waits at most for the timeout in seconds. Cancelling the caller does not cancel the
        request, because other readers may need its answer.
        """
        # A reload may have removed the feed since the reader began.
        if self._wanted is not None and feed not in self._wanted:
            return "failed"
        state = self._states.setdefault(feed, FeedState(feed))
        # After a reload, an equal feed can have other lifetimes.
        state.feed = feed
        if self.peek(feed) is not None and self._seconds_fresh(state) > 0:
            return "hit"
        result: Result = "miss" if state.flight is None else "coalesced"
        flight = state.flight or self._begin_flight(state)
        if flight is None:
            return self._older_result(feed)
        if feed.in_background and self._has_succeeded(state):
            return "hit"
        # Unlike wait_for, wait does not cancel the request when it times out or is cancelled.
        await asyncio.wait({flight}, timeout=timeout)
        if flight.done() and self._has_succeeded(state):
            return result
        # The request failed or takes too long.
        return self._older_result(feed)

    def _begin_flight(self, state: FeedState) -> asyncio.Task[None] | None:
        """Request a feed, unless the cache backs off after a failure."""
        if self._monotonic() < state.closed_until:
            return None
        state.flight = asyncio.create_task(self._fly(state.feed, state))
        return state.flight

    def _has_succeeded(self, state: FeedState) -> bool:
        """Return whether the last request succeeded, and its answer may still be used."""
        return not state.failures and self.peek(state.feed) is not None

    def _older_result(self, feed: Feed[Any]) -> Result:
        return "failed" if self.peek(feed) is None else "stale"

    async def read_all(self, feeds: Iterable[Feed[Any]], timeout: float) -> None:
        """Read several feeds at the same time."""
        await asyncio.gather(*(self.read(feed, timeout) for feed in feeds))

    async def _fly(self, feed: Feed[Any], state: FeedState) -> None:
        """Request a feed, and keep the answer, or the error in the feed's state."""
        before = bool(state.failures), state.missing
        requested_at = self._monotonic()
        try:
            answer = await self._believable_answer(feed)
            self._keep(state, answer, requested_at)
        except Exception as error:  # noqa: BLE001 - the feed reports every failure
            self._fail(state, error)
        # A cancelled request does not get here. Its feed was forgotten.
        state.flight = None
        if (bool(state.failures), state.missing) != before:
            self._changed.append(state)
        # Log when all requests are over, so that feeds with one reason share a line.
        if not any(other.flight for other in self._states.values()):
            self._log_changes()

    def _keep(self, state: FeedState, answer: Answer[Any], requested_at: float) -> None:
        """Keep an answer by the monotonic time of its request. Raise ApiError if it is too old."""
        feed, now = state.feed, self._monotonic()
        fresh_until, drop_at = requested_at + feed.ttl, requested_at + feed.max_age
        due_at = math.inf
        if feed.due is not None:
            due_at = feed.due(answer.value)
            due_in = due_at - self._clock()
            if -due_in > feed.max_age:
                raise UnavailableError(
                    f"a new answer has been due for {-due_in:.0f} s", advice=_OVERDUE
                )
            # Until a newer answer is due, this one is fresh. Then it begins to age.
            drop_at = min(drop_at, now + due_in + feed.max_age)
            if due_in > 0:
                fresh_until = now + due_in
            else:
                due_at = math.inf
        if drop_at <= now:
            raise _too_slow(feed)
        self._version += 1
        # Before the first answer, the clock of the API was not known.
        at = self._clock() - (now - requested_at)
        self._snapshots[feed] = Snapshot(answer, self._version, drop_at)
        state.last_success, state.failures = at, 0
        state.fresh_until, state.due_at = fresh_until, due_at

    async def _believable_answer(self, feed: Feed[Any]) -> Answer[Any]:
        """Request a feed.

        A doubt marks the answer. If there is an older good answer, it raises DoubtedError instead.
        """
        old = self._good_answer(feed)
        try:
            answer = await self._checked_answer(feed, old)
        except NotFoundError:
            # An endpoint that has answered lately exists. Then the proxy in front of it fails.
            if feed.optional and self.peek(feed) is None:
                raise MissingEndpointError(f"the API has no {feed.endpoint.path} (404)") from None
            raise
        if answer.rejected:
            counts = {"rejected": answer.rejected, "kept": answer.count}
            _log.warning(
                "records left out", feed=feed.name, **counts, first_error=answer.first_error
            )
        if answer.doubt is not None and old is not None:
            raise DoubtedError(answer.doubt, feed.ttl)
        return answer

    def _good_answer(self, feed: Feed[T]) -> Answer[T] | None:
        """Return the newest answer, unless it is doubted."""
        snapshot = self.peek(feed)
        if snapshot is None or snapshot.answer.doubt is not None:
            return None
        return snapshot.answer

    async def _checked_answer(self, feed: Feed[Any], old: Answer[Any] | None) -> Answer[Any]:
        """Request a feed, and again if a second answer can settle a doubt.

        A doubt that remains marks the answer.
        """
        first = await self._fetch(feed)
        doubt = reason_to_doubt(feed.checks, old, first, await self._evidence(feed))
        if doubt not in REPEAT_REQUEST:
            return replace(first, doubt=doubt)
        # The miner's evidence may be older than the answer. Request it again, too.
        for other in feed.evidence:
            if other.hotkey:
                self.expire(other)
        second = await self._fetch(feed)
        doubt = reason_to_doubt(feed.checks, old, second, await self._evidence(feed), first=first)
        return replace(second, doubt=doubt)

    async def _evidence(self, feed: Feed[Any]) -> list[Any]:
        """Return the records of the feeds to compare with, None for unknown ones.

        Feeds of the same miner are requested. Those of the platform can have megabytes, so only a
        request in flight is awaited. It waits briefly, and takes no older answer after an error.
        Otherwise, the cached answer counts.
        """
        records: list[Any] = []
        for other in feed.evidence:
            state = self._states.get(other)
            is_known = True
            if other.hotkey or (state is not None and state.flight is not None):
                is_known = await self.read(other, _EVIDENCE_WAIT) not in ("stale", "failed")
            snapshot = self.peek(other) if is_known else None
            records.append(None if snapshot is None else snapshot.answer.value)
        return records

    def _log_changes(self) -> None:
        """Log the feeds that fail, are doubted, lack their endpoint or are back.

        Those with one reason share a line.
        """
        groups: dict[str, list[FeedState]] = {}
        for state in self._changed:
            groups.setdefault(repr(state.last_error), []).append(state)
        self._changed.clear()
        for states in groups.values():
            _log_change([state.feed for state in states], states[0].last_error)
        # A bug that was logged needs its traceback no longer.
        for state in self._states.values():
            if state.last_failure is not None:
                _release_frames(state.last_failure[1])

    def _fail(self, state: FeedState, error: Exception) -> None:
        """Note a failure, and let the feed send no request until its back-off is over."""
        # These are no bugs, whose traceback the log needs, and a traceback holds the whole answer.
        if isinstance(error, ApiError | DoubtedError | MissingEndpointError):
            _release_frames(error)
        state.last_failure = self._clock(), error
        backoff = min(_FIRST_BACKOFF * 2.0 ** min(state.failures, 10), _MAX_BACKOFF)
        backoff *= 0.5 + self._jitter() / 2
        state.failures += 1
        wait = min(getattr(error, "retry_after", None) or 0.0, _MAX_RETRY_AFTER)
        state.closed_until = self._monotonic() + max(backoff, wait)

    async def aclose(self) -> None:
        """Cancel the requests in flight."""
        flights = [state.flight for state in self._states.values() if state.flight is not None]
        self.forget(list(self._states))
        await asyncio.gather(*flights, return_exceptions=True)


def _log_change(feeds: Iterable[Feed[Any]], error: BaseException | None) -> None:
    """Log one state of some feeds."""
    log = _log.bind(feeds=" ".join(dict.fromkeys(feed.name for feed in feeds)))
    hotkeys = dict.fromkeys(feed.hotkey for feed in feeds if feed.hotkey)
    if hotkeys:
        log = log.bind(hotkeys=" ".join(hotkeys))
    if error is None:
        log.info("feeds are back")
    elif isinstance(error, MissingEndpointError):
        log.info("feeds off", reason=str(error), advice=error.advice)
    elif isinstance(error, ApiError | DoubtedError):
        log.warning("feeds failed", reason=error.reason, detail=str(error), advice=error.advice)
    else:
        # Not an error of the API but a bug, which needs its traceback.
        log.error("feeds failed", reason=type(error).__name__, exc_info=error)


def _release_frames(error: BaseException) -> None:
    """Drop the traceback of an error that is kept, because its frames hold whole answers."""
    error.__traceback__ = error.__context__ = None


def _too_slow(feed: Feed[Any]) -> TimedOutError:
    return TimedOutError(
        f"the request takes longer than an answer is kept, {feed.max_age:g} s",
        advice=f"The API or the network is slow. Try again, or raise --feed.max-age {feed.name}=.",
    )

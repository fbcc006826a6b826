"""The cache of feeds.

Each feed has at most one request in flight. Its answer serves all readers until the time to live is
over. After a failure, the last answer serves until its maximum age, and the cache backs off. A
doubtful answer is requested again, and does not replace one without a doubt.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import structlog

from chutes_exporter.api.answer import Answer
from chutes_exporter.api.errors import ApiError, NotFoundError
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.feed import Feed, KeptAnswer, MissingEndpointError
from chutes_exporter.feeds.sanity_checks import REPEAT_REQUEST, DoubtedError, reason_to_doubt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    States = Mapping[Feed[Any], "FeedState"]

T = TypeVar("T")

_log = structlog.get_logger("feeds")

_FIRST_BACKOFF = 5.0
_MAX_BACKOFF = 120.0
_MAX_RETRY_AFTER = 24 * 3600.0
_EVIDENCE_WAIT = 0.5


@dataclass(slots=True)
class FeedState:
    """The state of a feed.

    Attributes:
        kept: The newest answer that was kept. It may be beyond its maximum age, but not in the
            copies that :meth:`FeedCache.states` returns.
        last_success: Unix time of the API at which that answer was requested, or None.
        last_failure: Unix time of the API and error of the newest failure, even if a request
            succeeded since.
        failures: Number of failed requests in a row.
        flight: The request in flight.
    """

    feed: Feed[Any]
    kept: KeptAnswer[Any] | None = None
    last_success: float | None = None
    last_failure: tuple[float, BaseException] | None = None
    failures: int = 0
    flight: asyncio.Task[None] | None = None
    # Monotonic times. The cache backs off until closed_until.
    fresh_until: float = 0.0
    closed_until: float = 0.0

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
    def doubt(self) -> str | None:
        """Reason to doubt the newest answer, or None."""
        # A doubted answer is refused with an error, or in use because there is no older one.
        if isinstance(self.last_error, DoubtedError):
            return self.last_error.doubt
        return None if self.kept is None else self.kept.answer.doubt

    @property
    def up(self) -> bool | None:
        """Whether the last request succeeded.

        None while the endpoint is missing, before the first request has ended, and if nobody
        requested a newer answer within the maximum age of the last one. Ask only the copies that
        :meth:`FeedCache.states` returns, because other states can keep one that is too old.
        """
        if self.failures:
            return None if self.missing else False
        return None if self.kept is None else True

    @property
    def complete(self) -> bool | None:
        """Whether the answer lacks no record and is fresh: the last request succeeded, and no
        reader waits for another. None while the endpoint is missing.
        """
        if self.missing:
            return None
        readers_wait = self.flight is not None and not self.feed.in_background
        if self.kept is None or self.failures or readers_wait:
            return False
        return self.kept.answer.complete

    @property
    def word(self) -> Literal["up", "stale", "down", "waiting", "off"]:
        """The state in a word.

        A feed that is stale is down, but serves an old answer. Without a request that has ended
        lately, it waits. It is off while the endpoint is missing.
        """
        if self.up is None:
            return "off" if self.missing else "waiting"
        if self.up:
            return "up"
        return "down" if self.kept is None else "stale"

    def log(self) -> None:
        """Log that the feed is back, or why it fails."""
        error = self.last_error
        log = _log.bind(feed=self.feed.name)
        if self.feed.hotkey:
            log = log.bind(hotkey=self.feed.hotkey)
        if error is None:
            log.info("feed is back")
        elif isinstance(error, MissingEndpointError):
            log.info("feed is off", reason=str(error), advice=error.advice)
        elif isinstance(error, ApiError):
            log.warning("feed failed", reason=error.reason, detail=str(error), advice=error.advice)
        else:
            # Not an error of the API but a bug, which needs its traceback.
            log.error("feed failed", reason=type(error).__name__, exc_info=error)


class FeedCache:
    """All feeds of the process, and their answers.

    Args:
        fetch: Requests a feed. If its exception has ``retry_after``, that many seconds pass before
            the next request.
        monotonic: Returns the seconds of a clock that no correction changes.
        clock: Returns the Unix time of the API.
    """

    def __init__(
        self,
        fetch: Callable[[Feed[Any]], Awaitable[Answer[Any]]],
        *,
        monotonic: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._clock = clock
        self._version = 0
        # The feeds that may be read. None means all.
        self._wanted: set[Feed[Any]] | None = None
        self._states: dict[Feed[Any], FeedState] = {}

    def states(self, feeds: Iterable[Feed[Any]] = ()) -> dict[Feed[Any], FeedState]:
        """Return the state of every feed at this moment, also of the given ones that nobody has
        read.

        Answers beyond their maximum age leave memory.
        """
        states = {}
        for feed, state in self._states.items():
            state.kept = self.peek(feed)
            states[feed] = replace(state)
        for feed in feeds:
            states.setdefault(feed, FeedState(feed))
        return states

    def peek(self, feed: Feed[T]) -> KeptAnswer[T] | None:
        """Return the answer that is kept of a feed, if it is not too old, without a request."""
        state = self._states.get(feed)
        if state is None or state.kept is None:
            return None
        return state.kept if self._monotonic() < state.kept.drop_at else None

    def expire(self, feed: Feed[Any]) -> None:
        """Make the next reading of a feed send a request, even if its answer is fresh."""
        # A reload may have removed the feed.
        if (state := self._states.get(feed)) is not None:
            state.fresh_until = 0.0

    def keep_only(self, feeds: Collection[Feed[Any]]) -> None:
        """Forget all other feeds, and let nobody read them any more. End all back-offs.

        A miner's feeds that these are only compared with stay, too, because a comparison requests
        them. Feeds of the platform are not requested for a comparison.
        """
        wanted = set(feeds)
        for feed in feeds:
            wanted.update(other for other in feed.evidence if other.hotkey)
        self._wanted = wanted
        self.forget(self._states.keys() - wanted)
        for state in self._states.values():
            state.closed_until = 0.0

    def forget(self, feeds: Iterable[Feed[Any]]) -> None:
        """Forget feeds, and cancel their requests in flight."""
        for feed in feeds:
            state = self._states.pop(feed, None)
            if state is not None and state.flight is not None:
                state.flight.cancel()

    async def read(self, feed: Feed[Any], timeout: float) -> bool:
        """Request a feed unless its answer is fresh, and return whether the last request succeeded.

        :meth:`states` and :meth:`peek` have the answer then. It waits at most for the timeout in
        seconds. Cancelling the caller does not cancel the request, because other readers may need
        its answer.
        """
        # A reload may have removed the feed since the reader began.
        if self._wanted is not None and feed not in self._wanted:
            return False
        state = self._states.setdefault(feed, FeedState(feed))
        if self.peek(feed) is not None and self._monotonic() < state.fresh_until:
            return True
        if state.flight is None:
            if self._monotonic() < state.closed_until:
                # The cache backs off after a failure.
                return False
            state.flight = asyncio.create_task(self._request(state))
        if feed.in_background and self._has_succeeded(state):
            # The last answer serves while the newer one is requested.
            return True
        # The request removes itself from the state when it ends.
        flight = state.flight
        # Unlike wait_for, wait does not cancel the request when it times out or is cancelled.
        await asyncio.wait({flight}, timeout=timeout)
        return flight.done() and self._has_succeeded(state)

    def _has_succeeded(self, state: FeedState) -> bool:
        """Return whether the last request succeeded, and its answer may still be used."""
        return not state.failures and self.peek(state.feed) is not None

    async def read_all(self, feeds: Iterable[Feed[Any]], timeout: float) -> None:
        """Read several feeds at the same time."""
        await asyncio.gather(*(self.read(feed, timeout) for feed in feeds))

    async def _request(self, state: FeedState) -> None:
        before = bool(state.failures), state.missing
        requested_at = self._monotonic()
        try:
            answer = await self._believable_answer(state.feed)
            self._keep(state, answer, requested_at)
        except Exception as error:  # noqa: BLE001 - the feed reports every failure
            state.last_failure = self._clock(), error
            # Doubled with each failure in a row. The exponent has a limit, because a float has one.
            backoff = min(_FIRST_BACKOFF * 2.0 ** min(state.failures, 10), _MAX_BACKOFF)
            # From half of it to all of it, so that retries spread.
            backoff *= 0.5 + random.random() / 2
            state.failures += 1
            retry_after = getattr(error, "retry_after", None) or 0.0
            wait = max(backoff, min(retry_after, _MAX_RETRY_AFTER))
            state.closed_until = self._monotonic() + wait
        # A cancelled request does not get here. Its feed was forgotten.
        state.flight = None
        failure = state.last_error
        if (bool(state.failures), state.missing) != before:
            state.log()
        if failure is not None:
            # The frames of a traceback hold whole answers.
            failure.__traceback__ = None
            failure.__context__ = None

    def _keep(self, state: FeedState, answer: Answer[Any], requested_at: float) -> None:
        """Note a success, and keep the answer. ``requested_at`` is the request's monotonic time."""
        feed = state.feed
        state.failures = 0
        state.fresh_until = requested_at + feed.ttl
        kept = self.peek(feed)
        if kept is not None and kept.answer.value is answer.value:
            # No new audit report has come, so the answer is as old as before.
            return
        self._version += 1
        state.kept = KeptAnswer(answer, self._version, requested_at + feed.max_age)
        # The time of the request, counted back from now: the clock of the API is not known before
        # its first answer.
        state.last_success = self._clock() - (self._monotonic() - requested_at)
        if answer.rejected:
            _log.warning(
                "records left out",
                feed=feed.name,
                rejected=answer.rejected,
                kept=answer.count,
                first_error=answer.first_error,
            )

    async def _believable_answer(self, feed: Feed[Any]) -> Answer[Any]:
        """Request a feed, and again if a second answer can settle a doubt about the first.

        A doubt that remains marks the answer. If an older one without a doubt is kept, it raises
        DoubtedError instead.
        """
        kept = self.peek(feed)
        old = None
        if kept is not None and kept.answer.doubt is None:
            old = kept.answer
        answer = await self._fetch_existing(feed)
        doubt = reason_to_doubt(feed.checks, old, answer, await self._evidence(feed))
        if doubt in REPEAT_REQUEST:
            # The miner's evidence may be older than the answer. Request it again, too.
            for other in feed.evidence:
                if other.hotkey:
                    self.expire(other)
            first, answer = answer, await self._fetch_existing(feed)
            evidence = await self._evidence(feed)
            doubt = reason_to_doubt(feed.checks, old, answer, evidence, first=first)
        if doubt is not None and old is not None:
            raise DoubtedError(doubt, feed.ttl)
        return replace(answer, doubt=doubt)

    async def _fetch_existing(self, feed: Feed[Any]) -> Answer[Any]:
        """Request a feed. Raise MissingEndpointError if the deployment lacks its endpoint."""
        requested_at = self._monotonic()
        try:
            return await self._fetch(feed)
        except NotFoundError as error:
            if feed.empty_if_404:
                seconds = self._monotonic() - requested_at
                return Answer([], received_at=self._clock(), seconds=seconds, status=404)
            # An endpoint that answered lately exists. The 404 is a failure of the proxy before it.
            if feed.optional and self.peek(feed) is None:
                text = f"the API has no {feed.path} (404)"
                raise MissingEndpointError(text, status=error.status, retry_after=HOUR) from None
            raise

    async def _evidence(self, feed: Feed[Any]) -> list[Any]:
        """Return the records of each feed to compare with, None for unknown ones.

        Feeds of the same miner are requested. Those of the platform can have megabytes, so their
        cached answers count, and only a request in flight is awaited.
        """
        evidence: list[Any] = []
        for other in feed.evidence:
            state = self._states.get(other)
            is_in_flight = state is not None and state.flight is not None
            kept = self.peek(other)
            if other.hotkey or is_in_flight:
                # A newer list may be due, and not come. The older one may contradict the new answer
                # of the feed only because something has changed since.
                is_usable = await self.read(other, _EVIDENCE_WAIT)
                kept = self.peek(other) if is_usable else None
            evidence.append(None if kept is None else kept.answer.value)
        return evidence

    async def aclose(self) -> None:
        """Cancel the requests in flight, and send no more. What is known can still be read."""
        self._wanted = set()
        flights = []
        for state in self._states.values():
            if state.flight is not None:
                state.flight.cancel()
                flights.append(state.flight)
                state.flight = None
        await asyncio.gather(*flights, return_exceptions=True)

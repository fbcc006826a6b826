from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import structlog

from chutes_exporter.api.answer import Answer
from chutes_exporter.api.errors import NotFoundError, UnavailableError
from chutes_exporter.feeds.cache import FeedCache, FeedState
from chutes_exporter.feeds.feed import Feed
from tests.support import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from typing import Any

FEED: Feed[Any] = Feed("feed", "/feed", None, "miner", ttl=60, max_age=300, optional=True)
UNIX = 5e8
"""How far the Unix time is ahead of the monotonic time."""


class Cache(FeedCache):
    """A cache that counts its requests.

    While ``open`` is set, it answers each with that count or with ``value``, or fails with
    ``error`` if there is one.
    """

    def __init__(self) -> None:
        self.time = Clock(1000.0)
        self.unix = UNIX
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None
        self.value: Any = None
        super().__init__(
            self._answer,
            monotonic=self.time,
            clock=lambda: self.time() + self.unix,
        )

    async def _answer(self, _feed: Feed[Any]) -> Answer[Any]:
        self.asked += 1
        number = self.asked
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return Answer(self.value or number, count=1)

    async def ask(self, wait: float = 0.0, *, feed: Feed[Any] = FEED, timeout: float = 5) -> Any:
        """Read a feed after some seconds, and return the number of the request that answered."""
        self.time.now += wait
        await self.read(feed, timeout)
        kept = self.peek(feed)
        return None if kept is None else kept.answer.value

    async def begin(self, wait: float = 0.0) -> asyncio.Task[Any]:
        """Begin to read a feed whose answer is held back."""
        self.open.clear()
        task = asyncio.create_task(self.ask(wait))
        await asyncio.sleep(0.01)
        return task

    @property
    def state(self) -> FeedState:
        """The state of the only feed."""
        (state,) = self.states().values()
        return state


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def feeds(monkeypatch: pytest.MonkeyPatch) -> Cache:
    # Each pause after a failure is the longest one.
    monkeypatch.setattr(random, "random", lambda: 1.0)
    return Cache()


async def test_an_answer_serves_until_its_time_to_live_is_over(feeds: Cache) -> None:
    assert [await feeds.ask(wait) for wait in (0, 59, 1)] == [1, 1, 2]
    assert feeds.state.last_success == feeds.time() + UNIX


async def test_a_feed_in_the_background_serves_its_last_answer_while_it_is_requested(
    feeds: Cache,
) -> None:
    feed = replace(FEED, in_background=True)
    await feeds.ask(feed=feed)
    feeds.open.clear()
    assert [await feeds.ask(wait, feed=feed) for wait in (60, 0)] == [1, 1]
    assert feeds.state.complete
    feeds.error = UnavailableError("no")
    feeds.open.set()
    while feeds.state.flight:
        await asyncio.sleep(0)
    # After a failure, readers wait for the next request, which fails, too.
    assert await feeds.ask(10, feed=feed) == 1
    assert (feeds.asked, feeds.state.complete, feeds.state.last_error) == (3, False, feeds.error)


async def test_an_answer_that_is_as_before_is_as_old_as_before(feeds: Cache) -> None:
    feeds.value = "the same"
    await feeds.ask()
    first = feeds.peek(FEED)
    for _ in range(4):
        await feeds.ask(60)
    assert (feeds.peek(FEED), feeds.state.last_success) == (first, 1000 + UNIX)
    await feeds.ask(60)
    assert feeds.state.last_success == 1300 + UNIX


async def test_readers_at_the_same_time_share_one_request(feeds: Cache) -> None:
    assert await asyncio.gather(*(feeds.ask() for _ in range(50))) == [1] * 50
    leaving, staying = await feeds.begin(60), await feeds.begin()
    assert not feeds.state.complete
    # A reader that gives up cancels nobody else.
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    feeds.open.set()
    assert (await staying, feeds.asked, feeds.state.complete) == (2, 2, True)


async def test_a_late_answer_is_left_out_and_serves_the_next_scrape(feeds: Cache) -> None:
    feeds.open.clear()
    assert (await feeds.ask(timeout=0.01), feeds.state.up) == (None, None)
    feeds.open.set()
    assert (await feeds.ask(), feeds.asked) == (1, 1)


async def test_a_failure_serves_older_data_inside_its_bound_and_nothing_beyond(
    feeds: Cache,
) -> None:
    await feeds.ask()
    success = feeds.state.last_success
    feeds.error = OSError("down")
    assert await feeds.ask(299) == 1
    assert (feeds.state.up, feeds.state.last_success) == (False, success)
    assert await feeds.ask(1) is None
    assert feeds.state.last_error == feeds.error


async def test_failures_leave_the_upstream_alone_for_longer_and_longer(feeds: Cache) -> None:
    feeds.error = OSError("down")
    asked_at = []
    for second in range(700):
        before = feeds.asked
        # The first one waits for nothing.
        await feeds.ask(1 if second > 0 else 0)
        if feeds.asked > before:
            asked_at.append(second)
    # The pauses are 5, 10, 20, 40 and 80 seconds, and then always 120.
    assert asked_at == [0, 5, 15, 35, 75, 155, 275, 395, 515, 635]
    # An upstream that asks for a longer pause gets it.
    feeds.error = UnavailableError("later", retry_after=600.0)
    for wait, asked in ((120, 11), (599, 11), (1, 12)):
        await feeds.ask(wait)
        assert feeds.asked == asked


async def test_a_failure_and_a_recovery_are_reported_once_each(
    feeds: Cache, logs: list[MutableMapping[str, Any]]
) -> None:
    await feeds.ask()
    errors = (UnavailableError("a"), UnavailableError("b"), None, None, ZeroDivisionError())
    for error in errors:
        feeds.error = error
        # No pause after a failure is as long.
        await feeds.ask(200)
        # An error that is kept holds no frames, and so no answer, once it is logged.
        assert error is None or error.__traceback__ is None
    assert [log["event"] for log in logs] == ["feed failed", "feed is back", "feed failed"]
    # The last failure is a bug.
    assert "exc_info" in logs[-1]
    # They are about the platform.
    assert not any("hotkey" in log for log in logs)


async def test_an_endpoint_that_is_missing_is_asked_for_again_after_an_hour(
    feeds: Cache, logs: list[MutableMapping[str, Any]]
) -> None:
    feeds.error = NotFoundError("404")
    for wait in (0, 0, 3599):
        await feeds.ask(wait)
    # Only the first reading sent a request. The feed is neither up nor down.
    assert (feeds.asked, feeds.state.up, feeds.state.missing) == (1, None, True)
    await feeds.ask(1)
    assert feeds.asked == 2
    assert [log["event"] for log in logs] == ["feed is off"]
    feeds.error = None
    await feeds.ask(3600)
    assert (feeds.state.up, feeds.state.missing) == (True, False)
    assert [log["event"] for log in logs] == ["feed is off", "feed is back"]


async def test_the_age_of_an_answer_counts_from_its_request(feeds: Cache) -> None:
    slow = await feeds.begin()
    feeds.time.now += 50
    feeds.open.set()
    assert (await slow, feeds.state.last_success) == (1, 1000 + UNIX)
    assert await feeds.ask(10) == 2
    # An answer that takes longer than it would be kept is not kept.
    slow = await feeds.begin(60)
    feeds.time.now += 301
    feeds.open.set()
    assert (await slow, feeds.state.up) == (None, None)


async def test_a_forgotten_feed_does_not_return_with_a_late_answer(feeds: Cache) -> None:
    feeds.open.clear()
    await feeds.ask(timeout=0.01)
    feeds.forget([FEED, FEED.of("never known")])
    assert feeds.states() == {}
    # Somebody reads it again before the cancelled request has ended.
    again = await feeds.begin()
    assert feeds.state.flight
    feeds.open.set()
    assert (await again, feeds.asked) == (2, 2)
    feeds.forget([FEED])
    feeds.expire(FEED)
    assert (feeds.states(), feeds.peek(FEED)) == ({}, None)


async def test_of_the_feeds_that_nobody_wants_only_evidence_is_read(feeds: Cache) -> None:
    evidence, other = FEED.of("evidence"), FEED.of("other")
    feeds.keep_only([replace(FEED, evidence=(evidence,))])
    assert [await feeds.ask(feed=feed) for feed in (FEED, evidence, other)] == [1, 2, None]
    assert feeds.states().keys() == {FEED, evidence}

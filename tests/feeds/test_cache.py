from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
import structlog

from chutes_exporter.api.answer import Answer
from chutes_exporter.api.endpoints import METAGRAPH
from chutes_exporter.api.errors import NotFoundError, TimedOutError, UnavailableError
from chutes_exporter.feeds import cache
from chutes_exporter.feeds.cache import FeedCache, FeedState
from chutes_exporter.feeds.feed import Feed, Result
from tests.support import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from typing import Any

FEED: Feed[Any] = Feed("feed", METAGRAPH, ttl=60, max_age=300, changes="live", optional=True)
UNIX = 5e8
"""How far the Unix time is ahead of the monotonic time."""


class Cache(FeedCache):
    """A cache that counts its requests.

    While ``open`` is set, it answers each with that count, or fails with ``error`` if there is one.
    """

    def __init__(self) -> None:
        self.time = Clock(1000.0)
        self.unix = UNIX
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None
        super().__init__(
            self._answer,
            monotonic=self.time,
            clock=lambda: self.time() + self.unix,
            jitter=lambda: 1.0,
        )

    async def _answer(self, _feed: Feed[Any]) -> Answer[int]:
        self.asked += 1
        number = self.asked
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return Answer(number, count=1)

    async def ask(self, wait: float = 0.0, *, feed: Feed[Any] = FEED, timeout: float = 5) -> Result:
        """Read a feed after some seconds."""
        self.time.now += wait
        return await self.read(feed, timeout)

    async def begin(self, wait: float = 0.0) -> asyncio.Task[Result]:
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

    @property
    def answer(self) -> int | None:
        """The number of the request that the answer of the only feed came from."""
        snapshot = self.peek(self.state.feed)
        return None if snapshot is None else snapshot.answer.value


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def feeds() -> Cache:
    return Cache()


async def test_an_answer_serves_until_its_time_to_live_is_over(feeds: Cache) -> None:
    assert (await feeds.ask(), feeds.answer) == ("miss", 1)
    assert (await feeds.ask(59), feeds.answer) == ("hit", 1)
    assert (await feeds.ask(1), feeds.answer) == ("miss", 2)
    assert feeds.state.last_success == feeds.time() + UNIX


async def test_an_answer_that_is_due_is_dropped_once_it_is_overdue_for_its_maximum_age(
    feeds: Cache,
) -> None:
    feed = replace(FEED, due=lambda _answer: UNIX + 1200.0)
    requests_and_results = {}
    for now in (1000.0, 1199.0, 1200.0, 1259.0, 1260.0, 1440.0, 1499.0, 1500.0, 1560.0):
        feeds.time.now = now
        result = await feeds.ask(feed=feed)
        requests_and_results[now] = feeds.asked, result
    # The next answer is due at 1200. From then on, it is requested after each time to live of 60
    # seconds. At 1500, it is overdue for the maximum age of 300 seconds.
    assert requests_and_results == {
        1000: (1, "miss"),
        1199: (1, "hit"),
        1200: (2, "miss"),
        1259: (2, "hit"),
        1260: (3, "miss"),
        1440: (4, "miss"),
        1499: (4, "hit"),
        1500: (5, "failed"),
        1560: (6, "failed"),
    }
    assert isinstance(feeds.state.last_error, UnavailableError)


@pytest.mark.parametrize("behind", [1800.0, -1800.0])
async def test_a_correction_of_the_clock_takes_effect_at_once(feeds: Cache, behind: float) -> None:
    # The clock is so many seconds behind, or ahead if they are below 0.
    feeds.unix -= behind
    # By the wrong clock, the answer after the first one is due in 200 seconds.
    due_after = {1: feeds.unix + 1200.0, 2: UNIX + 3600.0}
    feed = replace(FEED, due=lambda number: due_after[number])
    await feeds.ask(feed=feed)
    assert await feeds.ask(100, feed=feed) == "hit"
    assert feeds.seconds_to_next_request(feeds.state) == 100
    feeds.unix += behind
    # If the clock was behind, the next answer is overdue now. If it was ahead, that answer seems to
    # be due later, but is requested after 200 seconds of the monotonic clock.
    more_seconds = 0 if behind > 0 else 100
    assert await feeds.ask(more_seconds, feed=feed) == "miss"


async def test_a_feed_in_the_background_serves_its_last_answer_while_it_is_requested(
    feeds: Cache,
) -> None:
    feed = replace(FEED, in_background=True)
    results = [await feeds.ask(feed=feed)]
    feeds.open.clear()
    results += [await feeds.ask(wait, feed=feed) for wait in (60, 0)]
    assert results == ["miss", "hit", "hit"]
    assert feeds.state.fresh
    feeds.error = UnavailableError("no")
    feeds.open.set()
    while feeds.state.flight:
        await asyncio.sleep(0)
    # After a failure, readers wait for the next request, which fails, too.
    assert await feeds.ask(10, feed=feed) == "stale"
    assert (feeds.asked, feeds.state.fresh, feeds.state.last_error) == (3, False, feeds.error)


async def test_readers_at_the_same_time_share_one_request(feeds: Cache) -> None:
    results = await asyncio.gather(*(feeds.ask() for _ in range(50)))
    assert feeds.asked == 1
    assert sorted(results) == ["coalesced"] * 49 + ["miss"]


async def test_a_reader_that_gives_up_cancels_nobody_else(feeds: Cache) -> None:
    await feeds.ask()
    leaving, staying = await feeds.begin(60), await feeds.begin()
    assert not feeds.state.fresh
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    feeds.open.set()
    assert (await staying, feeds.answer, feeds.asked) == ("coalesced", 2, 2)
    assert feeds.state.fresh


async def test_a_late_answer_is_left_out_and_serves_the_next_scrape(feeds: Cache) -> None:
    feeds.open.clear()
    assert (await feeds.ask(timeout=0.01), feeds.answer, feeds.state.up) == ("failed", None, None)
    feeds.open.set()
    assert (await feeds.ask(), feeds.answer, feeds.asked) == ("coalesced", 1, 1)


async def test_a_failure_serves_older_data_inside_its_bound_and_nothing_beyond(
    feeds: Cache,
) -> None:
    await feeds.ask()
    success = feeds.state.last_success
    feeds.error = OSError("down")
    assert (await feeds.ask(299), feeds.answer) == ("stale", 1)
    assert feeds.state.last_error == feeds.error
    assert (feeds.state.up, feeds.state.last_success) == (False, success)
    assert (await feeds.ask(1), feeds.answer) == ("failed", None)
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


async def test_a_failure_and_a_recovery_are_reported_once_each(
    feeds: Cache, logs: list[MutableMapping[str, Any]]
) -> None:
    await feeds.ask()
    errors = (UnavailableError("a"), UnavailableError("b"), None, None, ZeroDivisionError())
    for error in errors:
        feeds.error = error
        # No pause after a failure is as long.
        await feeds.ask(200)
    assert [log["event"] for log in logs] == ["feeds failed", "feeds are back", "feeds failed"]
    # The last failure is a bug.
    assert "exc_info" in logs[-1]
    # They are about the platform.
    assert not any("hotkeys" in log for log in logs)


async def test_feeds_that_fail_for_one_reason_share_a_line_of_the_log(
    feeds: Cache, logs: list[MutableMapping[str, Any]]
) -> None:
    feeds.error = UnavailableError("down")
    await feeds.read_all([FEED, FEED.of("alice"), FEED.of("bob")], 5)
    (log,) = logs
    assert (log["event"], log["detail"]) == ("feeds failed", "down")
    assert (log["feeds"], log["hotkeys"]) == ("feed", "alice bob")


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
    assert [log["event"] for log in logs] == ["feeds off"]
    feeds.error = None
    assert await feeds.ask(3600) == "miss"
    assert (feeds.state.up, feeds.state.missing) == (True, False)
    assert [log["event"] for log in logs] == ["feeds off", "feeds are back"]


async def test_the_age_of_an_answer_counts_from_its_request(feeds: Cache) -> None:
    slow = await feeds.begin()
    feeds.time.now += 50
    feeds.open.set()
    assert await slow == "miss"
    assert feeds.state.last_success == 1000 + UNIX
    assert await feeds.ask(10) == "miss"


async def test_an_answer_that_takes_longer_than_it_would_be_kept_is_a_failure(
    feeds: Cache,
) -> None:
    slow = await feeds.begin()
    feeds.time.now += 301
    feeds.open.set()
    assert (await slow, feeds.answer) == ("failed", None)
    assert (feeds.state.up, type(feeds.state.last_error)) == (False, TimedOutError)


async def test_a_feed_is_down_once_a_request_takes_longer_than_its_last_answer_is_kept(
    feeds: Cache,
) -> None:
    await feeds.ask()
    slow = await feeds.begin(250)
    assert (feeds.state.up, feeds.state.last_error) == (True, None)
    feeds.time.now += 50
    assert (feeds.state.up, type(feeds.state.last_error)) == (False, TimedOutError)
    feeds.open.set()
    assert (await slow, feeds.state.up, feeds.state.last_failure) == ("miss", True, None)


async def test_a_feed_that_nobody_reads_any_more_is_neither_up_nor_down(feeds: Cache) -> None:
    await feeds.ask()
    feeds.time.now += FEED.max_age
    assert (feeds.state.up, feeds.state.failures) == (None, 0)


async def test_the_wait_that_the_upstream_asks_for_is_kept(feeds: Cache) -> None:
    feeds.error = UnavailableError("later", retry_after=60.0)
    await feeds.ask()
    assert (await feeds.ask(59), feeds.asked) == ("failed", 1)
    await feeds.ask(1)
    assert feeds.asked == 2


async def test_an_error_that_is_kept_holds_no_frames_once_it_is_logged(
    feeds: Cache, logs: list[MutableMapping[str, Any]]
) -> None:
    for error in (UnavailableError("down"), ZeroDivisionError(), ZeroDivisionError()):
        error.__context__ = OSError("the reason")
        feeds.error = error
        await feeds.ask(200)
        assert feeds.state.last_error is error
        assert error.__traceback__ is None
        assert error.__context__ is None
    # The feed fails all the time, which is logged once.
    assert [log["event"] for log in logs] == ["feeds failed"]


async def test_a_bug_is_logged_with_its_traceback(
    feeds: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_traceback = []

    # A log line is written at once. Later, the error has lost its traceback.
    def error(_event: str, *, exc_info: BaseException, **_more: Any) -> None:
        has_traceback.append(exc_info.__traceback__ is not None)

    bound_log = Mock(error=error)
    monkeypatch.setattr(cache, "_log", Mock(bind=Mock(return_value=bound_log)))
    feeds.error = ZeroDivisionError()
    await feeds.ask()
    assert has_traceback == [True]


async def test_a_forgotten_feed_does_not_return_with_a_late_answer(feeds: Cache) -> None:
    feeds.open.clear()
    await feeds.ask(timeout=0.01)
    feeds.forget([FEED, FEED.of("never known")])
    assert feeds.states() == {}
    # Somebody reads it again before the cancelled request has ended.
    again = await feeds.begin()
    assert feeds.state.flight
    feeds.open.set()
    assert (await again, feeds.answer, feeds.asked) == ("miss", 2, 2)
    feeds.forget([FEED])
    assert (feeds.states(), feeds.peek(FEED)) == ({}, None)


async def test_a_forgotten_feed_does_not_return_when_it_expires(feeds: Cache) -> None:
    await feeds.ask()
    feeds.forget([FEED])
    feeds.expire(FEED)
    assert feeds.states() == {}


async def test_of_the_feeds_that_nobody_wants_only_evidence_is_read(feeds: Cache) -> None:
    evidence, other = FEED.of("evidence"), FEED.of("other")
    feeds.keep_only([replace(FEED, evidence=(evidence,))])
    results = [await feeds.ask(feed=feed) for feed in (FEED, evidence, other)]
    assert results == ["miss", "miss", "failed"]
    assert feeds.states().keys() == {FEED, evidence}


async def test_an_answer_that_nobody_reads_any_more_leaves_memory_at_its_maximum_age(
    feeds: Cache,
) -> None:
    await feeds.ask()
    answer = weakref.ref(feeds.peek(FEED).answer)  # type: ignore[union-attr] # it succeeds
    assert answer() is not None
    feeds.time.now += FEED.max_age
    feeds.states()
    gc.collect()
    assert answer() is None


async def test_the_time_of_the_next_request_is_known(feeds: Cache) -> None:
    await feeds.ask()
    feeds.time.now += 20
    assert feeds.seconds_to_next_request(feeds.state) == FEED.ttl - 20
    feeds.time.now += 60
    assert feeds.seconds_to_next_request(feeds.state) <= 0
    feeds.error = OSError("down")
    await feeds.ask()
    first_pause = 5
    assert feeds.seconds_to_next_request(feeds.state) == first_pause


async def test_closing_cancels_requests_in_flight(feeds: Cache) -> None:
    feeds.open.clear()
    await feeds.ask(timeout=0.01)
    before = len(asyncio.all_tasks())
    await feeds.aclose()
    assert len(asyncio.all_tasks()) == before - 1

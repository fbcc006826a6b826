from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import structlog

from chutes_exporter.api.client import Answer
from chutes_exporter.api.endpoints import METAGRAPH
from chutes_exporter.api.errors import NotFoundError, UnavailableError
from chutes_exporter.feeds.cache import DeadlineError, FeedCache, FeedState
from chutes_exporter.feeds.feed import Feed, MissingEndpointError, Reading
from tests.support import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from typing import Any


FEED: Feed[Any] = Feed("feed", METAGRAPH, ttl=60, max_age=300, changes="live", optional=True)


class Upstream:
    """Counts how often it is asked, and answers with that count when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def __call__(self, _feed: Feed[Any]) -> Answer[int]:
        self.asked += 1
        number = self.asked
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return Answer(number, count=1)


@pytest.fixture
def time() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def feeds(upstream: Upstream, time: Clock) -> FeedCache:
    return FeedCache(upstream, monotonic=time, clock=lambda: time() + 5e8, jitter=lambda: 1.0)


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


async def read(feeds: FeedCache, timeout: float = 5) -> Reading[Any]:
    return await feeds.read(FEED, timeout)


def events(logs: list[MutableMapping[str, Any]]) -> list[str]:
    return [log["event"] for log in logs]


def only(feeds: FeedCache) -> FeedState:
    (state,) = feeds.states().values()
    return state


async def test_an_answer_serves_until_its_time_to_live_is_over(feeds: FeedCache, time: Clock) -> None:
    first = await read(feeds)
    time.now += 59
    second = await read(feeds)
    time.now += 1
    third = await read(feeds)
    assert [reading.result for reading in (first, second, third)] == ["miss", "hit", "miss"]
    assert [reading.snapshot and reading.snapshot.answer.value for reading in (first, second, third)] == [1, 1, 2]
    assert first.snapshot is second.snapshot
    assert third.snapshot is not None
    assert third.snapshot.at == time() + 5e8
    assert only(feeds).results == {"hit": 1, "miss": 2, "coalesced": 0, "stale": 0, "failed": 0}


async def test_an_answer_that_is_due_at_a_time_serves_until_then_and_once_it_is_overdue_for_its_ttl(
    feeds: FeedCache, upstream: Upstream, time: Clock
) -> None:
    feed = replace(FEED, due=lambda _answer: 5e8 + 1200.0)
    asked = []
    for time.now in (1000.0, 1199.0, 1200.0, 1259.0, 1260.0):
        await feeds.read(feed, 5)
        asked.append(upstream.asked)
    assert asked == [1, 1, 2, 2, 3]


async def test_an_answer_that_is_overdue_for_its_maximum_age_is_dropped_and_a_failure(
    feeds: FeedCache, time: Clock
) -> None:
    feed = replace(FEED, due=lambda _answer: 5e8 + 1200.0)
    found = []
    for time.now in (1000.0, 1440.0, 1499.0, 1500.0, 1560.0):
        reading = await feeds.read(feed, 5)
        found.append((reading.snapshot is not None, reading.result))
    # Due at 1200, with a maximum age of 300 seconds.
    assert found == [(True, "miss"), (True, "miss"), (True, "hit"), (False, "failed"), (False, "failed")]
    assert isinstance(only(feeds).last_error, UnavailableError)


async def test_a_feed_in_the_background_serves_its_last_answer_while_it_is_requested(
    feeds: FeedCache, upstream: Upstream, time: Clock
) -> None:
    feed = replace(FEED, in_background=True)
    results = [(await feeds.read(feed, 5)).result]
    upstream.open.clear()
    time.now += 60
    results += [(await feeds.read(feed, 5)).result for _ in range(2)]
    assert results == ["miss", "hit", "hit"]
    assert only(feeds).fresh
    upstream.error = UnavailableError("no")
    upstream.open.set()
    while only(feeds).flight:
        await asyncio.sleep(0)
    time.now += 10
    late = await feeds.read(feed, 5)
    assert (late.result, str(late.error)) == ("stale", "no")
    assert upstream.asked == 3
    assert not only(feeds).fresh
    await feeds.aclose()


async def test_readers_at_the_same_time_share_one_request(feeds: FeedCache, upstream: Upstream) -> None:
    readings = await asyncio.gather(*(read(feeds) for _ in range(50)))
    assert upstream.asked == 1
    assert sorted(reading.result for reading in readings) == ["coalesced"] * 49 + ["miss"]


async def test_a_reader_that_gives_up_cancels_nobody_else(feeds: FeedCache, upstream: Upstream) -> None:
    upstream.open.clear()
    leaving = asyncio.create_task(read(feeds))
    staying = asyncio.create_task(read(feeds))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    upstream.open.set()
    reading = await staying
    assert reading.snapshot is not None
    assert upstream.asked == 1


async def test_a_late_answer_is_left_out_and_serves_the_next_scrape(feeds: FeedCache, upstream: Upstream) -> None:
    upstream.open.clear()
    reading = await read(feeds, timeout=0.01)
    assert (reading.snapshot, reading.result) == (None, "failed")
    assert isinstance(reading.error, DeadlineError)
    assert only(feeds).up is None
    upstream.open.set()
    reading = await read(feeds)
    assert (reading.result, reading.error) == ("coalesced", None)
    assert upstream.asked == 1


async def test_a_failure_serves_older_data_inside_its_bound_and_nothing_beyond(
    feeds: FeedCache, upstream: Upstream, time: Clock
) -> None:
    await read(feeds)
    success = only(feeds).last_success
    upstream.error = OSError("down")
    time.now += 299
    stale = await read(feeds)
    assert stale.snapshot is not None
    assert (stale.snapshot.answer.value, stale.result, stale.error) == (1, "stale", upstream.error)
    assert only(feeds).up is False
    assert only(feeds).last_success == success
    time.now += 1
    gone = await read(feeds)
    assert (gone.snapshot, gone.result, gone.error) == (None, "failed", upstream.error)


async def test_failures_leave_the_upstream_alone_for_longer_and_longer(
    feeds: FeedCache, upstream: Upstream, time: Clock
) -> None:
    upstream.error = OSError("down")
    asked_at = []
    for _ in range(700):
        before = upstream.asked
        await read(feeds)
        if upstream.asked > before:
            asked_at.append(time.now - 1000)
        time.now += 1
    assert asked_at == [0, 5, 15, 35, 75, 155, 275, 395, 515, 635]


async def test_a_failure_and_a_recovery_are_reported_once_each(
    feeds: FeedCache, upstream: Upstream, time: Clock, logs: list[MutableMapping[str, Any]]
) -> None:
    await read(feeds)
    for error in (UnavailableError("a"), UnavailableError("b"), None, None, ZeroDivisionError()):
        upstream.error = error
        time.now += 200
        await read(feeds)
    assert events(logs) == ["feeds failed", "feeds are back", "feeds failed"]
    assert "exc_info" in logs[-1]
    assert not any("hotkeys" in log for log in logs)


async def test_feeds_that_fail_for_one_reason_share_a_line_of_the_log(
    feeds: FeedCache, upstream: Upstream, logs: list[MutableMapping[str, Any]]
) -> None:
    upstream.error = UnavailableError("down")
    await feeds.read_all([FEED, FEED.of("alice"), FEED.of("bob")], 5)
    (log,) = logs
    assert (log["event"], log["feeds"], log["hotkeys"], log["detail"]) == ("feeds failed", "feed", "alice bob", "down")


async def test_an_endpoint_that_is_missing_is_asked_for_again_after_an_hour(
    feeds: FeedCache, upstream: Upstream, time: Clock, logs: list[MutableMapping[str, Any]]
) -> None:
    upstream.error = NotFoundError("404")
    for _ in range(3):
        reading = await read(feeds)
        assert reading.snapshot is None
        assert isinstance(reading.error, MissingEndpointError)
    time.now += 3599
    await read(feeds)
    assert upstream.asked == 1
    state = only(feeds)
    # It is neither up nor down, and its readings are no failures.
    assert (state.up, state.missing) == (None, True)
    assert set(state.results.values()) == {0}
    time.now += 1
    await read(feeds)
    assert upstream.asked == 2
    assert events(logs) == ["feeds off"]
    upstream.error = None
    time.now += 3600
    assert (await read(feeds)).result == "miss"
    state = only(feeds)
    assert (state.up, state.missing) == (True, False)
    assert events(logs) == ["feeds off", "feeds are back"]


async def test_the_age_of_an_answer_counts_from_its_request(feeds: FeedCache, upstream: Upstream, time: Clock) -> None:
    upstream.open.clear()
    slow = asyncio.create_task(read(feeds))
    await asyncio.sleep(0.01)
    time.now += 50
    upstream.open.set()
    first = await slow
    assert first.snapshot is not None
    assert first.snapshot.at == only(feeds).last_success == 1000 + 5e8
    time.now += 10
    assert (await read(feeds)).result == "miss"
    # An answer that took longer than data is kept is too old when it comes.
    time.now += 301
    upstream.open.clear()
    slow = asyncio.create_task(read(feeds))
    await asyncio.sleep(0.01)
    time.now += 301
    upstream.open.set()
    assert (await slow).snapshot is None


async def test_the_wait_that_the_upstream_asks_for_is_kept(feeds: FeedCache, upstream: Upstream, time: Clock) -> None:
    upstream.error = UnavailableError("later", retry_after=60.0)
    await read(feeds)
    time.now += 59
    assert (await read(feeds)).error is upstream.error
    assert upstream.asked == 1
    time.now += 1
    await read(feeds)
    assert upstream.asked == 2


async def test_a_forgotten_feed_does_not_return_with_a_late_answer(feeds: FeedCache, upstream: Upstream) -> None:
    upstream.open.clear()
    await read(feeds, timeout=0.01)
    feeds.forget([FEED, FEED.of("never known")])
    assert feeds.states() == {}
    # Somebody reads it again before the cancelled request has ended.
    again = asyncio.create_task(read(feeds))
    await asyncio.sleep(0.01)
    assert only(feeds).flight
    upstream.open.set()
    snapshot = (await again).snapshot
    assert snapshot is not None
    assert snapshot.answer.value == upstream.asked == 2
    feeds.forget([FEED])
    assert (feeds.states(), feeds.peek(FEED)) == ({}, None)


async def test_an_answer_that_nobody_reads_any_more_leaves_memory_at_its_maximum_age(
    feeds: FeedCache, time: Clock
) -> None:
    answer = weakref.ref((await read(feeds)).snapshot.answer)  # type: ignore[union-attr] # it succeeds
    assert answer() is not None
    time.now += FEED.max_age
    feeds.states()
    gc.collect()
    assert answer() is None


async def test_the_time_of_the_next_request_is_known(feeds: FeedCache, upstream: Upstream, time: Clock) -> None:
    await read(feeds)
    time.now += 20
    assert feeds.seconds_to_next_request(only(feeds)) == 40
    time.now += 60
    assert feeds.seconds_to_next_request(only(feeds)) <= 0
    upstream.error = OSError("down")
    await read(feeds)
    assert feeds.seconds_to_next_request(only(feeds)) == 5


async def test_closing_cancels_requests_in_flight(feeds: FeedCache, upstream: Upstream) -> None:
    upstream.open.clear()
    await read(feeds, timeout=0.01)
    before = len(asyncio.all_tasks())
    await feeds.aclose()
    assert len(asyncio.all_tasks()) == before - 1

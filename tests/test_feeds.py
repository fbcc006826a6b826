from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.feeds.cache import DeadlineError, Feed, Feeds, Policy, Reading, steady

if TYPE_CHECKING:
    from collections.abc import Hashable

POLICY = Policy(ttl=60, max_age=300)


class Upstream:
    """Counts how often it is asked, and answers with that count when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return number


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def changes() -> list[tuple[Hashable, bool | None]]:
    return []


@pytest.fixture
def feeds(time: Time, changes: list[tuple[Hashable, bool | None]]) -> Feeds:
    return Feeds(
        monotonic=time,
        clock=lambda: time() + 5e8,
        jitter=lambda: 1.0,
        on_change=lambda key, feed: changes.append((key, feed.up)),
    )


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


async def read(feeds: Feeds, upstream: Upstream, timeout: float = 5) -> Reading[int]:
    return await feeds.read("feed", upstream, POLICY, timeout=timeout)


def only(feeds: Feeds) -> Feed:
    ((_, feed),) = feeds.items()
    return feed


async def test_an_answer_serves_until_its_time_to_live_is_over(feeds: Feeds, upstream: Upstream, time: Time) -> None:
    first = await read(feeds, upstream)
    time.now += 59
    second = await read(feeds, upstream)
    time.now += 1
    third = await read(feeds, upstream)
    assert [reading.result for reading in (first, second, third)] == ["miss", "hit", "miss"]
    assert [reading.snapshot and reading.snapshot.value for reading in (first, second, third)] == [1, 1, 2]
    assert first.snapshot is second.snapshot
    assert third.snapshot is not None
    assert third.snapshot.at == time() + 5e8
    assert only(feeds).results == {"hit": 1, "miss": 2, "joined": 0, "stale": 0, "failed": 0}


async def test_readers_at_the_same_time_share_one_request(feeds: Feeds, upstream: Upstream) -> None:
    readings = await asyncio.gather(*(read(feeds, upstream) for _ in range(50)))
    assert upstream.asked == 1
    assert sorted(reading.result for reading in readings) == ["joined"] * 49 + ["miss"]


async def test_a_reader_that_gives_up_cancels_nobody_else(feeds: Feeds, upstream: Upstream) -> None:
    upstream.open.clear()
    leaving = asyncio.create_task(read(feeds, upstream))
    staying = asyncio.create_task(read(feeds, upstream))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    upstream.open.set()
    reading = await staying
    assert reading.snapshot is not None
    assert upstream.asked == 1


async def test_what_is_late_is_left_out_and_serves_the_next(feeds: Feeds, upstream: Upstream) -> None:
    upstream.open.clear()
    reading = await read(feeds, upstream, timeout=0.01)
    assert (reading.snapshot, reading.result) == (None, "failed")
    assert isinstance(reading.error, DeadlineError)
    assert only(feeds).up is None
    upstream.open.set()
    reading = await read(feeds, upstream)
    assert (reading.result, reading.error) == ("joined", None)
    assert upstream.asked == 1


async def test_while_a_request_hangs_older_data_serves_and_says_so(
    feeds: Feeds, upstream: Upstream, time: Time
) -> None:
    await read(feeds, upstream)
    time.now += 100
    upstream.open.clear()
    reading = await read(feeds, upstream, timeout=0.01)
    assert reading.snapshot is not None
    assert (reading.snapshot.value, reading.result) == (1, "stale")
    assert isinstance(reading.error, DeadlineError)
    await feeds.aclose()


async def test_a_failure_serves_older_data_inside_its_bound_and_nothing_beyond(
    feeds: Feeds, upstream: Upstream, time: Time
) -> None:
    await read(feeds, upstream)
    success = only(feeds).last_success
    upstream.error = OSError("down")
    time.now += 299
    stale = await read(feeds, upstream)
    assert stale.snapshot is not None
    assert (stale.snapshot.value, stale.result, stale.error) == (1, "stale", upstream.error)
    assert only(feeds).up is False
    assert only(feeds).last_success == success
    time.now += 1
    gone = await read(feeds, upstream)
    assert (gone.snapshot, gone.result, gone.error) == (None, "failed", upstream.error)


async def test_failures_leave_the_upstream_alone_for_longer_and_longer(
    feeds: Feeds, upstream: Upstream, time: Time
) -> None:
    upstream.error = OSError("down")
    asked_at = []
    for _ in range(700):
        before = upstream.asked
        await read(feeds, upstream)
        if upstream.asked > before:
            asked_at.append(time.now - 1000)
        time.now += 1
    assert asked_at == [0, 5, 15, 35, 75, 155, 275, 395, 515, 635]


async def test_the_wait_that_the_upstream_asks_for_is_kept(feeds: Feeds, upstream: Upstream, time: Time) -> None:
    upstream.error = OSError("later")
    upstream.error.retry_after = 60.0  # type: ignore[attr-defined]
    await read(feeds, upstream)
    time.now += 59
    await read(feeds, upstream)
    assert upstream.asked == 1
    time.now += 1
    await read(feeds, upstream)
    assert upstream.asked == 2


async def test_going_down_and_coming_back_are_told_once_each(
    feeds: Feeds, upstream: Upstream, time: Time, changes: list[tuple[Hashable, bool | None]]
) -> None:
    await read(feeds, upstream)
    for error in (OSError("a"), OSError("b"), None, None):
        upstream.error = error
        time.now += 200
        await read(feeds, upstream)
    assert changes == [("feed", False), ("feed", True)]


async def test_a_request_that_is_given_up_leaves_old_data_old(feeds: Feeds, upstream: Upstream, time: Time) -> None:
    await read(feeds, upstream)
    time.now += 100
    upstream.open.clear()
    reading = asyncio.create_task(read(feeds, upstream))
    await asyncio.sleep(0)
    await feeds.aclose()
    assert (await reading).result == "stale"
    assert (await reading).error is not None


async def test_age_counts_from_when_an_answer_was_asked_for(feeds: Feeds, upstream: Upstream, time: Time) -> None:
    upstream.open.clear()
    slow = asyncio.create_task(read(feeds, upstream))
    await asyncio.sleep(0.01)
    time.now += 50
    upstream.open.set()
    first = await slow
    assert first.snapshot is not None
    assert first.snapshot.at == only(feeds).last_success == 1000 + 5e8
    time.now += 10
    assert (await read(feeds, upstream)).result == "miss"
    # An answer that took longer than data is kept is too old when it comes.
    time.now += 301
    upstream.open.clear()
    slow = asyncio.create_task(read(feeds, upstream))
    await asyncio.sleep(0.01)
    time.now += 301
    upstream.open.set()
    assert (await slow).snapshot is None


async def test_feeds_of_a_group_wait_together_where_the_upstream_asks_for_it(
    feeds: Feeds, upstream: Upstream, time: Time
) -> None:
    async def ask(key: str, group: str) -> Reading[int]:
        return await feeds.read(key, upstream, POLICY, timeout=5, group=group)

    upstream.error = OSError("later")
    await ask("a", "one")
    assert upstream.asked == 1
    # A failure alone says nothing of the others.
    await ask("b", "one")
    assert upstream.asked == 2
    upstream.error.retry_after = 60.0  # type: ignore[attr-defined]
    await ask("c", "one")
    assert upstream.asked == 3
    time.now += 59
    waiting = await ask("d", "one")
    assert (waiting.result, waiting.error, upstream.asked) == ("failed", upstream.error, 3)
    await ask("e", "two")
    assert upstream.asked == 4
    time.now += 1
    upstream.error = None
    assert (await ask("d", "one")).result == "miss"


async def test_in_a_hurry_nobody_waits_and_nothing_is_asked(feeds: Feeds, upstream: Upstream, time: Time) -> None:
    await read(feeds, upstream)
    time.now += 100
    upstream.open.clear()
    waiting = asyncio.create_task(read(feeds, upstream))
    await asyncio.sleep(0.01)
    feeds.hurry()
    feeds.hurry()
    assert ((await waiting).result, upstream.asked) == ("stale", 2)
    # What is under way is not waited for, what is not is not begun.
    assert (await read(feeds, upstream)).result == "stale"
    assert (await feeds.read("another", upstream, POLICY, timeout=5)).result == "failed"
    assert upstream.asked == 2
    await feeds.aclose()


async def test_who_was_in_a_hurry_before_the_first_reading_gets_nothing(feeds: Feeds, upstream: Upstream) -> None:
    feeds.hurry()
    assert (await read(feeds, upstream)).result == "failed"
    assert upstream.asked == 0


async def test_what_is_forgotten_is_gone_and_its_late_answer_too(feeds: Feeds, upstream: Upstream) -> None:
    await read(feeds, upstream)
    feeds.forget(["feed", "never known"])
    assert list(feeds.items()) == []
    assert feeds.peek("feed") is None
    upstream.open.clear()
    await read(feeds, upstream, timeout=0.01)
    assert feeds.under_way("feed")
    feeds.forget(["feed"])
    upstream.open.set()
    await asyncio.sleep(0.01)
    assert not feeds.under_way("feed")
    assert feeds.peek("feed") is None


async def test_a_feed_that_nobody_reads_any_more_is_forgotten_in_time(
    feeds: Feeds, upstream: Upstream, time: Time
) -> None:
    await read(feeds, upstream)
    time.now += 30
    await read(feeds, upstream)
    time.now += 900
    assert len(list(feeds.items())) == 1
    time.now += 1
    assert list(feeds.items()) == []
    # Not while it is being asked.
    upstream.open.clear()
    await read(feeds, upstream, timeout=0.01)
    time.now += 1000
    assert len(list(feeds.items())) == 1
    await feeds.aclose()


async def test_when_the_next_reading_asks_is_known(feeds: Feeds, upstream: Upstream, time: Time) -> None:
    await read(feeds, upstream)
    time.now += 20
    assert feeds.opens_at(only(feeds)) == 40
    time.now += 60
    assert feeds.opens_at(only(feeds)) <= 0
    upstream.error = OSError("down")
    await read(feeds, upstream)
    assert feeds.opens_at(only(feeds)) == 5


async def test_the_clock_of_ages_never_goes_back() -> None:
    assert steady() <= steady()


async def test_closing_gives_up_what_is_under_way(feeds: Feeds, upstream: Upstream) -> None:
    upstream.open.clear()
    await read(feeds, upstream, timeout=0.01)
    before = len(asyncio.all_tasks())
    await feeds.aclose()
    assert len(asyncio.all_tasks()) == before - 1

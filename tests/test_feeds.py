from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.feeds import DeadlineError, Feed, Feeds, Policy, Reading

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


async def test_closing_gives_up_what_is_under_way(feeds: Feeds, upstream: Upstream) -> None:
    upstream.open.clear()
    await read(feeds, upstream, timeout=0.01)
    before = len(asyncio.all_tasks())
    await feeds.aclose()
    assert len(asyncio.all_tasks()) == before - 1

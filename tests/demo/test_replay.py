from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chutes_exporter.demo.day import Day
from chutes_exporter.demo.replay import Replay
from chutes_exporter.duration import HOUR, MINUTE
from chutes_exporter.page.exporter import Exporter
from tests.exporters import asked_by, page_of, read_reports, watching
from tests.pages import data_of, successes
from tests.support import NOON, Clock, get, recorded_day, until

if TYPE_CHECKING:
    from tests.pages import Page

RECORDED = recorded_day()
TROUBLED, HEALTHY = RECORDED.miners["troubled"], RECORDED.miners["healthy"]


async def whole_page(replay: Replay, clock: Clock) -> Page:
    """Return the page of an exporter that has read everything, also in the background."""
    settings = watching(replay.url, TROUBLED, HEALTHY, chain_url=replay.chain_url)
    async with Exporter(settings, clock=clock) as exporter:
        await page_of(exporter)
        await read_reports(exporter)
        await page_of(exporter)
        await until(lambda: not asked_by(exporter))
        return await page_of(exporter)


async def test_the_exporter_believes_each_answer_of_the_day_and_of_its_chain() -> None:
    for hour in (0, 22, 25):
        clock = Clock(NOON)
        async with Replay(RECORDED, at=hour * HOUR, clock=clock) as replay:
            page = await whole_page(replay, clock)
        assert set(successes(page).values()) == {1}
        for (name, labels), value in page.items():
            if name == "chutes_feed_up":
                assert value == 1, labels
            if name in ("chutes_feed_doubted", "chutes_feed_rejected_records"):
                assert value == 0, labels


async def test_all_times_move_with_the_day() -> None:
    pages = []
    for start in (RECORDED.first + 22 * HOUR, NOON):
        clock = Clock(start)
        async with Replay(RECORDED, clock=clock) as replay:
            page = data_of(await whole_page(replay, clock))
        moved = {}
        for (name, labels), value in page.items():
            since = value - start if name.endswith("_timestamp_seconds") else value
            moved[name, labels] = pytest.approx(since, abs=1)
        pages.append(moved)
    recorded, today = pages
    assert today == recorded


async def test_the_day_goes_on_and_stands_still_at_its_end() -> None:
    clock = Clock(NOON)
    async with Replay(RECORDED, at=23 * HOUR, clock=clock) as replay:
        bounties = f"{replay.url}/bounties/"
        first = await get(bounties)
        clock.now += 50 * MINUTE
        later = await get(bounties)
        clock.now += 50 * MINUTE
        assert replay.moment() == RECORDED.last
        end = await get(bounties)
        clock.now += 60 * HOUR
        after = await get(bounties)
    assert first.text != later.text
    assert end.text == after.text
    assert first.headers["date"] == "Tue, 24 Nov 2026 12:00:00 GMT"
    assert after.headers["date"] == "Fri, 27 Nov 2026 01:40:00 GMT"


def test_a_day_is_answered_in_any_order() -> None:
    day = Day()
    moments = [HOUR * hour for hour in (22, 3, 3, 23, 0)]
    in_any_order = [day.answer("chutes", moment) for moment in moments]
    for moment, answer in zip(moments, in_any_order, strict=True):
        assert Day().answer("chutes", moment) == answer

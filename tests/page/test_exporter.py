from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import structlog

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.feeds.definitions import (
    BOUNTIES,
    ENDPOINTS,
    METAGRAPH,
    SCORES,
    UNIQUE_CHUTE_HISTORY,
)
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.page.maker import PageMaker
from tests.exporters import asked_by, hold, page_of, patient, watching
from tests.pages import Page, data_of, names, series, successes
from tests.replay import Fault, Replay
from tests.support import AT_22, HOTKEY, PATIENCE, Clock, find_collector, until

OTHER = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"
EVERY = {endpoint.name for endpoint in ENDPOINTS}
"""The names of all endpoints."""
UP = "chutes_feed_up"


@pytest.mark.parametrize(
    ("hanging", "miners"), [({"nodes", "stats"}, 1), ({"nodes", "stats"}, 2), (EVERY, 1)]
)
async def test_endpoints_that_hang_for_all_keys_leave_the_others(
    replay: Replay, hanging: set[str], miners: int
) -> None:
    replay.faults.update(dict.fromkeys(hanging, Fault(latency=600)))
    keys = [*replay.day.miners.values()][:miners]

    async def only_those_hang() -> bool:
        page = await page_of(exporter, timeout=1)
        return failed_collectors(page) == collectors_that_read(hanging, exporter)

    # The requests that hang do so for longer than the test waits.
    async with Exporter(
        watching(replay.url, *keys, api_timeout=600), clock=replay.clock
    ) as exporter:
        await until(only_those_hang)


def failed_collectors(page: Page) -> set[tuple[str, str]]:
    """Return the name and hotkey of each collector that a page calls not successful."""
    failed = set()
    for (name, labels), success in page.items():
        if name == "chutes_scrape_collector_success" and not success:
            label = dict(labels)
            failed.add((label["collector"], label.get("hotkey", "")))
    return failed


def collectors_that_read(endpoints: set[str], exporter: Exporter) -> set[tuple[str, str]]:
    """Return the name and hotkey of each collector that reads one of the endpoints."""
    found = set()
    for entry in exporter.plan.entries:
        for hotkey, feeds in entry.feeds.items():
            if any(feed.name.removesuffix("_per_chute") in endpoints for feed in feeds):
                found.add((entry.collector.name, hotkey))
    return found


async def test_a_reload_cancels_the_requests_of_a_key_that_is_gone(replay: Replay) -> None:
    replay.faults.update(nodes=Fault(latency=600), instances=Fault(latency=600))
    async with Exporter(watching(replay.url, api_timeout=600), clock=replay.clock) as exporter:
        with structlog.testing.capture_logs() as logs:
            scraped = asyncio.create_task(page_of(exporter, timeout=600))
            await until(lambda: {"nodes", "instances"} <= asked_by(exporter))
            exporter.reconfigure(patient(replay.url))
            await asyncio.wait_for(scraped, PATIENCE)
        # To be cancelled is no failure.
        assert [log for log in logs if log["event"] == "feed failed"] == []
        assert exporter.readiness() == (True, "Ready.")
        # Only the feeds of the platform are left.
        assert {state.feed.hotkey for state in exporter.feeds.states().values()} == {""}


async def test_the_end_cancels_the_requests_in_flight(replay: Replay) -> None:
    replay.faults["nodes"] = Fault(latency=600)
    async with Exporter(watching(replay.url, api_timeout=600), clock=replay.clock) as exporter:
        await page_of(exporter, timeout=0.1)
        states = exporter.feeds.states().values()
        flights = [state.flight for state in states if state.flight is not None]
    assert flights
    assert all(flight.done() for flight in flights)


async def test_threads_that_wait_for_a_name_server_delay_no_page(replay: Replay) -> None:
    end = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        # asyncio asks name servers in these threads. The only one is busy until the end.
        asyncio.get_running_loop().set_default_executor(threads)
        waiting = asyncio.create_task(asyncio.to_thread(end.wait))
        try:
            async with Exporter(patient(replay.url), clock=replay.clock) as exporter:
                async with asyncio.timeout(PATIENCE):
                    page = await page_of(exporter, timeout=0.1)
                    await exporter.snapshot({"chutes_scored_miners"})
        finally:
            end.set()
        await waiting
    assert series("chutes_scrape_series") in page


async def test_pages_are_made_one_at_a_time_in_a_thread_and_shared_by_those_that_wait(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, working, threads = PageMaker.make, threading.Lock(), list[int]()

    def make_alone(*arguments: Any, **options: Any) -> bytes:
        threads.append(threading.get_ident())
        # Another page must not be made at the same time.
        assert working.acquire(blocking=False)
        try:
            time.sleep(0.1)
            return make(*arguments, **options)
        finally:
            working.release()

    monkeypatch.setattr(PageMaker, "make", make_alone)
    async with Exporter(watching(replay.url), clock=replay.clock) as exporter:
        await exporter.warm_up()
        leaving = asyncio.create_task(exporter.metrics(Format.TEXT, timeout=5))
        await until(working.locked)
        leaving.cancel()
        pages = await asyncio.gather(*(page_of(exporter) for _ in range(9)))
    assert threading.get_ident() not in threads
    # One for the scraper that left, and one for all others.
    assert len(threads) == 2
    assert [set(successes(page).values()) for page in pages] == [{1.0}] * 9


async def test_data_that_grows_too_old_while_a_scrape_waits_is_gone_from_its_page(
    replay: Replay, clock: Clock
) -> None:
    async with Exporter(watching(replay.url), clock=clock, monotonic=clock) as exporter:
        assert "chutes_metagraph_miners" in names(await page_of(exporter))
        exporter.feeds.expire(SCORES)
        release = hold(exporter, "scores")
        waiting = asyncio.create_task(page_of(exporter))
        await until(lambda: asked_by(exporter) == {"scores"})
        clock.now += METAGRAPH.max_age + 1
        release.set()
        page = await waiting
    assert "chutes_metagraph_miners" not in names(page)
    assert successes(page)["metagraph"] == 0


async def test_a_page_too_large_loses_whole_collectors_the_least_important_first(
    replay: Replay, clock: Clock
) -> None:
    settings = watching(replay.url)
    async with Exporter(settings, clock=clock) as exporter:
        whole = await page_of(exporter)
    size = whole[series("chutes_scrape_series")]
    assert size == len(data_of(whole))
    # One series less than the page has.
    limited = replace(settings, max_series=int(size) - 1)
    async with Exporter(limited, clock=clock) as exporter:
        page = await page_of(exporter)
        assert collectors_with(page, "_cut") == ["stats_per_chute"]
        metrics = {metric.name for metric in find_collector("stats_per_chute").metrics}
        cut = {key for key in whole if key[0] in metrics}
        gone = whole.keys() - page.keys()
        # What the exporter says of its requests differs, too.
        assert cut == {key for key in gone if not key[0].startswith("chutes_api_")}
        assert page[series("chutes_scrape_series")] == size
        assert page[series("chutes_scrape_series_limit")] == size - 1
        # Without the bounties, there is room again. The collector that is cut has no new answer.
        replay.faults["bounties"] = Fault(status=500)
        exporter.feeds.forget([BOUNTIES])
        assert collectors_with(await page_of(exporter), "_cut") == []


def collectors_with(page: Page, end: str) -> list[str]:
    """Return the collectors for which a metric with this end of its name is not 0."""
    return sorted(
        dict(labels)["collector"]
        for (name, labels), value in page.items()
        if name.endswith(end) and value
    )


@pytest.mark.parametrize("name", ["utilization", "bounties", "rolling_updates", "maintenance"])
async def test_a_collector_whose_endpoint_a_deployment_lacks_is_off(
    replay: Replay, name: str
) -> None:
    replay.faults[name] = Fault(status=404)
    settings = watching(replay.url)
    with structlog.testing.capture_logs() as logs:
        async with Exporter(settings, clock=replay.clock) as exporter:
            # It stays off in later pages.
            for _ in range(2):
                await page_of(exporter)
            page = await page_of(exporter)
            ready = exporter.readiness()
    reading = [one.name for one in COLLECTORS if name in {feed.name for feed in one.feeds}]
    assert name in reading
    assert collectors_with(page, "_off") == sorted(reading)
    assert not names(page) & {metric.name for metric in find_collector(name).metrics}
    # Nothing about it looks like a failure.
    assert name not in successes(page)
    assert set(successes(page).values()) == {1.0}
    assert not [labels for _, labels in page if ("feed", name) in labels]
    assert "chutes_feed_failure_info" not in names(page)
    assert ready == (True, "Ready.")
    (log,) = [log for log in logs if log["event"] != "requested"]
    assert (log["event"], log["feed"], log["log_level"]) == ("feed is off", name, "info")
    assert log["reason"].endswith("(404)")
    # It is not asked again for an hour.
    assert [asked.endpoint for asked in replay.requests].count(name) == 1


async def test_a_page_never_dates_its_data_later_than_it_is(replay: Replay, clock: Clock) -> None:
    async with Exporter(watching(replay.url), clock=clock, monotonic=clock) as exporter:
        release = hold(exporter, "scores")
        # One scrape has the history and waits for the scores; another brings a newer history
        # meanwhile.
        waiting = asyncio.create_task(page_of(exporter))
        await until(lambda: asked_by(exporter) == {"scores"})
        # More than an hour, so that the history has another hour.
        clock.now += 4000
        await exporter.feeds.read(UNIQUE_CHUTE_HISTORY.of(HOTKEY), PATIENCE)
        release.set()
        page = await waiting
    # The page has the newer history, and the time of its request.
    feed = {"feed": "unique_chute_history", "hotkey": HOTKEY}
    asked_at = page[series("chutes_feed_last_success_timestamp_seconds", **feed)]
    assert asked_at == pytest.approx(AT_22 + 4000, abs=1)
    history = replay.day.answer("unique_chute_history", replay.moment(), HOTKEY)
    assert history is not None
    newest = datetime.fromisoformat(history[-1]["time"]).timestamp()
    assert page[series("chutes_miner_history_timestamp_seconds", hotkey=HOTKEY)] == newest

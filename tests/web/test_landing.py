from __future__ import annotations

import re

from chutes_exporter.config import Settings
from chutes_exporter.simulator import Fault, Simulator
from chutes_exporter.web.landing import landing_page
from tests.support import HOTKEY, Clock, get, served_exporter, watching


async def test_the_landing_page_says_how_each_feed_is(simulator: Simulator, clock: Clock) -> None:
    async with served_exporter(watching(simulator.url), clock, monotonic=clock) as (url, exporter):
        assert "No requests yet" in (await get(f"{url}/")).text
        simulator.faults["scores"] = Fault(status=500, body=b'{"detail": "<script>alert(1)</script>"}')
        simulator.faults["stats"] = Fault(latency=30)
        await get(f"{url}/metrics", **{"X-Prometheus-Scrape-Timeout-Seconds": "3"})
        clock.now += 30
        page = landing_page(exporter, clock.now)
    assert HOTKEY in page
    assert "<script>" not in page
    assert "waiting for the first answer" in page
    rows = {
        row.split("</td>")[0].rpartition(">")[2]: re.findall(r'data-name="([^"]+)">(.*?)</td>', row)
        for row in page.split("<tr>")[2:]
    }
    assert rows["metagraph"] == [
        ("Feed", "metagraph"),
        ("Hotkey", "all miners"),
        ("State", "up"),
        ("Newest answer", "30 seconds old"),
        ("Next request", "in 2 minutes"),
        ("Last error", "none"),
    ]
    assert dict(rows["stats"])["Next request"] == "in progress"
    assert "down" in dict(rows["scores"])["State"]
    assert dict(rows["scores"])["Last error"].startswith("30 seconds ago: 500 &lt;script&gt;alert(1)")
    assert dict(rows["scores"])["Newest answer"] == "none"
    assert dict(rows["scores"])["Next request"] == "with the next scrape"


async def test_the_landing_page_remembers_the_last_error_of_a_feed_that_is_back(
    simulator: Simulator, clock: Clock
) -> None:
    simulator.faults["scores"] = Fault(status=500, times=1)
    async with served_exporter(watching(simulator.url), clock, monotonic=clock) as (url, exporter):
        await get(f"{url}/metrics")
        clock.now += 60
        await get(f"{url}/metrics")
        page = landing_page(exporter, clock.now)
    assert "1 minute ago: 500 simulated fault." in page
    assert 'class="bad"' not in page


async def test_the_landing_page_marks_dropped_answers(simulator: Simulator, clock: Clock) -> None:
    async with served_exporter(watching(simulator.url), clock, monotonic=clock) as (url, exporter):
        await get(f"{url}/metrics")
        simulator.faults["scores"] = Fault(status=500)
        for _ in range(2):
            clock.now += 1000
            await get(f"{url}/metrics")
        assert "33 minutes old, dropped" in landing_page(exporter, clock.now)


async def test_the_landing_page_without_hotkeys_says_that_it_watches_everybody(simulator: Simulator) -> None:
    async with served_exporter(Settings(api_url=simulator.url)) as (url, _):
        assert "the whole subnet" in (await get(f"{url}/")).text


async def test_the_landing_page_says_what_this_api_does_not_have(simulator: Simulator, clock: Clock) -> None:
    simulator.faults["bounties"] = Fault(status=404)
    async with served_exporter(watching(simulator.url), clock, monotonic=clock) as (url, exporter):
        await get(f"{url}/metrics")
        page = landing_page(exporter, clock.now)
    assert "off: this API does not have the endpoint" in page
    assert 'class="bad"' not in page

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

from chutes_exporter import findings
from chutes_exporter.rules.money import Costs
from chutes_exporter.web.landing import landing_page
from tests.exporters import asked_by, hold, read_reports, served, served_exporter, watching
from tests.replay import Fault, Replay
from tests.support import HOTKEY, Clock, get, until

if TYPE_CHECKING:
    import pytest

    from chutes_exporter.findings import Finding
    from chutes_exporter.fleet.model import Fleet


def feeds(page: str) -> dict[str, dict[str, str]]:
    """Return the text of the cells of the page's feeds, by feed and column.

    Of several hotkeys, the last one counts.
    """
    rows = {}
    for row in page.split("<tr ")[1:]:
        cells = dict(re.findall(r'data-name="([^"]+)">(.*?)</td>', row))
        if "Feed" in cells:
            assert row.startswith(f'class="{cells["State"]}">')
            rows[cells["Feed"]] = cells
    return rows


async def test_the_landing_page_says_how_each_feed_is(replay: Replay, clock: Clock) -> None:
    # No request times out while the test holds it back.
    settings = watching(replay.url, api_timeout=600, collectors={"jobs": False})
    async with served_exporter(settings, clock, monotonic=clock) as (url, exporter):
        page = (await get(f"{url}/")).text
        assert "No requests yet" in page
        assert f"<p>Watched: {HOTKEY}</p>" in page
        assert '<td data-name="State">off by flag</td><td data-name="Names">jobs</td>' in page
        # It is not ready.
        assert '<p class="state bad">' in page
        script = b'{"detail": "<script>alert(1)</script>"}'
        replay.faults["scores"] = Fault(status=500, body=script)
        # Both feeds of this endpoint are in progress while the page is made.
        release = hold(exporter, "stats")
        scrape = asyncio.create_task(get(f"{url}/metrics"))
        await until(lambda: asked_by(exporter) == {"stats", "stats_per_chute"})
        clock.now += 30
        page = await landing_page(exporter)
        release.set()
        await scrape
    assert "<script>" not in page
    rows = feeds(page)
    # The feed that fails comes first.
    assert next(iter(rows)) == "scores"
    assert rows["metagraph"] == {
        "Feed": "metagraph",
        "Miner": "all miners",
        "State": "up",
        "Data from": "30 seconds ago",
        "Last error": "",
    }
    assert rows["stats"]["State"] == "waiting"
    assert rows["scores"]["State"] == "down"
    assert rows["scores"]["Last error"].startswith("30 seconds ago: 500 &lt;script&gt;alert(1)")
    assert rows["scores"]["Data from"] == ""


async def test_the_landing_page_tells_old_data_from_new(replay: Replay, clock: Clock) -> None:
    replay.faults["bounties"] = Fault(status=404)
    async with served_exporter(watching(replay.url), clock, monotonic=clock) as (url, exporter):
        await get(f"{url}/metrics")
        assert '<p class="state good">Ready.</p>' in await landing_page(exporter)
        replay.faults["scores"] = Fault(status=500)
        # The scores are no longer fresh, and are not yet dropped.
        clock.now += 700
        await get(f"{url}/metrics")
        page = await landing_page(exporter)
        assert '<p class="state wait">Ready, but ' in page
        rows = feeds(page)
        states = [rows[name]["State"] for name in ("metagraph", "scores", "bounties")]
        assert states == ["up", "stale", "off"]
        assert rows["scores"]["Data from"] == "12 minutes ago"
        # They are older than their maximum age of 30 minutes.
        clock.now += 1300
        await get(f"{url}/metrics")
        scores = feeds(await landing_page(exporter))["scores"]
        assert (scores["State"], scores["Data from"]) == ("down", "")


async def test_a_feed_that_is_back_keeps_its_last_error(replay: Replay, clock: Clock) -> None:
    replay.faults["nodes"] = Fault(status=503, once=True)
    async with served_exporter(watching(replay.url), clock, monotonic=clock) as (url, exporter):
        await get(f"{url}/metrics")
        assert feeds(await landing_page(exporter))["nodes"]["State"] == "down"
        clock.now += 120
        await get(f"{url}/metrics")
        nodes = feeds(await landing_page(exporter))["nodes"]
    assert nodes["State"] == "up"
    assert nodes["Last error"].startswith("2 minutes ago: 503 injected fault.")


async def test_the_landing_page_lists_what_needs_action_without_a_request_or_a_busy_event_loop(
    replay: Replay, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = findings.find
    threads = set()

    def noted_find(fleet: Fleet, now: float, costs: Costs, unit_usd: float | None) -> list[Finding]:
        threads.add(threading.get_ident())
        return find(fleet, now, costs, unit_usd)

    async with served_exporter(watching(replay.url), clock, monotonic=clock) as (url, exporter):
        assert "<ol>" not in await landing_page(exporter)
        await get(f"{url}/metrics")
        await read_reports(exporter)
        requests_before = len(replay.requests)
        with monkeypatch.context() as patch:
            patch.setattr(findings, "find", noted_find)
            page = await landing_page(exporter)
        assert len(replay.requests) == requests_before
        fleet = (await exporter.snapshot()).fleets[HOTKEY]
    # It takes long for many miners, so that it does not run in the thread of the event loop.
    assert threads
    assert threading.get_ident() not in threads
    before_list, _, after_begin = page.partition("<ol>")
    assert re.search(r'</h1>\n<p class="state bad">[0-9]+ things? needs? action', before_list)
    items = re.findall("<li>(.*?)</li>", after_begin, re.DOTALL)
    # The notes among the findings are not in the list. The settings have no costs.
    actions = [one for one in find(fleet, clock.now, Costs()) if one.needs_action]
    assert findings.summary(actions) in before_list
    for finding, item in zip(actions, items, strict=True):
        assert item.startswith(f"{finding.worth}: " if finding.worth else finding.problem)
        assert finding.problem in item
        assert f"<code>{finding.command}</code>" in item


async def test_a_text_of_the_api_reaches_the_landing_page_without_what_a_terminal_obeys() -> None:
    api = PlainTextResponse("\x1b]0;owned\x07 \x9b2J \u202e gpj.exe", 500)
    async with served(api) as api_url, served_exporter(watching(api_url)) as (url, _):
        await get(f"{url}/metrics")
        page = (await get(f"{url}/")).text
    assert r"500 \u001b]0;owned\u0007" in page
    assert [one for one in page if not one.isprintable() and one != "\n"] == []

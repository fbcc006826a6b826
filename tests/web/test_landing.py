from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from chutes_exporter import findings
from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.fleet.join import join_fleet
from chutes_exporter.rules.money import Costs
from chutes_exporter.simulator import Fault, Simulator
from chutes_exporter.simulator.answers import Call, maintenance
from chutes_exporter.simulator.world import TEST_SEED
from chutes_exporter.web.landing import landing_page
from tests.simulator.farm import Farm, Machine
from tests.support import (
    HOTKEY,
    Clock,
    asked_by,
    get,
    hold,
    patient,
    read_reports,
    served_exporter,
    until,
    watching,
)

if TYPE_CHECKING:
    import pytest

    from chutes_exporter.findings import Finding
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.model import Fleet

NO_REPORTS = "not all of the newest 6 hourly reports are known"


def feeds(page: str) -> dict[str, dict[str, str]]:
    """Return the text of the cells of the page's feeds, by feed and column.

    Of several hotkeys, the last one counts.
    """
    found = {}
    for row in page.split("<tr>"):
        cells = {}
        for name, cell in re.findall(r'data-name="([^"]+)"[^>]*>(.*?)</td>', row):
            cells[name] = re.sub(r"<[^>]*>", "", cell)
        if cells:
            found[cells["Feed"]] = cells
    return found


def state(tone: str, word: str) -> str:
    return f'<span class="state {tone}">{word}</span>'


async def test_the_landing_page_says_how_each_feed_is(simulator: Simulator, clock: Clock) -> None:
    async with served_exporter(
        watching(simulator.url, api_timeout=600), clock, monotonic=clock
    ) as (url, exporter):
        page = (await get(f"{url}/")).text
        assert "No requests yet" in page
        assert '<p><span class="state bad">' in page
        simulator.faults["scores"] = Fault(
            status=500, body=b'{"detail": "<script>alert(1)</script>"}'
        )
        release = hold(exporter, "stats")
        scrape = asyncio.create_task(get(f"{url}/metrics"))
        await until(lambda: asked_by(exporter) == {"stats", "stats_per_chute"})
        clock.now += 30
        page = await landing_page(exporter)
        release.set()
        await scrape
    assert "<script>" not in page
    rows = feeds(page)
    assert next(iter(rows)) == "scores"
    assert rows["metagraph"] == {
        "Feed": "metagraph",
        "Miner": "all miners",
        "State": "up",
        "Data from": "30 seconds ago (dropped after 1 hour)",
        "Next request": "in 2 minutes",
        "Last error": "none",
    }
    assert rows["stats"]["State"] == "waiting"
    assert rows["stats"]["Next request"] == "in progress"
    assert rows["scores"]["State"] == "down"
    assert rows["scores"]["Last error"].startswith("30 seconds ago: 500 &lt;script&gt;alert(1)")
    assert rows["scores"]["Data from"] == "none"
    assert rows["scores"]["Next request"] == "with the next scrape"


async def test_the_landing_page_shows_states_as_a_color_and_a_word(
    simulator: Simulator, clock: Clock
) -> None:
    simulator.faults["bounties"] = Fault(status=404)
    async with served_exporter(watching(simulator.url), clock, monotonic=clock) as (url, exporter):
        await get(f"{url}/metrics")
        assert f"<p>{state('good', 'Ready.')}</p>" in await landing_page(exporter)
        simulator.faults["scores"] = simulator.faults["nodes"] = Fault(status=500)
        clock.now += 700
        await get(f"{url}/metrics")
        stale = await landing_page(exporter)
        clock.now += 1300
        simulator.faults["nodes"] = Fault(status=503, once=True)
        for _ in range(2):
            await get(f"{url}/metrics")
            clock.now += 60
        later = feeds(await landing_page(exporter))
    assert '<p><span class="state wait">Ready, but ' in stale
    for tone, word in (("good", "up"), ("wait", "stale"), ("off", "off")):
        assert f'<td data-name="State">{state(tone, word)}</td>' in stale
    rows = feeds(stale)
    assert [rows[name]["State"] for name in ("metagraph", "scores", "bounties")] == [
        "up",
        "stale",
        "off",
    ]
    assert (later["scores"]["State"], later["scores"]["Data from"]) == (
        "down",
        "35 minutes ago, dropped",
    )
    # A feed that is back keeps its last error.
    assert later["nodes"]["State"] == "up"
    assert later["nodes"]["Last error"].startswith("2 minutes ago: 503 simulated fault.")


async def test_the_landing_page_says_when_there_is_no_data(
    simulator: Simulator, clock: Clock
) -> None:
    simulator.faults.update(dict.fromkeys((one.name for one in ENDPOINTS), Fault(status=500)))
    async with served_exporter(patient(simulator.url), clock, monotonic=clock) as (url, exporter):
        await get(f"{url}/metrics")
        page = await landing_page(exporter)
    assert f'<p><span class="state bad">There is no data: {simulator.url} fails for ' in page
    assert "The table below has the errors." in page
    assert "Watched: the whole subnet" in page


async def test_the_landing_page_lists_first_what_needs_action(
    simulator: Simulator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = dict[str, int]()
    find = findings.find

    def watched(answers: FleetAnswers) -> Fleet:
        threads["join"] = threading.get_ident()
        return join_fleet(answers)

    def watched_find(fleet: Fleet, now: float, costs: Costs) -> list[Finding]:
        threads["find"] = threading.get_ident()
        return find(fleet, now, costs)

    monkeypatch.setattr("chutes_exporter.page.exporter.join_fleet", watched)
    monkeypatch.setattr(findings, "find", watched_find)
    async with served_exporter(watching(simulator.url), clock, monotonic=clock) as (url, exporter):
        assert "<ol>" not in await landing_page(exporter)
        await get(f"{url}/metrics")
        await read_reports(exporter)
        asked = len(simulator.requests)
        page = await landing_page(exporter)
        fleet = (await exporter.samples([])).fleets[HOTKEY]
    assert len(simulator.requests) == asked
    # Neither must keep the event loop from answering.
    assert set(threads) == {"join", "find"}
    assert threading.get_ident() not in threads.values()
    found = find(fleet, clock.now, Costs())
    head, _, rest = page.partition("<ol>")
    assert re.search(r'</h1><p><span class="state bad">[0-9]+ things? needs? action', head)
    actions = re.findall("<li>(.*?)</li>", rest, re.DOTALL)
    assert len(actions) == sum(item.needs_action for item in found)
    for item, action in zip(found, actions, strict=False):
        assert item.problem in action
        assert f"<code>{item.command}</code>" in action


async def test_an_unknown_maintenance_is_not_called_fine(clock: Clock) -> None:
    farm = Farm(clock.now, [(Machine("h200"),)])
    async with (
        Simulator(farm, clock=clock) as quiet,
        served_exporter(watching(quiet.url), clock, monotonic=clock) as (url, exporter),
    ):
        await get(f"{url}/metrics")
        assert NO_REPORTS in await landing_page(exporter)
        await read_reports(exporter)
        assert state("good", "Nothing needs action.") in await landing_page(exporter)
        policy = maintenance(Call(farm, clock.now, farm.miners[0], {}, {}))
        policy["servers"][0]["maintenance_status"] = "a word of tomorrow"
        quiet.faults["maintenance"] = Fault(body=json.dumps(policy).encode())
        clock.now += 700
        await get(f"{url}/metrics")
        assert state(
            "wait", "Not everything is known. Nothing that is known needs action."
        ) in await landing_page(exporter)


async def test_after_a_reload_it_is_not_known_what_fails_of_a_new_miner(
    simulator: Simulator, clock: Clock
) -> None:
    first, second = simulator.world.miners[:2]
    settings = watching(simulator.url, first.key)
    async with served_exporter(settings, clock, monotonic=clock) as (url, exporter):
        await get(f"{url}/metrics")
        await read_reports(exporter)
        assert NO_REPORTS not in await landing_page(exporter)
        exporter.reconfigure(watching(simulator.url, first.key, second.key))
        assert NO_REPORTS in await landing_page(exporter)


async def test_the_landing_page_shows_the_effective_configuration_without_secrets(
    simulator: Simulator,
) -> None:
    public = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"
    settings = watching(
        simulator.url,
        hotkeys=[public],
        ttl={"scores": 60},
        gpu_costs={"h100": 1.95},
        server_costs={"gpu-7": 1.5, "gpu-8": 2},
        collectors={"jobs": False, "job_details": True},
        # A path need not be UTF-8.
        web_config=Path(os.fsdecode(b"/etc/\xff/web.yml")),
    )
    async with served_exporter(settings) as (url, _):
        page = (await get(f"{url}/")).text
        statuses = {
            link: (await get(f"{url}{link}")).status_code
            for link in re.findall(r'<a href="([^"]+)"', page)
        }
    assert statuses == {"/metrics": 200, "/-/ready": 200, "/-/healthy": 200}
    assert f'<abbr title="{HOTKEY}">5GNoc…1Wti</abbr> (public and private data)' in page
    assert f'<abbr title="{public}">5HgBy…s8uP</abbr> (public data)' in page
    shown = dict(
        re.findall(r"<tr><th>(?:<code>|<span[^>]*>)(.*?)</[^>]*></th><td>(.*?)</td></tr>", page)
    )
    assert shown["api_url"] == simulator.url
    assert shown["keys"] == f"Hotkey({HOTKEY})"
    assert shown["ttl"] == "scores=60"
    assert shown["gpu_costs"] == "h100=1.95"
    assert shown["server_costs"] == "gpu-7=1.5 gpu-8=2"
    assert shown["web_config"] == "/etc/\\udcff/web.yml"
    assert shown["chain_url"] == "none"
    assert shown["off by flag"] == "jobs"
    assert "job_details" in shown["on"].split(", ")
    assert "image_details" in shown["off by default"].split(", ")
    assert TEST_SEED.removeprefix("0x") not in page

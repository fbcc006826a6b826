"""docs/operations.md: what it promises to cost the API is what is asked of it in an hour."""

from __future__ import annotations

import asyncio
import re

import pytest

from chutes_exporter.config import Credentials, Settings, make_settings
from chutes_exporter.simulator import Simulator, Size, World
from tests.support import HOTKEY, NOON, ROOT, Clock, get, parse_page, served_exporter

TEXT = (ROOT / "docs" / "operations.md").read_text()
COSTS = {watched.strip(): int(cost) for watched, cost in re.findall(r"^\| ([^|]+) \| (\d+) \|$", TEXT, re.MULTILINE)}


SMALL = Size(miners=4, active_miners=3, chutes=6, servers=4)
"""The size of answers does not change their number."""


def settings(watched: str, simulator: Simulator) -> Settings:
    miners = simulator.world.miners
    keys = {"one miner with its key": 1, "three miners with their keys, in one exporter": 3}.get(watched, 0)
    credentials = Credentials(tuple(miner.key for miner in miners[:keys]), (), ())
    hotkeys = [HOTKEY] if "--hotkey" in watched else []
    return make_settings(api_url=simulator.url, credentials=credentials, hotkeys=hotkeys)


async def an_hour(watched: str, world: World) -> tuple[int, str]:
    """Scrape an exporter every minute for an hour; returns the number of its requests, and the last page."""
    clock, text = Clock(), ""
    async with (
        Simulator(world, clock=clock) as simulator,
        served_exporter(settings(watched, simulator), clock, monotonic=clock) as (url, _),
    ):
        for _minute in range(60):
            text = (await get(f"{url}/metrics")).text
            clock.now += 60
        return len(simulator.requests), text


@pytest.mark.parametrize("watched", COSTS)
def test_an_hour_costs_the_documented_number_of_requests(watched: str) -> None:
    counted, _ = asyncio.run(an_hour(watched, World(start=NOON, size=SMALL)))
    assert counted == COSTS[watched]


def test_an_hour_with_a_key_at_a_thousand_chutes_stays_within_its_bounds() -> None:
    # A tenth of the platform: no answer grows faster than the platform does.
    scale, chutes, code = 10, 100, 45_000
    world = World(start=NOON, size=Size(miners=26, active_miners=10, chutes=chutes, servers=8, source_bytes=code))
    counted, text = asyncio.run(an_hour("one miner with its key", world))
    assert counted <= 450
    page = parse_page(text)
    received = sum(value for (name, _), value in page.items() if name == "chutes_api_response_bytes_total")
    # The chutes' code is most of what comes: fewer bytes would mean that it is not asked for at all.
    assert chutes * code < received <= 0.35e9 / scale


def test_the_table_is_there() -> None:
    assert len(COSTS) == 4

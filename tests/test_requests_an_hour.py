"""The whole exporter for an hour: how many requests it sends to the API, as docs/operations.md says."""

from __future__ import annotations

import asyncio

import pytest

from chutes_exporter.config import Credentials, make_settings
from chutes_exporter.simulator import Simulator, Size, World
from tests.support import HOTKEY, NOON, Clock, get, parse_page, served_exporter


async def an_hour(world: World, *, keys: int = 0, hotkeys: tuple[str, ...] = ()) -> tuple[int, str]:
    """Scrape an exporter every minute for an hour; returns the number of its requests, and the last page."""
    clock, text = Clock(), ""
    credentials = Credentials(tuple(miner.key for miner in world.miners[:keys]), (), ())
    async with Simulator(world, clock=clock) as simulator:
        settings = make_settings(api_url=simulator.url, credentials=credentials, hotkeys=hotkeys)
        async with served_exporter(settings, clock, monotonic=clock) as (url, _):
            for _minute in range(60):
                text = (await get(f"{url}/metrics")).text
                clock.now += 60
        return len(simulator.requests), text


@pytest.mark.parametrize(
    ("keys", "hotkeys", "most"),
    [(0, (), 150), (0, (HOTKEY,), 180), (1, (), 450), (2, (), 660)],
    ids=["the whole subnet", "a hotkey without a key", "one key", "two keys"],
)
def test_an_hour_costs_at_most_the_documented_number_of_requests(
    keys: int, hotkeys: tuple[str, ...], most: int
) -> None:
    world = World(start=NOON, size=Size(miners=4, active_miners=3, chutes=6, servers=4))
    counted, _ = asyncio.run(an_hour(world, keys=keys, hotkeys=hotkeys))
    assert most / 2 < counted <= most


def test_an_hour_with_a_key_at_a_thousand_chutes_receives_at_most_350_megabytes() -> None:
    # A tenth of the platform: no answer grows faster than the platform does.
    scale, chutes, code = 10, 100, 45_000
    world = World(start=NOON, size=Size(miners=26, active_miners=10, chutes=chutes, servers=8, source_bytes=code))
    _, text = asyncio.run(an_hour(world, keys=1))
    page = parse_page(text)
    received = sum(value for (name, _), value in page.items() if name == "chutes_api_response_bytes_total")
    # The chutes' code is most of what comes: fewer bytes would mean that it is not asked for at all.
    assert chutes * code < received <= 0.35e9 / scale

"""Troubles of the Chutes API and of the exporter's way to it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator import Fault, Simulator
from chutes_exporter.simulator.answers import server_row
from tests.prometheus.farm import Farm, Machine
from tests.prometheus.history import Firing, Scrape, Target, check, input_series, play
from tests.support import HOTKEY, NOON, Clock, endpoint_names, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SHORT = f"{HOTKEY[:5]}…"
SMALL = (Machine("l40s", 4), Machine("h200", 4))
CHECK = "First: `kubectl --context CONTROL -n chutes exec deployment/chutes-exporter -- chutes-exporter check`."
NOBODY = Fault(body=b'{"raw_values": {}, "final_scores": {}}')
DOWN = Fault(status=503)


def series(scrapes: list[Scrape]) -> list[dict[str, str]]:
    return input_series([Target(dict(enumerate(scrapes)))], len(scrapes) - 1)


async def _watch(
    minutes: int, happens: Callable[[Simulator], Mapping[int, Callable[[], None]]], **more: object
) -> list[Scrape]:
    clock = Clock()
    async with Simulator(Farm(NOON, [SMALL]), clock=clock) as simulator:
        return await play(watching(simulator.url, **more), clock, minutes, happens(simulator))


@pytest.fixture(scope="session")
def outages() -> list[Scrape]:
    """An outage of 10 minutes, scores that are empty for 40 minutes, and an outage that lasts."""

    def happens(simulator: Simulator) -> dict[int, Callable[[], None]]:
        def fail() -> None:
            simulator.faults.update(dict.fromkeys(endpoint_names(), DOWN))

        return {
            15: fail,
            25: simulator.faults.clear,
            45: lambda: simulator.faults.update(scores=NOBODY),
            85: simulator.faults.clear,
            90: fail,
        }

    return asyncio.run(_watch(136, happens))


def test_an_outage_of_ten_minutes_sets_off_nothing(outages: list[Scrape], tmp_path: Path) -> None:
    check(tmp_path, series(outages[:45]), 44, firing={}, ever=[])


def test_scores_that_are_empty_for_everybody_set_off_nothing_about_the_miner(
    outages: list[Scrape], tmp_path: Path
) -> None:
    assert any(scrape.get("chutes_scored_miners{}") == "0.000000" for scrape in outages)
    check(tmp_path, series(outages[:90]), 89, firing={}, ever=[])


def test_an_outage_that_lasts_is_a_warning_and_critical_once_data_is_dropped(
    outages: list[Scrape], tmp_path: Path
) -> None:
    lasts = Firing(
        "ChutesApiDown",
        "warning",
        {"job": "chutes"},
        "Chutes API: no answer for 15 minutes (job chutes)",
        "Every request to the Chutes API has failed for 15 minutes. Affected exporters of job chutes: 1. The metrics "
        f"become stale, and disappear at their maximum age. {CHECK}",
    )
    dropped = Firing(
        "ChutesApiDown",
        "critical",
        {"job": "chutes"},
        "Chutes API: all data has expired (job chutes)",
        "Every request of job chutes to the Chutes API fails (feeds: 15). All answers except the seats have reached "
        f"their maximum age. All alerts about miners are silent. {CHECK}",
    )
    check(
        tmp_path,
        series(outages),
        135,
        quiet=[90, 100],
        firing={115: [lasts], 135: [lasts, dropped]},
        ever=[("ChutesApiDown", "warning"), ("ChutesApiDown", "critical")],
    )


@pytest.fixture(scope="session")
def skewed() -> list[Scrape]:
    """The clocks of the API and the exporter part by 12 minutes."""

    async def watch() -> list[Scrape]:
        clock, api_clock = Clock(), Clock()
        api_clock.now = 0.0
        async with Simulator(Farm(NOON, [SMALL]), clock=lambda: clock.now + api_clock.now) as simulator:
            return await play(watching(simulator.url), clock, 36, {10: lambda: setattr(api_clock, "now", 720.0)})

    return asyncio.run(watch())


def test_signatures_that_are_refused_are_critical_and_the_clock_is_named(skewed: list[Scrape], tmp_path: Path) -> None:
    refused = Firing(
        "ChutesSignatureRefused",
        "critical",
        {"hotkey": HOTKEY},
        f"{SHORT}: the API refuses its signatures",
        f"The Chutes API refuses the signatures that the exporter makes for {HOTKEY}. The seed belongs to another "
        "hotkey, or the clock is wrong by more than 10 minutes. The servers, GPUs and instances of this miner are "
        f"unknown. If the miner uses the same key or clock, it cannot launch instances either. {CHECK}",
    )
    clock = Firing(
        "ChutesClockOff",
        "warning",
        {"job": "chutes"},
        "Chutes exporter: its clock is off by 12m 0s (job chutes)",
        "The clock of an exporter of job chutes and that of the Chutes API differ by 12m 0s. Above 10 minutes, the "
        "API refuses every signature. First, on its machine: `timedatectl`.",
    )
    check(
        tmp_path,
        series(skewed),
        35,
        quiet=[10],
        firing={35: [refused, clock]},
        ever=[("ChutesSignatureRefused", "critical"), ("ChutesClockOff", "warning")],
    )


@pytest.fixture(scope="session")
def partial() -> list[Scrape]:
    """The endpoint of GPUs fails, and that of servers also sends something that is no server. The page has a limit."""

    def happens(simulator: Simulator) -> dict[int, Callable[[], None]]:
        servers = [server_row(server, NOON) for server in simulator.world.miners[0].servers]
        broken = json.dumps({"servers": [*servers, {"server_id": 5}]}).encode()
        return {10: lambda: simulator.faults.update(nodes=DOWN, servers=Fault(body=broken))}

    return asyncio.run(_watch(61, happens, max_series=250))


def test_endpoints_that_fail_or_send_nonsense_are_named_and_set_off_nothing_about_the_fleet(
    partial: list[Scrape], tmp_path: Path
) -> None:
    failing = Firing(
        "ChutesFeedFailing",
        "warning",
        {"job": "chutes", "feed": "nodes", "hotkey": HOTKEY},
        f"{SHORT}: no data from nodes",
        f"The feed nodes of {HOTKEY} has no data: its requests fail (unavailable), and the last answer is older than "
        f"its maximum age. Alerts that need it are silent. {CHECK}",
    )
    incomplete = Firing(
        "ChutesDataIncomplete",
        "warning",
        {"job": "chutes", "feed": "servers", "hotkey": HOTKEY},
        f"{SHORT}: answers of servers are incomplete",
        f"The answers of the feed servers of {HOTKEY} have been incomplete for 30 minutes: records cannot be read, or "
        "the list contradicts another one. Counts and zeros are absent, and alerts that need them are silent. First: "
        "`kubectl --context CONTROL -n chutes logs deployment/chutes-exporter --since=1h`.",
    )
    cut = Firing(
        "ChutesCollectorCut",
        "warning",
        {"job": "chutes", "collector": "chutes"},
        "Chutes exporter: collector chutes is left out (job chutes)",
        "An exporter of job chutes leaves out all metrics of the collector chutes, because its page would exceed "
        "`--max-series`. Alerts that need them are silent. First: compare `chutes_scrape_series` with "
        "`chutes_scrape_series_limit`.",
    )
    check(
        tmp_path,
        series(partial),
        60,
        firing={60: [failing, incomplete, cut]},
        ever=[(one.name, one.severity) for one in (failing, incomplete, cut)],
    )

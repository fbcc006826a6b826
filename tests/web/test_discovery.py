from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.config import Settings, make_settings
from chutes_exporter.simulator import Fault, Simulator
from tests.support import HOTKEY, NOON, get, served_exporter, watching

STRANGER = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"


async def discover(settings: Settings, query: str = "") -> list[dict[str, Any]]:
    async with served_exporter(settings) as (url, _):
        response = await get(f"{url}/sd{query}")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    groups: list[dict[str, Any]] = response.json()
    return groups


def hotkeys(groups: list[dict[str, Any]]) -> list[str]:
    return [target for group in groups for target in group["targets"]]


async def test_every_miner_of_the_metagraph_is_a_target(simulator: Simulator) -> None:
    groups = await discover(Settings(api_url=simulator.url))
    assert hotkeys(groups) == list(simulator.world.by_hotkey)
    for group, miner in zip(groups, simulator.world.miners, strict=True):
        labels = group["labels"]
        assert labels["__meta_chutes_hotkey"] == miner.hotkey
        assert labels["__meta_chutes_uid"] == str(miner.uid)
        assert labels["__meta_chutes_coldkey"] == miner.coldkey
        assert labels["__meta_chutes_registered"] == "true"
        assert labels["__meta_chutes_blacklisted"] == ("true" if miner.blacklist_reason else "false")
        assert {type(value) for value in labels.values()} == {str}
    assert {group["labels"]["__meta_chutes_blacklisted"] for group in groups} == {"true", "false"}


async def test_targets_are_the_watched_the_earning_or_all_miners(simulator: Simulator) -> None:
    settings = watching(simulator.url, hotkeys=[STRANGER])
    watched = await discover(settings, "?miners=watched")
    assert watched == await discover(settings)
    assert sorted(hotkeys(watched)) == sorted([HOTKEY, STRANGER])
    by_hotkey = {group["targets"][0]: group["labels"] for group in watched}
    assert by_hotkey[HOTKEY]["__meta_chutes_private"] == "true"
    assert by_hotkey[STRANGER] == {
        "__meta_chutes_hotkey": STRANGER,
        "__meta_chutes_registered": "false",
        "__meta_chutes_uid": "",
        "__meta_chutes_coldkey": "",
        "__meta_chutes_active": "false",
        "__meta_chutes_blacklisted": "false",
        "__meta_chutes_watched": "true",
        "__meta_chutes_private": "false",
    }
    active = await discover(settings, "?miners=active")
    assert set(hotkeys(active)) == {*simulator.world.shares(NOON), HOTKEY, STRANGER}
    everybody = await discover(settings, "?miners=all")
    assert set(hotkeys(everybody)) == {*simulator.world.by_hotkey, STRANGER}


async def test_an_unknown_choice_is_refused(simulator: Simulator) -> None:
    async with served_exporter(make_settings(api_url=simulator.url)) as (url, _):
        response = await get(f"{url}/sd?miners=some")
    assert (response.status_code, response.text) == (
        400,
        "The parameter miners='some' is invalid: use watched, active, all.\n",
    )


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(body=b"[]"), Fault(latency=60)])
async def test_without_a_metagraph_prometheus_keeps_its_targets(simulator: Simulator, fault: Fault) -> None:
    simulator.faults["metagraph"] = fault
    async with served_exporter(watching(simulator.url)) as (url, _):
        response = await get(f"{url}/sd", **{"X-Prometheus-Scrape-Timeout-Seconds": "1"})
    assert response.status_code == 503
    assert "the metagraph is not available yet" in response.text.lower()

"""Launches in a recorded world: what the exporter and ``advise`` say, against the service's own answers."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.recorded import EXPECTED, META, answers, key, rows
from tests.support import Page, replay, scrape, served, watching


def launchable(page: Page) -> set[tuple[str, str]]:
    """Return the pairs of GPU model and chute that a page calls launchable."""
    return {
        (dict(labels)["gpu"], dict(labels)["chute_id"])
        for name, labels in page
        if name == "chutes_launch_units_per_gpu_second"
    }


def refused(page: Page) -> dict[str, Counter[str]]:
    """Return the number of refused chutes by GPU model and reason."""
    counts: dict[str, Counter[str]] = {}
    for (name, labels), value in page.items():
        if name == "chutes_launch_refused_chutes" and value:
            by = dict(labels)
            counts.setdefault(by["gpu"], Counter())[by["reason"]] = int(value)
    return counts


async def page_of(role: str, api: dict[str, bytes]) -> Page:
    async with served(replay(api)) as url:
        return await scrape(watching(url, key(role)))


def accepted_pairs(role: str, api: dict[str, bytes]) -> set[tuple[str, str]]:
    """Work out from raw answers which idle model can run which of the chutes that the service accepted."""
    held = {row["gpu_id"] for row in json.loads(api["inventory"])}
    pairs = set()
    for server in json.loads(api["servers"])["servers"]:
        gpus = [gpu for gpu in server["gpus"] if gpu["verified_at"] and gpu["uuid"] not in held]
        for gpu, free in Counter(gpu["gpu_identifier"] for gpu in gpus).items():
            for chute in rows(api["chutes"]):
                needs = chute["node_selector"]
                if (
                    EXPECTED["launch_others"][role][chute["chute_id"]]["accepted"]
                    and gpu in needs["supported_gpus"]
                    and needs["gpu_count"] <= free
                    and chute["tee"] == server["is_tee"]
                    and not server["maintenance_pending"]
                ):
                    pairs.add((gpu, chute["chute_id"]))
    return pairs


async def test_the_page_has_exactly_the_launches_that_the_service_accepts() -> None:
    page = await page_of("test_miner", answers("test_miner"))
    models: dict[str, Any] = EXPECTED["launch_models"]
    assert launchable(page) == {(gpu, chute) for gpu, model in models.items() for chute in model["runnable_chutes"]}


async def test_refused_chutes_are_counted_by_the_services_reason() -> None:
    page = await page_of("test_miner", answers("test_miner"))
    reasons = {
        "disabled": "disabled",
        "private: no active instance and no bounty": "no_bounty",
        "private: target reached": "room",
        "active >= target": "room",
        "TEE: live instances (active and starting) >= target + 1": "room",
        "accepted": "server",
    }
    ours = {"no_room": "room", "enough_starting": "room", "too_many_gpus": "server", "in_maintenance": "server"}
    for gpu, model in EXPECTED["launch_models"].items():
        counts: Counter[str] = Counter()
        for reason, count in refused(page)[gpu].items():
            counts[ours.get(reason, reason)] += count
        assert counts == Counter(
            reasons[chute["why"]]
            for chute_id, chute in EXPECTED["launch"].items()
            if gpu in chute["include"] and chute_id not in model["runnable_chutes"]
        )


async def test_another_miner_gets_its_own_launches() -> None:
    api = answers("second_miner")
    page = await page_of("second_miner", api)
    assert launchable(page) == accepted_pairs("second_miner", api) != set()


async def test_a_new_miner_has_nothing_to_launch_on() -> None:
    page = await page_of("newcomer", answers("newcomer"))
    assert launchable(page) == set()
    assert refused(page) == {}


async def test_a_blacklisted_miner_can_launch_nothing() -> None:
    page = await page_of("blacklisted_miner", answers("test_miner"))
    assert launchable(page) == set()
    assert set().union(*refused(page).values()) == {"blacklisted"}


async def test_a_miner_without_a_seat_can_launch_nothing() -> None:
    api = answers("test_miner")
    seats = json.loads(api["metagraph"])
    api["metagraph"] = json.dumps([seat for seat in seats if seat["hotkey"] != META["test_miner"]]).encode()
    page = await page_of("test_miner", api)
    assert launchable(page) == set()
    assert set().union(*refused(page).values()) == {"not_registered"}


async def test_without_the_rates_only_chutes_of_one_model_have_a_pay() -> None:
    api = answers("test_miner")
    with_rates = await page_of("test_miner", api)
    del api["supported_gpus"]
    page = await page_of("test_miner", api)
    several = {
        chute["chute_id"] for chute in rows(api["chutes"]) if len(set(chute["node_selector"]["supported_gpus"])) > 1
    }
    assert launchable(page) == {pair for pair in launchable(with_rates) if pair[1] not in several}
    assert {pair[1] for pair in launchable(with_rates)} & several


async def test_an_old_tee_server_stops_the_launches_of_newer_tee_chutes() -> None:
    api = answers("test_miner")
    servers = json.loads(api["servers"])
    next(server for server in servers["servers"] if server["is_tee"])["version"] = "0.2.0"
    old = await page_of("test_miner", api | {"servers": json.dumps(servers).encode()})
    newer = {
        chute["chute_id"]
        for chute in rows(api["chutes"])
        if chute["tee"] and [*map(int, (chute["chutes_version"] or "0.0.0").split("."))] >= [0, 6, 0]
    }
    everything = launchable(await page_of("test_miner", api))
    assert launchable(old) == {pair for pair in everything if pair[1] not in newer} != everything
    assert ("chutes_server_launches_refused", 1.0) in {(name, value) for (name, _), value in old.items()}


async def test_starting_instances_of_public_tee_chutes_are_unknown_without_the_list_of_gpus() -> None:
    api = answers("test_miner")
    del api["held_gpus"]
    page = await page_of("test_miner", api)
    everything = launchable(await page_of("test_miner", answers("test_miner")))
    assert launchable(page) < everything
    assert "unknown" in set().union(*refused(page).values())

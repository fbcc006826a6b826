"""Launches in a recorded world: what the exporter and ``advise`` say, against the service's own
answers.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.recorded import DIRECTORIES, META, WORLD_C, Miner, Row, answers, rows
from tests.support import Page, recording, replay, scrape, served, watching

if TYPE_CHECKING:
    from pathlib import Path


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


async def page_of(role: str, api: dict[str, bytes], directory: Path = WORLD_C) -> Page:
    async with served(replay(api)) as url:
        return await scrape(watching(url, Miner(directory, role).key))


def in_vain(launch: Row) -> bool:
    """Return whether the service would refuse the activation of a private instance that it lets
    start.

    The newer world has the service's own decision.
    """
    if launch.get("rules") != "private" or not launch["active"]:
        return False
    vain: bool = launch["active"] >= (target_of(launch) or 0)
    assert not launch["accepted"] or launch.get("activation", not vain) == (not vain)
    return vain


def target_of(launch: Row) -> int | None:
    """Return the target that the answers show.

    In the older world, one without a target has a new log.
    """
    target: int | None = launch["target_redis"]
    return launch["target_log"] if target is None and "activation" not in launch else target


ALL_WORLDS = pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)


@ALL_WORLDS
async def test_the_page_has_exactly_the_launches_that_the_service_lets_become_active(
    directory: Path,
) -> None:
    page = await page_of("test_miner", Miner(directory, "test_miner").bodies(), directory)
    expected = json.loads(recording(directory, "expected"))
    wanted = {
        (gpu, chute)
        for gpu, model in expected["launch_models"].items()
        for chute in model["runnable_chutes"]
        if not in_vain(expected["launch"][chute])
    }
    assert launchable(page) == wanted
    rooms = {
        (dict(labels)["gpu"], dict(labels)["chute_id"]): room
        for (name, labels), room in page.items()
        if name == "chutes_launch_room_instances"
    }
    assert rooms == {(gpu, chute): room_of(expected["launch"][chute]) for gpu, chute in wanted}


def room_of(launch: Row) -> int:
    """Work out how many more instances of a chute that can be launched may become active."""
    active, target = launch["active"], target_of(launch)
    if launch["rules"] == "private":
        return (target or 0) - active if active else 1
    # The general rules use the newest log, and without one the present number of instances.
    present = active + launch["starting"] + launch["disabled"]
    log = launch["target_log"] if target is None else target
    room: int = (present if log is None else log) - active
    return min(room, room + 1 - launch["starting"]) if launch["tee"] else room


@ALL_WORLDS
async def test_refused_chutes_are_counted_by_the_services_reason(directory: Path) -> None:
    page = await page_of("test_miner", Miner(directory, "test_miner").bodies(), directory)
    expected = json.loads(recording(directory, "expected"))
    reasons = {
        "disabled": "disabled",
        "private: no active instance and no bounty": "no_bounty",
        "private: target reached": "room",
        "active >= target": "room",
        "TEE: live instances (active and starting) >= target + 1": "room",
        "accepted": "server",
    }
    ours = {"no_room": "room", "enough_starting": "room", "too_many_gpus": "server"}
    ours |= {"in_maintenance": "server", "tee_mismatch": "server"}
    models = {
        row["chute_id"]: row["node_selector"]["supported_gpus"]
        for row in rows(recording(directory, "chutes"))
    }
    for gpu, model in expected["launch_models"].items():
        counts: Counter[str] = Counter()
        for reason, count in refused(page)[gpu].items():
            counts[ours.get(reason, reason)] += count
        wanted: Counter[str] = Counter()
        for chute_id, launch in expected["launch"].items():
            if gpu in models[chute_id]:
                if launch["accepted"] and in_vain(launch):
                    wanted["target_expired" if target_of(launch) is None else "room"] += 1
                elif chute_id not in model["runnable_chutes"]:
                    wanted[reasons[launch["why"]]] += 1
        assert counts == wanted


@ALL_WORLDS
async def test_another_miner_gets_only_launches_that_the_service_accepted(directory: Path) -> None:
    page = await page_of("second_miner", Miner(directory, "second_miner").bodies(), directory)
    asked = json.loads(recording(directory, "expected"))["launch_others"]["second_miner"]
    # The newer world has only some chutes.
    found = {asked[chute]["status"] for _, chute in launchable(page) if chute in asked}
    assert found == {200}


async def test_a_miner_without_gpus_without_a_seat_or_blacklisted_can_launch_nothing() -> None:
    without_gpus = await page_of("newcomer", answers("newcomer"))
    assert (launchable(without_gpus), refused(without_gpus)) == (set(), {})
    blacklisted = await page_of("blacklisted_miner", answers("test_miner"))
    assert (launchable(blacklisted), set().union(*refused(blacklisted).values())) == (
        set(),
        {"blacklisted"},
    )
    api = answers("test_miner")
    seats = [seat for seat in json.loads(api["metagraph"]) if seat["hotkey"] != META["test_miner"]]
    unregistered = await page_of("test_miner", api | {"metagraph": json.dumps(seats).encode()})
    assert (launchable(unregistered), set().union(*refused(unregistered).values())) == (
        set(),
        {"not_registered"},
    )

"""Launches in a recorded world: what the exporter and ``advise`` say, against the service's own answers."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.recorded import DIRECTORIES, META, Miner, Row, answers, rows
from tests.support import RECORDINGS, Page, recording, replay, scrape, served, watching

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


async def page_of(role: str, api: dict[str, bytes], directory: Path = RECORDINGS) -> Page:
    async with served(replay(api)) as url:
        return await scrape(watching(url, Miner(directory, role).key))


def in_vain(launch: Row) -> bool:
    """Return whether the service would refuse the activation of a private instance that it lets start.

    The newer world has the service's own decision.
    """
    if launch.get("rules") != "private" or not launch["active"]:
        return False
    vain: bool = launch["active"] >= (target_of(launch) or 0)
    assert not launch["accepted"] or launch.get("activation", not vain) == (not vain)
    return vain


def target_of(launch: Row) -> int | None:
    """Return the target that the answers show. In the older world, one without a target has a new log."""
    target: int | None = launch["target_redis"]
    return launch["target_log"] if target is None and "activation" not in launch else target


def accepted_pairs(role: str, api: dict[str, bytes], directory: Path) -> set[tuple[str, str]]:
    """Work out from raw answers which idle model can run which of the chutes that the service accepted."""
    expected = json.loads(recording(directory, "expected"))
    others = expected["launch_others"][role]
    held = {row["gpu_id"] for row in json.loads(api["inventory"])}
    pairs = set()
    for server in json.loads(api["servers"])["servers"]:
        gpus = [gpu for gpu in server["gpus"] if gpu["verified_at"] and gpu["uuid"] not in held]
        for gpu, free in Counter(gpu["gpu_identifier"] for gpu in gpus).items():
            for chute in rows(api["chutes"]):
                needs = chute["node_selector"]
                if (
                    # The newer world has only some chutes.
                    others.get(chute["chute_id"], {}).get("status") == 200
                    and not in_vain(expected["launch"][chute["chute_id"]])
                    and gpu in needs["supported_gpus"]
                    and needs["gpu_count"] <= free
                    and chute["tee"] == server["is_tee"]
                    and not server["maintenance_pending"]
                ):
                    pairs.add((gpu, chute["chute_id"]))
    return pairs


ALL_WORLDS = pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)


@ALL_WORLDS
async def test_the_page_has_exactly_the_launches_that_the_service_lets_become_active(directory: Path) -> None:
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
    models = {row["chute_id"]: row["node_selector"]["supported_gpus"] for row in rows(recording(directory, "chutes"))}
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
async def test_another_miner_gets_its_own_launches(directory: Path) -> None:
    api = Miner(directory, "second_miner").bodies()
    page = await page_of("second_miner", api, directory)
    asked = json.loads(recording(directory, "expected"))["launch_others"]["second_miner"]
    found = {(gpu, chute) for gpu, chute in launchable(page) if chute in asked}
    assert found == accepted_pairs("second_miner", api, directory) != set()


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

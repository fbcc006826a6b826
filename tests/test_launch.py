"""Launches in a recorded world: what the exporter and ``advise`` say, against the service's own
answers.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.recorded import DIRECTORIES, META, MINERS, WORLD_C, Miner, Row, answers, raw_json, rows
from tests.support import Page, recording, replay, scrape, served, watching

if TYPE_CHECKING:
    from pathlib import Path


def launchable(page: Page) -> set[tuple[str, str]]:
    """Return the pairs of GPU model and chute that a page calls launchable."""
    return set(offers(page, "chutes_launch_gpus"))


def refused(page: Page) -> dict[str, Counter[str]]:
    """Return the number of refused chutes by GPU model and reason."""
    counts: dict[str, Counter[str]] = {}
    for (name, labels), value in page.items():
        if name == "chutes_launch_refused_chutes" and value:
            texts = dict(labels)
            counts_of_model = counts.setdefault(texts["gpu"], Counter())
            counts_of_model[texts["reason"]] = int(value)
    return counts


async def page_of(role: str, api: dict[str, bytes], directory: Path = WORLD_C) -> Page:
    """Return the page of an exporter with the key of a role, which gets some answers."""
    recorded_at = json.loads(recording(directory, "meta"))["recorded_at"]
    async with served(replay(api, now=recorded_at)) as url:
        return await scrape(watching(url, Miner(directory, role).key))


def in_vain(launch: Row) -> bool:
    """Return whether the service would refuse the activation of a private instance that it lets
    start.
    """
    # A first instance of a private chute needs no target.
    if launch.get("rules") != "private" or not launch["active"]:
        return False
    is_refused: bool = launch["active"] >= (target_of(launch) or 0)
    # The newer worlds have the service's own decision.
    if launch["accepted"] and "activation" in launch:
        assert launch["activation"] == (not is_refused)
    return is_refused


def target_of(launch: Row) -> int | None:
    """Return the target that the answers show, None if they show none.

    It is the one in the service's Redis. In the older world, the answers show that of the
    autoscaler's log where Redis has none.
    """
    is_of_older_world = "activation" not in launch
    target: int | None = launch["target_redis"]
    if target is None and is_of_older_world:
        target = launch["target_log"]
    return target


ALL_WORLDS = pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)


@ALL_WORLDS
async def test_the_page_has_exactly_the_launches_that_the_service_lets_become_active(
    directory: Path,
) -> None:
    page = await page_of("test_miner", Miner(directory, "test_miner").bodies(), directory)
    true = json.loads(recording(directory, "expected"))
    rooms = {}
    for gpu, model in true["launch_models"].items():
        for chute in model["runnable_chutes"]:
            launch = true["launch"][chute]
            if not in_vain(launch):
                rooms[gpu, chute] = room_of(launch)
    assert launchable(page) == rooms.keys()
    assert offers(page, "chutes_launch_room_instances") == rooms


def room_of(launch: Row) -> int:
    """Work out how many launches from now on may become active, of a chute that can be launched.

    Where the service checks the room again at the activation, instances that start may take it.
    """
    active: int = launch["active"]
    starting: int = launch["starting"]
    target = target_of(launch)
    if launch["rules"] == "private":
        # The first instance needs no target.
        room = 1
        if active:
            room = (target or 0) - active
        return max(0, room - starting)
    # The general rules use the newest log, and without one the present number of instances.
    if target is None:
        target = launch["target_log"]
    if target is None:
        target = active + starting + launch["disabled"]
    room = target - active
    if launch["tee"]:
        # Active and starting instances must be fewer than the target plus 1.
        return min(room, room + 1 - starting)
    return max(0, room - starting)


def offers(page: Page, metric: str) -> dict[tuple[str, str], float]:
    """Return the values of a metric by GPU model and chute."""
    values = {}
    for (name, labels), value in page.items():
        if name == metric:
            texts = dict(labels)
            values[texts["gpu"], texts["chute_id"]] = value
    return values


@ALL_WORLDS
async def test_an_offer_has_the_pay_of_its_first_day_and_what_it_approaches(
    directory: Path,
) -> None:
    bodies = Miner(directory, "test_miner").bodies()
    page = await page_of("test_miner", bodies, directory)
    raw = raw_json(bodies)
    rates = {gpu: model["hourly_rate"] for gpu, model in raw["supported_gpus"].items()}
    chutes = {row["chute_id"]: row for row in raw["chutes"]}
    expected = json.loads(recording(directory, "expected"))
    pays_of_first_day, later_pays = {}, {}
    for gpu, chute_id in launchable(page):
        chute = chutes[chute_id]
        selector, factors = chute["node_selector"], chute["compute_multiplier_factors"]
        cheapest_rate = min(rates[model] for model in selector["supported_gpus"])
        on_cheapest = chute["effective_compute_multiplier"] / selector["gpu_count"]
        first = on_cheapest * rates[gpu] / cheapest_rate
        # A public instance is paid like one on the cheapest GPU later. A bounty is gone then, and
        # the urgency may be.
        later = on_cheapest if chute["public"] else first
        later /= factors.get("bounty_boost", 1) * factors.get("urgency_boost", 1)
        later_pays[gpu, chute_id] = later
        # The first pay counts for 4.6 hours of the day.
        pays_of_first_day[gpu, chute_id] = (first * 4.6 + later * 19.4) / 24
    first_day_units = offers(page, "chutes_launch_first_day_units_per_gpu_second")
    assert first_day_units == pytest.approx(pays_of_first_day)
    later_units = offers(page, "chutes_launch_later_units_per_gpu_second")
    assert later_units == pytest.approx(later_pays)
    assert any(pays_of_first_day[offer] > later_pays[offer] for offer in later_pays)
    for (_, chute_id), starting in offers(page, "chutes_launch_starting_instances").items():
        assert starting == expected["launch"][chute_id]["starting"]


SERVICES_REASONS = {
    "disabled": "disabled",
    "private: no active instance and no bounty": "no_bounty",
    "private: target reached": "room",
    "active >= target": "room",
    "TEE: live instances (active and starting) >= target + 1": "room",
    # The service would accept the launch, but no server of the miner fits.
    "accepted": "server",
}
"""Words for reasons that the service and the exporter divide differently, by the service's reason.
"""
OUR_REASONS = {
    "no_room": "room",
    "enough_starting": "room",
    "too_many_gpus": "server",
    "in_maintenance": "server",
    "tee_mismatch": "server",
}
"""The same words by the exporter's reason. A reason that is missing is its own word."""


@ALL_WORLDS
async def test_refused_chutes_are_counted_by_the_services_reason(directory: Path) -> None:
    page = await page_of("test_miner", Miner(directory, "test_miner").bodies(), directory)
    true = json.loads(recording(directory, "expected"))
    chutes = rows(recording(directory, "chutes"))
    for gpu, model in true["launch_models"].items():
        shown: Counter[str] = Counter()
        for our_reason, count in refused(page)[gpu].items():
            shown[OUR_REASONS.get(our_reason, our_reason)] += count
        expected: Counter[str] = Counter()
        for chute in chutes:
            chute_id = chute["chute_id"]
            launch = true["launch"].get(chute_id)
            # The truth has no launch of the chute, or the chute does not run on the model.
            if launch is None or gpu not in chute["node_selector"]["supported_gpus"]:
                continue
            reason = services_reason(launch, is_runnable=chute_id in model["runnable_chutes"])
            if reason is not None:
                expected[reason] += 1
        assert shown == expected


def services_reason(launch: dict[str, Any], *, is_runnable: bool) -> str | None:
    """Return why the service would refuse a launch or its activation, None if it would not."""
    if launch["accepted"] and in_vain(launch):
        return "target_expired" if target_of(launch) is None else "room"
    return None if is_runnable else SERVICES_REASONS[launch["why"]]


@pytest.mark.parametrize(
    "directory",
    [miner.directory for miner in MINERS if miner.role == "second_miner"],
    ids=lambda path: path.name,
)
async def test_another_miner_gets_only_launches_that_the_service_accepted(directory: Path) -> None:
    page = await page_of("second_miner", Miner(directory, "second_miner").bodies(), directory)
    true = json.loads(recording(directory, "expected"))
    answers_to_launches = true["launch_others"]["second_miner"]
    # The newer world has only some chutes.
    compared = {chute for _, chute in launchable(page)} & answers_to_launches.keys()
    assert {answers_to_launches[chute]["status"] for chute in compared} == {200}


@ALL_WORLDS
async def test_the_page_has_the_chutes_that_the_miner_runs_ran_in_a_day_or_could_launch(
    directory: Path,
) -> None:
    miner = Miner(directory, "test_miner")
    bodies = miner.bodies()
    page = await page_of("test_miner", bodies, directory)
    shown = {dict(labels)["chute_id"] for name, labels in page if name == "chutes_chute_info"}
    raw = raw_json(bodies)
    existing = {row["chute_id"] for row in raw["chutes"]}
    wanted = chutes_of(miner, raw) | launchable_chutes(directory)
    assert shown == wanted & existing
    assert len(shown) < len(existing)


def chutes_of(miner: Miner, raw: dict[str, Any]) -> set[str]:
    """Return the chutes that a miner runs or ran in a day."""
    runs = {row["chute_id"] for row in raw["instances"]}
    own_stats = raw["stats_per_chute_one"]["past_day"]["instance_stats"]
    ran = {row["chute_id"] for row in own_stats}
    # An instance that lost its score is in no statistics. The newest audit report has those that
    # ended in its hour.
    audit = raw["audit_report"]["instance_audit"]
    ended = [row for row in audit if row["miner_hotkey"] == miner.hotkey and row["deleted_at"]]
    return runs | ran | {row["chute_id"] for row in ended}


def launchable_chutes(directory: Path) -> set[str]:
    """Return the chutes whose launch and activation the service accepts, on any GPUs."""
    launches = json.loads(recording(directory, "expected"))["launch"]
    return {
        chute for chute, launch in launches.items() if launch["accepted"] and not in_vain(launch)
    }


async def test_a_miner_without_gpus_can_launch_nothing_and_is_refused_nothing() -> None:
    page = await page_of("newcomer", answers("newcomer"))
    assert launchable(page) == set()
    assert refused(page) == {}


async def test_a_blacklisted_miner_can_launch_nothing() -> None:
    # The miner has the GPUs of the test miner, so only the blacklist is in its way.
    page = await page_of("blacklisted_miner", answers("test_miner"))
    assert launchable(page) == set()
    assert set().union(*refused(page).values()) == {"blacklisted"}


async def test_a_miner_without_a_seat_can_launch_nothing() -> None:
    api = answers("test_miner")
    seats = [seat for seat in json.loads(api["metagraph"]) if seat["hotkey"] != META["test_miner"]]
    page = await page_of("test_miner", api | {"metagraph": json.dumps(seats).encode()})
    assert launchable(page) == set()
    assert set().union(*refused(page).values()) == {"not_registered"}

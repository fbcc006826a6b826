"""The fleets of recorded worlds, compared with the truth of the service's database."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.fleet.join import join_fleet
from chutes_exporter.fleet.placement import Space
from tests.fleet.support import WORLDS, truth, world_answers
from tests.fleet.test_placement import best_of_all
from tests.recorded import WORLD_H, raw_json

if TYPE_CHECKING:
    from chutes_exporter.fleet.model import Fleet, Offer
    from tests.recorded import Miner

STATES = {"launching": "starting", "verified": "starting"}
"""States of instances by their names in the truth, if they have others."""


@pytest.fixture(scope="module", params=WORLDS, ids=str)
def world(request: pytest.FixtureRequest) -> tuple[Miner, Fleet]:
    return request.param, join_fleet(world_answers(request.param))


def test_each_gpu_and_instance_is_in_its_true_state(world: tuple[Miner, Fleet]) -> None:
    miner, fleet = world
    expected = truth(miner)
    assert {gpu.gpu_id: gpu.state for gpu in fleet.gpus} == expected["gpu_state"]
    states = {key: STATES.get(state, state) for key, state in expected["instance_state"].items()}
    assert {one.instance_id: one.state for one in fleet.instances} == states


def test_the_answers_of_a_world_say_everything_about_each_topic(
    world: tuple[Miner, Fleet],
) -> None:
    _, fleet = world
    assert set(fleet.known.values()) == {True}


def test_the_pay_of_a_server_is_that_of_the_instances_on_its_gpus(
    world: tuple[Miner, Fleet],
) -> None:
    miner, fleet = world
    raw = raw_json(miner.bodies())
    instances_on = defaultdict(set)
    # The public list names the instance of each held GPU.
    for gpu in raw["held_gpus"][miner.hotkey]["provisioned"]:
        instances_on[gpu["server_id"], gpu["gpu"]].add(gpu["chute"]["instance_id"])
    states = truth(miner)["instance_state"]
    # Instances in other states earn nothing.
    units_per_second: Counter[str] = Counter()
    for instance in raw["instances"]:
        instance_id = instance["instance_id"]
        if states[instance_id] in ("active", "disabled"):
            units_per_second[instance_id] = instance["compute_multiplier"]
    for server in fleet.servers:
        for model in server.models or ():
            instance_ids = instances_on[server.server_id, model]
            expected = sum(units_per_second[instance_id] for instance_id in instance_ids)
            assert server.units_per_second(model) == pytest.approx(expected)


def test_the_service_accepts_a_launch_of_each_offer_and_a_server_can_hold_it(
    world: tuple[Miner, Fleet],
) -> None:
    miner, fleet = world
    launch_by_chute = truth(miner)["launch"]
    assert fleet.markets
    for market in fleet.markets:
        for offer in market.offers:
            launch = launch_by_chute[offer.chute_id]
            assert launch["accepted"]
            # It is accepted, and a server of the miner has the GPUs for it.
            assert launch["can_run_now"]


@pytest.mark.parametrize(
    "world",
    [
        # Of the newest world, the search takes more than a minute.
        pytest.param(one, marks=pytest.mark.soak if one.directory == WORLD_H else (), id=str(one))
        for one in WORLDS
    ],
    indirect=True,
)
def test_the_best_uses_of_all_servers_are_the_best_of_all_placements(
    world: tuple[Miner, Fleet],
) -> None:
    _, fleet = world
    # There is something to launch in each world.
    assert sum(use.first_day_units or 0 for use in fleet.uses) > 0
    # No chute runs on servers with TEE and on others, so each kind has a best placement.
    for tee in (True, False):
        uses = [use for use in fleet.uses if fleet.servers_by_id[use.server_id].tee == tee]
        spaces = [Space(use.server_id, use.model, tee=tee, free=use.free) for use in uses]
        contenders = _contenders(_offers_for(spaces, fleet), spaces)
        first_day_units = sum(use.first_day_units or 0 for use in uses)
        assert first_day_units == pytest.approx(best_of_all(spaces, contenders))


def _offers_for(spaces: list[Space], fleet: Fleet) -> list[Offer]:
    """Return the offers that fit some of the spaces, which are all on servers with TEE or all
    without.
    """
    fitting = {(space.model, space.tee) for space in spaces}
    offers: list[Offer] = []
    for market in fleet.markets or ():
        # What hangs on the miner's servers is not launched again.
        offers += [offer for offer in market.offers if not offer.hanging]
    return [offer for offer in offers if (offer.model, offer.tee) in fitting]


def _contenders(offers: list[Offer], spaces: list[Space]) -> list[Offer]:
    """Return the offers that can be in the best placement, so that the search takes less time.

    An offer is in none if better paid ones of its size and model have room for all GPUs of the
    model. Only chutes that run on one model count as better paid ones, because GPUs of another
    model may take the room of a chute that runs on several.
    """
    with_room = [offer for offer in offers if offer.left]
    models_of_chute = Counter(offer.chute_id for offer in offers)
    free_gpus: Counter[str] = Counter()
    for space in spaces:
        free_gpus[space.model] += space.free
    chutes: set[str] = set()
    # The room of better paid chutes, by model and size.
    better_room: Counter[tuple[str, int]] = Counter()
    for offer in sorted(with_room, key=lambda offer: offer.first_day_units, reverse=True):
        key = offer.model, offer.size
        if better_room[key] * offer.size < free_gpus[offer.model]:
            chutes.add(offer.chute_id)
            if models_of_chute[offer.chute_id] == 1:
                better_room[key] += offer.left
    return [offer for offer in with_room if offer.chute_id in chutes]


def test_starts_that_the_service_would_refuse_are_in_vain(world: tuple[Miner, Fleet]) -> None:
    miner, fleet = world
    expected = truth(miner)
    in_vain = [instance for instance in fleet.instances if instance.is_in_vain]
    # Only the truth of the newest world lists such starts, and only if the instances of others
    # filled the chute.
    listed = expected.get("starts_in_vain", {}).keys()
    assert listed <= {instance.instance_id for instance in in_vain}
    for instance in in_vain:
        assert instance.state == "starting"
        # The service refuses another launch for the same reason.
        assert expected["launch"][instance.chute_id]["status"] == 423


def test_an_instance_has_all_the_gpus_that_name_it(world: tuple[Miner, Fleet]) -> None:
    _, fleet = world
    counts = Counter(gpu.instance_id for gpu in fleet.gpus if gpu.instance_id)
    for instance in fleet.instances:
        # Perhaps no GPU names it, because those that it holds are not listed any more.
        if instance.instance_id in counts:
            assert instance.gpus == counts[instance.instance_id]

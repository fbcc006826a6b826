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
    units: Counter[str] = Counter()
    for instance in raw["instances"]:
        instance_id = instance["instance_id"]
        if states[instance_id] in ("active", "disabled"):
            units[instance_id] = instance["compute_multiplier"]
    for server in fleet.servers:
        for model in server.models or ():
            expected = sum(units[one] for one in instances_on[server.server_id, model])
            assert server.units_per_second(model) == pytest.approx(expected)


def test_what_can_be_launched_is_what_the_service_accepts(world: tuple[Miner, Fleet]) -> None:
    miner, fleet = world
    launch = truth(miner)["launch"]
    assert fleet.markets
    for market in fleet.markets:
        for offer in market.offers:
            assert launch[offer.chute_id]["accepted"]
            assert launch[offer.chute_id]["can_run_now"]


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
    assert sum(use.first_day_units or 0 for use in fleet.uses) > 0
    # No chute runs on servers of both kinds.
    for tee in (True, False):
        uses = [use for use in fleet.uses if fleet.servers_by_id[use.server_id].tee == tee]
        spaces = [Space(use.server_id, use.model, tee=tee, free=use.free) for use in uses]
        contenders = _contenders(_offers_for(spaces, fleet), spaces)
        first_day_units = sum(use.first_day_units or 0 for use in uses)
        assert first_day_units == pytest.approx(best_of_all(spaces, contenders))


def _offers_for(spaces: list[Space], fleet: Fleet) -> list[Offer]:
    """Return the offers that fit some of the spaces, which are on servers of one kind."""
    fitting = {(space.model, space.tee) for space in spaces}
    offers: list[Offer] = []
    for market in fleet.markets or ():
        # What hangs on the miner's servers is not launched again.
        offers += [offer for offer in market.offers if not offer.hanging]
    return [offer for offer in offers if (offer.model, offer.tee) in fitting]


def _contenders(offers: list[Offer], spaces: list[Space]) -> list[Offer]:
    """Return the offers that can be in the best placement.

    Of each size and model, these are the best paid ones until all GPUs of the model have room in
    chutes that run on no other model.
    """
    with_room = [offer for offer in offers if offer.left]
    models_of_chute = Counter(offer.chute_id for offer in offers)
    free_gpus: Counter[str] = Counter()
    for space in spaces:
        free_gpus[space.model] += space.free
    chutes: set[str] = set()
    # The instances for which better paid chutes of a model and size have room.
    better_paid: Counter[tuple[str, int]] = Counter()
    for offer in sorted(with_room, key=lambda offer: offer.first_day_units, reverse=True):
        key = offer.model, offer.size
        if better_paid[key] * offer.size < free_gpus[offer.model]:
            chutes.add(offer.chute_id)
            if models_of_chute[offer.chute_id] == 1:
                better_paid[key] += offer.left
    return [offer for offer in with_room if offer.chute_id in chutes]


def test_starts_that_the_service_would_refuse_are_in_vain(world: tuple[Miner, Fleet]) -> None:
    miner, fleet = world
    expected = truth(miner)
    in_vain = [instance for instance in fleet.instances if instance.is_in_vain]
    # Only the newest world lists those whose chute was filled by others.
    listed = expected.get("starts_in_vain", {}).keys()
    assert listed <= {instance.instance_id for instance in in_vain}
    for instance in in_vain:
        assert instance.state == "starting"
        # The service refuses another launch for the same reason.
        assert expected["launch"][instance.chute_id]["status"] == 423


def test_all_gpus_of_an_instance_are_on_one_server(world: tuple[Miner, Fleet]) -> None:
    _, fleet = world
    counts = Counter(gpu.instance_id for gpu in fleet.gpus if gpu.instance_id)
    for instance in fleet.instances:
        # A GPU that is not listed any more may still hold an instance.
        if instance.instance_id in counts:
            assert instance.gpus == counts[instance.instance_id]

"""The best use of all servers in recorded worlds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.fleet.join import join_fleet
from chutes_exporter.fleet.placement import Space
from tests.fleet.support import WORLDS, world_answers
from tests.fleet.test_placement import best_of_all
from tests.recorded import WORLD_H

if TYPE_CHECKING:
    from chutes_exporter.fleet.model import Fleet, Offer
    from tests.recorded import Miner


@pytest.fixture(scope="module", params=WORLDS, ids=str)
def world(request: pytest.FixtureRequest) -> tuple[Miner, Fleet]:
    return request.param, join_fleet(world_answers(request.param))


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

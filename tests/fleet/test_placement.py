"""The best use of idle GPUs, compared with all possible ones."""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.fleet.placement import Placement, Space, best_placement
from tests.fleet.support import make_offer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.fleet.model import Offer

SIZES = (1, 1, 1, 2, 2, 4, 8)


def units_of(placement: Placement) -> float:
    """Return the units of the first day, after a check that everything fits."""
    units = 0.0
    for space, launched in placement.items():
        assert sum(offer.size * count for offer, count in launched.items()) <= space.free
        units += sum(offer.first_day_units * count for offer, count in launched.items())
    return units


def best_of_all(spaces: Sequence[Space], offers: Sequence[Offer]) -> float:
    """Return the units of the best placement, by a search of all."""
    chutes = sorted({offer.chute_id for offer in offers})
    rooms = {offer.chute_id: offer.left for offer in offers}

    @cache
    def from_server(index: int, left: tuple[int, ...]) -> float:
        """Return the best units of a server and those after it. ``left`` is the room of chutes."""
        if index == len(spaces):
            return 0.0
        space = spaces[index]
        fitting = [
            offer for offer in offers if (offer.model, offer.tee) == (space.model, space.tee)
        ]
        return fill(index, tuple(fitting), space.free, left)

    def fill(index: int, fitting: tuple[Offer, ...], free: int, left: tuple[int, ...]) -> float:
        """Return the same, with only some offers for the free GPUs of the first server."""
        if not fitting:
            return from_server(index + 1, left)
        offer, *others = fitting
        chute = chutes.index(offer.chute_id)
        best = 0.0
        for count in range(min(left[chute], free // offer.size) + 1):
            now_left = (*left[:chute], left[chute] - count, *left[chute + 1 :])
            later = fill(index, tuple(others), free - count * offer.size, now_left)
            best = max(best, later + count * offer.first_day_units)
        return best

    all_rooms = tuple(rooms[chute_id] for chute_id in chutes)
    return from_server(0, all_rooms)


def random_market(draw: random.Random) -> tuple[list[Space], list[Offer]]:
    """Return a few servers and chutes, some of which run on two models."""
    models = ["h200", "pro_6000"][: draw.randint(1, 2)]
    servers = range(draw.randint(1, 3))
    spaces = [
        Space(f"s{n}", draw.choice(models), tee=True, free=draw.randint(1, 8)) for n in servers
    ]
    offers = []
    for number in range(draw.randint(1, 5)):
        size, left = draw.choice(SIZES), draw.randint(1, 3)
        for model in models:
            pay = draw.uniform(0.5, 3) * size
            offers.append(make_offer(f"c{number}", pay, size, left, model=model))
    return spaces, offers


@pytest.mark.parametrize("seed", range(60))
def test_no_other_placement_earns_more_in_the_first_day(seed: int) -> None:
    spaces, offers = random_market(random.Random(seed))
    placed = units_of(best_placement(spaces, offers))
    assert placed == pytest.approx(best_of_all(spaces, offers))


def test_each_room_is_given_to_one_server_only() -> None:
    servers = [Space(f"s{number}", "pro_6000", tee=True, free=1) for number in range(3)]
    best, other = make_offer("best", 9, left=1), make_offer("other", 1, left=1)
    launched = [tuple(placed.items()) for placed in best_placement(servers, [best, other]).values()]
    assert sorted(launched, key=len) == [(), ((best, 1),), ((other, 1),)]


def test_a_pay_that_lasts_goes_before_a_bounty_that_is_gone_after_hours() -> None:
    server = Space("s1", "pro_6000", tee=True, free=1)
    falls = make_offer("falls", 1.5, later_units_per_second=1.0)
    stays = make_offer("stays", 1.2)
    (placed,) = best_placement([server], [falls, stays]).values()
    assert dict(placed) == {stays: 1}


def test_an_odd_size_fills_the_rest_of_a_server_exactly() -> None:
    server = Space("s1", "pro_6000", tee=True, free=7)
    three, two = make_offer("three", 3.3, size=3, left=1), make_offer("two", 2, size=2, left=5)
    (placed,) = best_placement([server], [three, two]).values()
    assert dict(placed) == {three: 1, two: 2}

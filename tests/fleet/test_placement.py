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
"""GPUs of an instance to draw from. Most chutes need few."""


def units_of(placement: Placement) -> float:
    """Return the units of the first day, after a check that everything fits."""
    units = 0.0
    for space, launched in placement.items():
        assert sum(offer.size * count for offer, count in launched.items()) <= space.free
        units += sum(offer.first_day_units * count for offer, count in launched.items())
    return units


def best_of_all(spaces: Sequence[Space], offers: Sequence[Offer]) -> float:
    """Return the units of the first day of the best placement, found by trying all of them."""
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
        """Return the best units of a server, of which some GPUs are free, and of those after it.

        The server may only get the offers in ``fitting``.
        """
        if not fitting:
            return from_server(index + 1, left)
        offer, *others = fitting
        chute = chutes.index(offer.chute_id)
        best = 0.0
        for count in range(min(left[chute], free // offer.size) + 1):
            now_left = (*left[:chute], left[chute] - count, *left[chute + 1 :])
            units_of_rest = fill(index, tuple(others), free - count * offer.size, now_left)
            best = max(best, units_of_rest + count * offer.first_day_units)
        return best

    all_rooms = tuple(rooms[chute_id] for chute_id in chutes)
    return from_server(0, all_rooms)


def random_market(draw: random.Random) -> tuple[list[Space], list[Offer]]:
    """Return a few servers with idle GPUs of one or two models, and chutes that run on both."""
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
    launched = [dict(placed) for placed in best_placement(servers, [best, other]).values()]
    # Each of the chutes has room for one instance, so the third server stays empty.
    assert len(launched) == 3
    for placed in ({best: 1}, {other: 1}, {}):
        assert placed in launched


def test_a_pay_that_lasts_goes_before_a_bounty_that_is_gone_after_hours() -> None:
    server = Space("s1", "pro_6000", tee=True, free=1)
    # The bounty's part, 0.5, counts for 4.6 hours. So the average of the first day is
    # 1 + 0.5 * 4.6 / 24 = 1.1 units a second.
    falls = make_offer("falls", 1.5, later_units_per_second=1.0)
    stays = make_offer("stays", 1.2)
    (placed,) = best_placement([server], [falls, stays]).values()
    assert dict(placed) == {stays: 1}


def test_an_odd_size_fills_the_rest_of_a_server_exactly() -> None:
    server = Space("s1", "pro_6000", tee=True, free=7)
    three, two = make_offer("three", 3.3, size=3, left=1), make_offer("two", 2, size=2, left=5)
    (placed,) = best_placement([server], [three, two]).values()
    # 3 + 2 * 2 are all 7 GPUs. Three instances of the other chute would leave one idle.
    assert dict(placed) == {three: 1, two: 2}

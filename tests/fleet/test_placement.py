"""What idle GPUs could earn, compared with all possible placements."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.fleet import FLEET_FEEDS
from chutes_exporter.fleet.model import join_fleet
from chutes_exporter.fleet.placement import Space
from tests.collectors.support import answer
from tests.fleet.support import WORLDS, answers_about, world_answers
from tests.support import recorded_day

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.offers import Offer
    from tests.recorded import Miner


def can_earn_more(free: Mapping[Space, int], offers: Sequence[Offer], units: float) -> bool:
    """Return whether any placement on the free GPUs earns more units in the first day.

    The offers are sorted by their pay for a GPU, the best one first.
    """
    if units < 0:
        return True
    if not offers or most_units(free, offers) <= units:
        return False
    first, *others = offers
    tried = set()
    for space, gpus in free.items():
        fits = (space.model, space.tee) == place_of(first) and first.size <= gpus
        if not fits or not first.room_after_starting or gpus in tried:
            continue
        tried.add(gpus)
        now_left = []
        for offer in offers:
            is_launched = offer.chute_id == first.chute_id
            now_left.append(
                replace(offer, room_after_starting=offer.room_after_starting - 1)
                if is_launched
                else offer
            )
        now_free = {**free, space: gpus - first.size}
        if can_earn_more(now_free, now_left, units - first.first_day_units):
            return True
    return can_earn_more(free, others, units)


def place_of(offer: Offer) -> tuple[str, bool | None]:
    """Return the model and whether it needs TEE."""
    return offer.model, offer.demand.chute.tee


def most_units(free: Mapping[Space, int], offers: Sequence[Offer]) -> float:
    """Return what no placement exceeds: the units if instances could be cut into parts."""
    units = 0.0
    gpus: Counter[tuple[str, bool | None]] = Counter()
    for space, count in free.items():
        gpus[space.model, space.tee] += count
    for offer in offers:
        taken = min(offer.room_after_starting * offer.size, gpus[place_of(offer)])
        gpus[place_of(offer)] -= taken
        units += taken * offer.first_day_units / offer.size
    return units


def answers_at(hour: int) -> FleetAnswers:
    """Return what the API says of the troubled miner at an hour of the recorded day."""
    day = recorded_day()
    hotkey, known = day.miners["troubled"].address, {}
    for feed in FLEET_FEEDS:
        body = day.answer(feed.name, hour * HOUR, hotkey)
        if body is not None:
            sent = answer(feed, body)
            known[feed.name] = replace(sent, received_at=day.first + hour * HOUR)
    return answers_about(hotkey, known)


def name_of(recorded: Miner | int) -> str:
    """Return the name of a world, or an hour of the day."""
    return f"{recorded}:00" if isinstance(recorded, int) else recorded.directory.name


@pytest.mark.parametrize("recorded", [*WORLDS, *range(25)], ids=name_of)
def test_no_placement_earns_two_percent_more_in_the_first_day(recorded: Miner | int) -> None:
    if isinstance(recorded, int):
        fleet = join_fleet(answers_at(recorded))
    else:
        fleet = join_fleet(world_answers(recorded))
    free = {}
    for use in fleet.plans:
        server = fleet.servers_by_id[use.server_id]
        gpus = server.known_idle_gpus[use.model]
        free[Space(use.server_id, use.model, server.tee is True, gpus)] = gpus
        assert use.used <= gpus
    offers: list[Offer] = []
    for market in fleet.markets or ():
        # What hangs on the miner's servers is not launched again.
        offers += [offer for offer in market.offers if not offer.hanging]
    offers.sort(key=lambda offer: offer.first_day_units / offer.size, reverse=True)
    units = sum(use.first_day_units or 0 for use in fleet.plans)
    assert not can_earn_more(free, offers, units / 0.98)
    # Nothing exceeds the room of a chute or the GPUs of a server.
    launched: Counter[str] = Counter()
    for use in fleet.plans:
        for launch in use.launches:
            launched[launch.offer.chute_id] += launch.instances
            assert launched[launch.offer.chute_id] <= launch.offer.room_after_starting
    # The search finds what is there.
    assert not units or can_earn_more(free, offers, units * 0.99)

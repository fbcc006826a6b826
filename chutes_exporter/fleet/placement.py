"""The best use of idle GPUs: which chutes to launch on which server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chutes_exporter.fleet.model import Launch, units_of_first_day

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.fleet.model import Offer, Server


@dataclass(frozen=True, slots=True)
class Space:
    """Idle GPUs of a model on a server that can be used."""

    server_id: str
    model: str
    tee: bool
    free: int


Placement = dict[Space, list[Launch]]


def best_placement(servers: Iterable[Server], offers: Iterable[Offer]) -> Placement:
    """Return what to launch on the idle GPUs of servers of which TEE is known, so that the units of
    the first day are about the most.

    It is the best of three placements, each of which takes the offers in another order: by their
    pay for a GPU, by their pay, and the largest ones first. Each room of a chute is given once.
    """
    wanted = [offer for offer in offers if offer.first_day_units > 0]
    by_gpu = sorted(wanted, key=lambda offer: -offer.first_day_units / offer.size)
    by_pay = sorted(wanted, key=lambda offer: -offer.first_day_units)
    by_size = sorted(by_gpu, key=lambda offer: -offer.size)
    spaces = []
    for server in servers:
        for model, free in sorted(server.idle_by_model.items()):
            spaces.append(Space(server.server_id, model, bool(server.tee), free))
    placements = [_fill(spaces, ordered) for ordered in (by_gpu, by_pay, by_size)]
    return max(placements, key=lambda placement: sum(map(units_of_first_day, placement.values())))


def _fill(spaces: Iterable[Space], offers: Sequence[Offer]) -> Placement:
    """Place the offers one after another, each first where it leaves the fewest GPUs idle."""
    placement: Placement = {space: [] for space in spaces}
    free = {space: space.free for space in placement}
    left = {offer.chute_id: offer.room_after_starting for offer in offers}
    for offer in offers:
        for space in sorted(free, key=free.__getitem__):
            count = min(left[offer.chute_id], free[space] // offer.size)
            if count and (space.model, space.tee) == (offer.model, offer.tee):
                placement[space].append(Launch(offer, count))
                free[space] -= count * offer.size
                left[offer.chute_id] -= count
    return placement

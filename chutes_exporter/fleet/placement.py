"""The best use of idle GPUs: what to launch on which server, and where to launch nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from chutes_exporter.fleet.answers import Window
    from chutes_exporter.fleet.offers import Market, Offer
    from chutes_exporter.fleet.servers import Server

LeftOut = Literal[
    "upgrade_slot",  # It holds an upgrade slot, so launches are refused.
    "upgrade_due",  # It waits for its upgrade, and the window ends soon.
    "starts_hang",  # What starts on it does not become active within an hour.
    "may_be_dead",  # Several instances ended there within minutes, by the reports.
    "use_not_known",  # Whether it has TEE, or whether one of these applies, is not known.
]
"""Why the plan launches nothing on a server: the first of these that applies."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A number of instances of an offer."""

    offer: Offer
    instances: int

    @property
    def gpus(self) -> int:
        """GPUs that they take."""
        return self.instances * self.offer.size

    @property
    def first_day_units(self) -> float:
        """Compute units of their first day."""
        return self.instances * self.offer.first_day_units

    @property
    def later_units_per_second(self) -> float:
        """Compute units per second from 8 hours after their activation on."""
        return self.instances * self.offer.later_units_per_second


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """The best use of the idle GPUs of a model on a server that can be used.

    Attributes:
        launches: What to launch on them, so that the units of the first day are the most. Each room
            of a chute is given to one server only.
        may_be_more: Whether more is possible, because it is unknown of a chute whether it can be
            launched.
    """

    server_id: str
    model: str
    launches: tuple[Launch, ...]
    may_be_more: bool

    @property
    def used(self) -> int:
        """GPUs that the launches take."""
        return sum(launch.gpus for launch in self.launches)

    @property
    def first_day_units(self) -> float | None:
        """Compute units of the first day.

        None if the launches pay nothing, and it is unknown whether others could pay something.
        """
        units = sum(launch.first_day_units for launch in self.launches)
        return None if self.may_be_more and not units else units

    @property
    def later_units_per_second(self) -> float:
        """Compute units per second from 8 hours after the activations on."""
        return sum(launch.later_units_per_second for launch in self.launches)


@dataclass(frozen=True, slots=True)
class Space:
    """Idle GPUs of a model on a server that can be used."""

    server_id: str
    model: str
    tee: bool
    free: int


Placement = dict[Space, list[Launch]]


def find_left_out(servers: Iterable[Server], window: Window, now: float) -> dict[str, LeftOut]:
    """Return why nothing should be launched on servers at a Unix time, by the server's id.

    The result has no server that can be used.
    """
    left_out: dict[str, LeftOut] = {}
    for server in servers:
        facts: dict[LeftOut, bool | None] = {
            "upgrade_slot": server.holds_slot,
            "upgrade_due": server.upgrade_is_due(window, now),
            "starts_hang": server.starts_hang(now),
        }
        reasons = [reason for reason, applies in facts.items() if applies]
        # Each chute runs either with TEE or without.
        if None in (*facts.values(), server.tee):
            reasons.append("use_not_known")
        if reasons:
            left_out[server.server_id] = reasons[0]
    return left_out


def plan_servers(
    servers: Iterable[Server],
    markets: Sequence[Market],
    left_out: Collection[str],
    avoided: Collection[str],
) -> tuple[ServerPlan, ...]:
    """Return the best use of the idle GPUs of each server that can be used, one for each model.

    A chute with an instance that has been starting on the miner's servers for over an hour is not
    launched again. ``left_out`` are the ids of the servers that cannot be used, and ``avoided``
    those of chutes that are not launched. Of all other servers it is known whether they have TEE.
    """
    spaces = []
    for server in servers:
        if server.server_id not in left_out:
            for model, free in sorted(server.known_idle_gpus.items()):
                spaces.append(Space(server.server_id, model, bool(server.tee), free))
    refused = {market.model: market.refused for market in markets}
    offers = chain.from_iterable(market.offers for market in markets)
    plans = []
    for space, launches in _best_placement(spaces, offers, avoided).items():
        launched = tuple(sorted(launches, key=lambda launch: launch.offer.rank))
        may_be_more = "unknown" in refused[space.model]
        plans.append(ServerPlan(space.server_id, space.model, launched, may_be_more))
    return tuple(plans)


def _best_placement(
    spaces: Sequence[Space], offers: Iterable[Offer], avoided: Collection[str]
) -> Placement:
    """Return the launches whose units of the first day are about the most.

    It is the best of three placements, each of which takes the offers in another order: by their
    pay for a GPU, by their pay, and the largest ones first. Each room of a chute is given once.
    """
    wanted = [
        offer
        for offer in offers
        if offer.first_day_units > 0 and not offer.is_avoided and offer.chute_id not in avoided
    ]
    by_gpu = sorted(wanted, key=lambda offer: offer.rank)
    by_pay = sorted(wanted, key=lambda offer: -offer.first_day_units)
    by_size = sorted(by_gpu, key=lambda offer: -offer.size)
    placements = [_fill(spaces, ordered) for ordered in (by_gpu, by_pay, by_size)]
    return max(
        placements,
        key=lambda placement: sum(one.first_day_units for one in chain(*placement.values())),
    )


def _fill(spaces: Iterable[Space], offers: Sequence[Offer]) -> Placement:
    """Place the offers one after another, each first where it leaves the fewest GPUs idle."""
    placement: Placement = {space: [] for space in spaces}
    free = {space: space.free for space in placement}
    rooms = {offer.chute_id: offer.room_after_starting for offer in offers}
    for offer in offers:
        for space in sorted(free, key=free.__getitem__):
            count = min(rooms[offer.chute_id], free[space] // offer.size)
            if count and (space.model, space.tee) == (offer.model, offer.demand.chute.tee):
                placement[space].append(Launch(offer, count))
                free[space] -= count * offer.size
                rooms[offer.chute_id] -= count
    return placement

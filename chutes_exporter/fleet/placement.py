"""The best use of idle GPUs: which chutes to launch on which server."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chutes_exporter.fleet.model import Offer

    Limits = Mapping[Offer, int]
    """How many instances of each offer may be launched."""

_MAX_TRIES = 500
"""Most divisions of rooms among models that are compared."""


@dataclass(frozen=True, slots=True)
class Space:
    """Idle GPUs of a model on a server that can be used."""

    server_id: str
    model: str
    tee: bool
    free: int


@dataclass(frozen=True, slots=True)
class _Bundle:
    """Instances that fit together into a block of GPUs, and their units of the first day."""

    units: float
    offers: tuple[Offer, ...]


Placement = dict[Space, Counter["Offer"]]
"""Instances of offers by the space that they take."""


def best_placement(spaces: Sequence[Space], offers: Sequence[Offer]) -> Placement:
    """Return where to launch what, so that the units of the first day are the most.

    Each room of a chute is given once. If an offer has a size that is no power of two, the servers
    are filled one after another, each exactly.
    """
    wanted = [offer for offer in offers if offer.left > 0 and offer.first_day_units > 0]
    limits = {offer: offer.left for offer in wanted}
    _, placement = _divide_rooms(spaces, limits, [0])
    return placement


def _divide_rooms(
    spaces: Sequence[Space], limits: Limits, tries: list[int]
) -> tuple[float, Placement]:
    """Return the best units and placement, in which no chute gets more than its room.

    The models are filled on their own. If a chute gets more than its room in all models together,
    each division of its room between two models is tried.
    """
    tries[0] += 1
    placement: Placement = {}
    for kind in sorted({(space.model, space.tee) for space in spaces}):
        of_kind = [space for space in spaces if (space.model, space.tee) == kind]
        placement |= _fill(
            of_kind, {offer: n for offer, n in limits.items() if (offer.model, offer.tee) == kind}
        )
    launched: Counter[Offer] = Counter()
    for instances in placement.values():
        launched += instances
    excess = _first_excess(launched)
    if not excess:
        return sum(offer.first_day_units * count for offer, count in launched.items()), placement
    room = excess[0].left
    first, *others = sorted(excess, key=attrgetter("first_day_units"), reverse=True)
    divisions = range(room + 1) if tries[0] < _MAX_TRIES else [room]
    results = []
    for share in divisions:
        divided = {**limits, first: min(share, limits[first])}
        left = room - share
        for other in others:
            divided[other] = min(left, limits[other])
        results.append(_divide_rooms(spaces, divided, tries))
    return max(results, key=lambda result: result[0])


def _first_excess(launched: Counter[Offer]) -> list[Offer]:
    """Return the offers of a chute that together exceed what is left of its room, if any.

    What is left is the same on each model, and one model alone never exceeds it.
    """
    of_chute: dict[str, list[Offer]] = defaultdict(list)
    for offer in launched:
        of_chute[offer.chute_id].append(offer)
    for offers in of_chute.values():
        if sum(launched[offer] for offer in offers) > offers[0].left:
            return offers
    return []


def _fill(spaces: Sequence[Space], limits: Limits) -> Placement:
    """Return the best placement on servers of one model."""
    if all(offer.size & (offer.size - 1) == 0 for offer in limits):
        return _fill_blocks(spaces, limits)
    placement: Placement = {}
    left = dict(limits)
    for space in sorted(spaces, key=attrgetter("free", "server_id")):
        placement[space] = Counter(_fill_one(space.free, left))
        for offer, count in placement[space].items():
            left[offer] -= count
    return placement


def _fill_blocks(spaces: Sequence[Space], limits: Limits) -> Placement:
    """Return the best placement of instances whose sizes are powers of two.

    All servers are cut into blocks of 1, 2, 4, ... GPUs. The best bundles of a size take the blocks
    of this size. Of the others, two at a time become a bundle of the next size. This is the best
    use, because whatever fits into a block also fits into a half of a larger one.
    """
    blocks: dict[int, list[Space]] = defaultdict(list)
    for space in spaces:
        for power in range(space.free.bit_length()):
            if space.free >> power & 1:
                blocks[1 << power].append(space)
    free = sum(space.free for space in spaces)
    bundles: dict[int, list[_Bundle]] = defaultdict(list)
    for offer, count in limits.items():
        fitting = min(count, free // offer.size)
        bundles[offer.size] += [_Bundle(offer.first_day_units, (offer,))] * fitting
    placement: Placement = {space: Counter() for space in spaces}
    size = 1
    while size <= max(blocks, default=0):
        best = sorted(bundles[size], key=_order)
        for space, bundle in zip(blocks[size], best, strict=False):
            placement[space].update(bundle.offers)
        rest = best[len(blocks[size]) :]
        for first in range(0, len(rest), 2):
            bundles[2 * size].append(_joined(rest[first : first + 2]))
        size *= 2
    return placement


def _fill_one(free: int, limits: Limits) -> tuple[Offer, ...]:
    """Return the best instances for the GPUs of one server, whatever their sizes."""
    best = [_Bundle(0.0, ())] * (free + 1)
    for offer, count in limits.items():
        for _ in range(min(count, free // offer.size)):
            one = _Bundle(offer.first_day_units, (offer,))
            for gpus in range(free, offer.size - 1, -1):
                with_it = _joined([best[gpus - offer.size], one])
                if with_it.units > best[gpus].units:
                    best[gpus] = with_it
    return best[free].offers


def _joined(bundles: Sequence[_Bundle]) -> _Bundle:
    offers = [offer for bundle in bundles for offer in bundle.offers]
    return _Bundle(sum(bundle.units for bundle in bundles), tuple(offers))


def _order(bundle: _Bundle) -> tuple[float, list[str]]:
    """Return what sorts bundles: the best paid first, and equal ones by their chutes."""
    return -bundle.units, [offer.chute_id for offer in bundle.offers]

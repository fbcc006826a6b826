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

    Each room of a chute is given once. If an offer for a model has a size that is no power of two,
    the servers of this model are filled one after another. Then each is filled in its best way,
    but perhaps not all of them together.
    """
    wanted = [offer for offer in offers if offer.left > 0 and offer.first_day_units > 0]
    limits = {offer: offer.left for offer in wanted}
    return _Search(spaces).best(limits).placement


@dataclass(frozen=True)
class _Filling:
    """A placement, and the compute units of its first day."""

    placement: Placement
    units: float


class _Search:
    """The search for the best placement on some servers, in which no chute exceeds its room."""

    def __init__(self, spaces: Sequence[Space]) -> None:
        self._spaces = spaces
        self._tries = 0

    def best(self, limits: Limits) -> _Filling:
        """Return the best placement within some limits.

        The models are filled on their own. If a chute gets more than its room in all models
        together, each division of its room between its best paid model and the others is tried.
        """
        self._tries += 1
        placement = _fill_each_model(self._spaces, limits)
        launched = _launched(placement)
        excess = _first_excess(launched)
        if not excess:
            return _Filling(placement, _first_day_units(launched))
        # These are the offers of one chute for several models, so all have the same room.
        room = excess[0].left
        best_paid, *others = sorted(excess, key=attrgetter("first_day_units"), reverse=True)
        # After too many tries, the best paid model gets the whole room.
        shares = range(room + 1) if self._tries < _MAX_TRIES else [room]
        fillings = []
        for share in shares:
            # Each of the others gets at most the rest. If they exceed the room together, the search
            # in these limits divides it again.
            divided = {**limits, best_paid: min(share, limits[best_paid])}
            for other in others:
                divided[other] = min(room - share, limits[other])
            fillings.append(self.best(divided))
        return max(fillings, key=attrgetter("units"))


def _fill_each_model(spaces: Sequence[Space], limits: Limits) -> Placement:
    """Return the best placement, in which a chute may exceed its room on several models together.

    Servers of a model with TEE and without are filled on their own, because offers are for one of
    them.
    """
    placement: Placement = {}
    for model, tee in sorted({(space.model, space.tee) for space in spaces}):
        fitting_spaces = [space for space in spaces if (space.model, space.tee) == (model, tee)]
        fitting_limits = {
            offer: limit
            for offer, limit in limits.items()
            if (offer.model, offer.tee) == (model, tee)
        }
        placement |= _fill(fitting_spaces, fitting_limits)
    return placement


def _launched(placement: Placement) -> Counter[Offer]:
    """Return how many instances of each offer all servers together launch."""
    launched: Counter[Offer] = Counter()
    for instances in placement.values():
        launched += instances
    return launched


def _first_day_units(launched: Counter[Offer]) -> float:
    return sum(offer.first_day_units * count for offer, count in launched.items())


def _first_excess(launched: Counter[Offer]) -> list[Offer]:
    """Return the offers of a chute that together exceed what is left of its room, if any.

    What is left is the same on each model, and one model alone never exceeds it.
    """
    offers_by_chute: dict[str, list[Offer]] = defaultdict(list)
    for offer in launched:
        offers_by_chute[offer.chute_id].append(offer)
    for offers in offers_by_chute.values():
        if sum(launched[offer] for offer in offers) > offers[0].left:
            return offers
    return []


def _fill(spaces: Sequence[Space], limits: Limits) -> Placement:
    """Return the best placement on servers of one model.

    If a size is no power of two, each server gets the best of what those before it have left.
    """
    if all(_is_power_of_two(offer.size) for offer in limits):
        return _fill_blocks(spaces, limits)
    # The smallest servers are filled first, because the fewest offers fit there.
    placement: Placement = {}
    left = dict(limits)
    for space in sorted(spaces, key=attrgetter("free", "server_id")):
        placement[space] = Counter(_fill_one(space.free, left))
        for offer, count in placement[space].items():
            left[offer] -= count
    return placement


def _is_power_of_two(size: int) -> bool:
    return size.bit_count() <= 1


def _fill_blocks(spaces: Sequence[Space], limits: Limits) -> Placement:
    """Return the best placement of instances whose sizes are powers of two.

    All servers are cut into blocks of 1, 2, 4, ... GPUs. The best bundles of a size take the blocks
    of this size. Of the bundles that get no block, two at a time become a bundle of the next size.
    This is the best use, because whatever fits into a block also fits into a half of a larger one.
    """
    blocks = _blocks(spaces)
    free = sum(space.free for space in spaces)
    bundles: dict[int, list[_Bundle]] = defaultdict(list)
    for offer, limit in limits.items():
        # More than fit on all servers would only take time.
        copies = min(limit, free // offer.size)
        bundles[offer.size] += [_Bundle(offer.first_day_units, (offer,))] * copies
    placement: Placement = {space: Counter() for space in spaces}
    size = 1
    while size <= max(blocks, default=0):
        best_first = sorted(bundles[size], key=_order)
        for space, bundle in zip(blocks[size], best_first, strict=False):
            placement[space].update(bundle.offers)
        without_block = best_first[len(blocks[size]) :]
        for first in range(0, len(without_block), 2):
            # If their number is odd, the last pair has only one.
            pair = without_block[first : first + 2]
            bundles[2 * size].append(_joined(pair))
        size *= 2
    return placement


def _blocks(spaces: Sequence[Space]) -> dict[int, list[Space]]:
    """Return which spaces have a block of each size, from the binary digits of their GPUs.

    For example, 7 idle GPUs are a block of 4, one of 2 and one of 1.
    """
    blocks: dict[int, list[Space]] = defaultdict(list)
    for space in spaces:
        for power in range(space.free.bit_length()):
            size = 1 << power
            if space.free & size:
                blocks[size].append(space)
    return blocks


def _fill_one(free: int, limits: Limits) -> tuple[Offer, ...]:
    """Return the best instances for the GPUs of one server, whatever their sizes.

    This is the knapsack problem: ``best[gpus]`` is the best bundle so far for a number of GPUs.
    Each instance in turn joins the bundles that become better by it. The numbers of GPUs are taken
    from the highest down, so that no instance is added twice.
    """
    best = [_Bundle(0.0, ())] * (free + 1)
    for offer, limit in limits.items():
        for _ in range(min(limit, free // offer.size)):
            instance = _Bundle(offer.first_day_units, (offer,))
            for gpus in range(free, offer.size - 1, -1):
                improved = _joined([best[gpus - offer.size], instance])
                if improved.units > best[gpus].units:
                    best[gpus] = improved
    return best[free].offers


def _joined(bundles: Sequence[_Bundle]) -> _Bundle:
    offers = [offer for bundle in bundles for offer in bundle.offers]
    return _Bundle(sum(bundle.units for bundle in bundles), tuple(offers))


def _order(bundle: _Bundle) -> tuple[float, list[str]]:
    """Return what sorts bundles: the best paid first, and equal ones by their chutes."""
    return -bundle.units, [offer.chute_id for offer in bundle.offers]

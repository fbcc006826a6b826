"""Active instances of a miner for which another chute would earn more on the same GPUs."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.fleet.failures import markets_without
from chutes_exporter.fleet.model import Gpu, Launch
from chutes_exporter.fleet.offers import find_demand, find_markets, find_uses, sorted_offers
from chutes_exporter.fleet.placement import Space, best_placement
from chutes_exporter.rules.losses import deletion_cost

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.ends import Ledger
    from chutes_exporter.fleet.failures import Failures
    from chutes_exporter.fleet.model import Fleet, Instance, Market, Offer, Server, Use
    from chutes_exporter.rules.losses import DeletionCost

LEAST_GAIN: Final = 0.1
"""Part of the pay of an instance's next day by which other chutes must pay more."""
_ROUNDING: Final = 1e-9
"""Part of a sum of compute units that rounding may change."""
_RUN: Final = 15 * MINUTE
"""Seconds between two runs of the autoscaler, which move a multiplier to the later one."""


@dataclass(frozen=True)
class Switch:
    """Other chutes that would earn more on the GPUs of an instance.

    Attributes:
        launches: What to launch instead.
        kept_units: Compute units that the instance would earn in the next day.
        cost: What its deletion costs.
    """

    instance: Instance
    launches: tuple[Launch, ...]
    kept_units: float
    cost: DeletionCost

    @property
    def first_day_gain(self) -> float:
        """Compute units that the switch earns more in the first day, without its cost."""
        return _first_day_units(self.launches) - self.kept_units

    @property
    def later_gain(self) -> float:
        """Compute units per second that it earns more from 8 hours after the activations on."""
        return _later_units(self.launches) - (self.instance.later_units_per_second or 0.0)

    @property
    def waits_until(self) -> float | None:
        """Unix time until which it should wait: the end of the instance's first hour."""
        return _waits_until(self.cost)

    @property
    def least_cost(self) -> float:
        """Compute units that it costs if it waits as long as it should."""
        return _least_cost(self.cost)

    @property
    def payback_seconds(self) -> float | None:
        """Seconds until the gain has paid the cost, None if it never does.

        Only what earns more in the first day is a switch.
        """
        if self.least_cost <= self.first_day_gain:
            return DAY * self.least_cost / self.first_day_gain
        left = self.least_cost - self.first_day_gain
        return DAY + left / self.later_gain if self.later_gain > 0 else None

    @property
    def pays_within_a_day(self) -> bool:
        """Whether the first day pays more than the cost."""
        # Sums are rounded. Without a margin, a tie would be decided anew each time.
        return self.least_cost < self.first_day_gain * (1 - _ROUNDING)


@dataclass(frozen=True)
class NotCompared:
    """An active instance of which something is not known that a switch needs."""

    instance: Instance
    reason: str


@dataclass(frozen=True)
class Switches:
    """The switches of a miner.

    Attributes:
        proposed: Those to make, the largest gain of the first day first. Each room is given once,
            and after the idle GPUs have had theirs.
        too_dear: Those whose deletion costs more than the first day gains.
        compared: Number of active instances that were compared.
    """

    proposed: tuple[Switch, ...]
    too_dear: tuple[Switch, ...]
    compared: int
    not_compared: tuple[NotCompared, ...]


@dataclass(frozen=True)
class _Candidate:
    """An active instance with all that a switch needs to know of it.

    Attributes:
        worth: Compute units of the next day per GPU that a switch gives up.
    """

    instance: Instance
    server: Server
    gpus: int
    kept_units: float
    cost: DeletionCost
    worth: float


def switches_by_reports(
    answers: FleetAnswers, fleet: Fleet, ledger: Ledger, failures: Failures, now: float
) -> Switches | None:
    """Return what to run instead of active instances, with the scores that reports show, None
    while it is unknown.

    Idle GPUs have the room of chutes first. ``now`` is the Unix time.
    """
    if fleet.markets is None:
        return None
    uses = find_uses(fleet.servers, markets_without(fleet.markets, failures))
    active = [one for one in fleet.instances if one.state == "active"]
    return find_switches(answers, fleet, uses, failures, ledger.scores(active, now), now)


def find_switches(
    answers: FleetAnswers,
    fleet: Fleet,
    uses: Iterable[Use],
    failures: Failures,
    scores: Mapping[str, float | None],
    now: float,
) -> Switches | None:
    """Return what to run instead of active instances, None while it is unknown what can be
    launched, or what failed.

    Each instance is compared on its own GPUs, those with the least to lose first.

    ``uses`` are what will be launched on idle GPUs, ``scores`` the compute units of active
    instances in the score of the past day, by id, and ``now`` is the Unix time.
    """
    demand = find_demand(answers)
    if demand is None or fleet.markets is None or not failures.are_all:
        return None
    candidates: list[_Candidate] = []
    not_compared: list[NotCompared] = []
    for instance in fleet.instances:
        if instance.state not in ("active", None):
            continue
        found = _candidate(instance, fleet, scores.get(instance.instance_id), now)
        if isinstance(found, _Candidate):
            candidates.append(found)
        else:
            not_compared.append(NotCompared(instance, found))
    freed = [_as_idle(one) for one in candidates]
    markets = find_markets(answers, demand, freed, fleet.instances)
    proposed, too_dear = _choose(candidates, markets, failures, _rooms(uses))
    return Switches(proposed, too_dear, len(candidates), tuple(not_compared))


def _candidate(
    instance: Instance, fleet: Fleet, score: float | None, now: float
) -> _Candidate | str:
    """Return an instance that can be compared, or what is not known of it."""
    if instance.state is None:
        return "it is not known whether it is active"
    server = fleet.servers_by_id.get(instance.server_id or "")
    if server is None or not instance.gpus or server.tee is None or server.holds_slot is None:
        return "its GPUs, or whether its server is in maintenance, are not known"
    kept = _kept_units(instance, now)
    if kept is None:
        return "what it earns is not known"
    cost = _deletion_cost(instance, score, now)
    if cost is None:
        return "what its deletion costs is not known"
    worth = (kept + _least_cost(cost)) / instance.gpus
    return _Candidate(instance, server, instance.gpus, kept, cost, worth)


def _kept_units(instance: Instance, now: float) -> float | None:
    """Return the compute units that an instance would earn in the next day."""
    first, later = instance.units_per_second, instance.later_units_per_second
    if first is None or later is None or instance.created_at is None:
        return None
    return later * DAY + (first - later) * fading_seconds(now - instance.created_at)


def _deletion_cost(instance: Instance, score: float | None, now: float) -> DeletionCost | None:
    secured_at = instance.deadlines.get("secured", 0.0 if instance.private else None)
    is_last = instance.is_last_active
    if instance.private is None or is_last is None or secured_at is None or score is None:
        return None
    return deletion_cost(
        private=instance.private,
        is_last_active=is_last,
        secured_at=secured_at,
        score=score,
        now=now,
    )


def _waits_until(cost: DeletionCost) -> float | None:
    """Return when a deletion becomes free, if it does so at the end of the first hour."""
    return cost.free_at if cost.why == "first_hour" else None


def _least_cost(cost: DeletionCost) -> float:
    """Return the compute units of a deletion that waits as long as it should."""
    return cost.units if _waits_until(cost) is None else 0.0


def fading_seconds(age: float) -> float:
    """Return the seconds for which the first pay of an instance would have to last, from an age
    on, to bring what it brings while it fades.
    """
    start = max(0.0, age)
    left, seconds, at = 1.0, 0.0, start
    while at < 8 * HOUR:
        seconds += left * _RUN
        at += _RUN
        faded = max(0.0, at - 2 * HOUR) / (6 * HOUR)
        left *= max(0.0, 1 - faded**2)
    return seconds


def _as_idle(candidate: _Candidate) -> Server:
    """Return a server that has nothing but the GPUs of an instance, all idle."""
    instance_id = candidate.instance.instance_id
    model = candidate.instance.model
    gpus = tuple(
        Gpu(f"{instance_id}-{index}", instance_id, model, index, "idle", "", "", "")
        for index in range(candidate.gpus)
    )
    return replace(candidate.server, server_id=instance_id, gpus=gpus, instances=())


def _rooms(uses: Iterable[Use]) -> Counter[str]:
    """Return how many instances of each chute idle GPUs will run."""
    taken: Counter[str] = Counter()
    for use in uses:
        for launch in use.launches:
            taken[launch.offer.chute_id] += launch.instances
    return taken


def _choose(
    candidates: Iterable[_Candidate],
    markets: Sequence[Market],
    failures: Failures,
    taken: Counter[str],
) -> tuple[tuple[Switch, ...], tuple[Switch, ...]]:
    """Return the switches to make, and those that cost too much.

    It adds the launches of the former to ``taken``, the launches of each chute so far.
    """
    offers = _by_kind(markets, failures)
    proposed: list[Switch] = []
    too_dear: list[Switch] = []
    # The instance that is worth least chooses first, because it gains most by the best chute.
    for candidate in sorted(candidates, key=attrgetter("worth", "instance.instance_id")):
        kind = candidate.instance.model, candidate.server.tee
        found = _best(candidate, offers[kind], taken)
        if found is None:
            continue
        if not found.pays_within_a_day:
            too_dear.append(found)
            continue
        proposed.append(found)
        for launch in found.launches:
            taken[launch.offer.chute_id] += launch.instances
    proposed.sort(key=lambda one: one.first_day_gain - one.least_cost, reverse=True)
    return tuple(proposed), tuple(too_dear)


def _by_kind(
    markets: Iterable[Market], failures: Failures
) -> dict[tuple[str | None, bool | None], list[Offer]]:
    """Return the offers that something can be given up for, by model and whether they need TEE."""
    found: dict[tuple[str | None, bool | None], list[Offer]] = defaultdict(list)
    for market in markets:
        for offer in market.offers:
            if _is_safe(offer, failures):
                found[offer.model, offer.tee].append(offer)
    return found


def _is_safe(offer: Offer, failures: Failures) -> bool:
    """Return whether something that earns can be given up for an offer.

    It is known not to fail here, and no race: of a private chute with a bounty, the first instance
    of all miners that becomes active wins.
    """
    is_race = offer.private and offer.bounty_boost is not None
    return not offer.hanging and not is_race and failures.fails(offer.chute_id) is False


def _best(
    candidate: _Candidate, offers: Sequence[Offer], taken: Mapping[str, int]
) -> Switch | None:
    """Return the best that an instance's GPUs could run instead, None if it pays too little.

    The offers are those for its model and its server.
    """
    instance, server = candidate.instance, candidate.server
    if server.holds_slot or instance.model is None:
        return None
    wanted = _wanted(candidate, offers, taken)
    # The search takes time, and few instances are worth it.
    if _most_units(candidate, wanted) <= (1 + LEAST_GAIN) * candidate.kept_units:
        return None
    space = Space(instance.instance_id, instance.model, bool(server.tee), candidate.gpus)
    launched = best_placement([space], wanted).get(space, Counter())
    launches = tuple(Launch(offer, count) for offer, count in sorted_offers(launched))
    found = Switch(instance, launches, candidate.kept_units, candidate.cost)
    is_better = found.first_day_gain > LEAST_GAIN * candidate.kept_units
    return found if launches and is_better and found.later_gain >= 0 else None


def _most_units(candidate: _Candidate, offers: Iterable[Offer]) -> float:
    """Return what an instance's GPUs would earn in the first day if all of them took the best paid
    offer, which is at least what they can earn.
    """
    best = max((offer.first_day_units / offer.size for offer in offers), default=0.0)
    return candidate.gpus * best


def _wanted(
    candidate: _Candidate, offers: Iterable[Offer], taken: Mapping[str, int]
) -> list[Offer]:
    """Return the offers for the GPUs of an instance, with the room that is left for them."""
    later = (candidate.instance.later_units_per_second or 0.0) / candidate.gpus
    wanted = []
    for offer in offers:
        launched = taken.get(offer.chute_id, 0)
        has_room = offer.left > launched and offer.size <= candidate.gpus
        is_other = offer.chute_id != candidate.instance.chute_id
        # A bounty must not lead to a chute that pays less when it is over.
        if has_room and is_other and offer.later_units_per_second / offer.size >= later:
            # Copies of all offers would take most of the time.
            wanted.append(replace(offer, left=offer.left - launched) if launched else offer)
    return wanted


def _first_day_units(launches: Iterable[Launch]) -> float:
    return sum(launch.instances * launch.offer.first_day_units for launch in launches)


def _later_units(launches: Iterable[Launch]) -> float:
    return sum(launch.instances * launch.offer.later_units_per_second for launch in launches)

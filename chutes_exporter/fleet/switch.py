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

        Only what earns more in the first day is a switch, so the gain of that day is above 0.
        """
        if self.least_cost <= self.first_day_gain:
            return DAY * self.least_cost / self.first_day_gain
        left = self.least_cost - self.first_day_gain
        return DAY + left / self.later_gain if self.later_gain > 0 else None

    @property
    def pays_within_a_day(self) -> bool:
        """Whether the first day pays more than the cost."""
        # Sums are rounded. Without a margin, rounding would decide between two equal sums.
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
        proposed: Those to make, which earn over 10 % more, the largest gain of the first day first.
            Each room is given once, and after the idle GPUs have had theirs.
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
        worth: What a switch gives up per GPU: the compute units of the next day, and those that the
            deletion costs.
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
    """Return what to run instead of active instances, None while that is unknown.

    To delete an instance costs its part of the score, which the reports show. ``now`` is the Unix
    time.
    """
    if fleet.markets is None:
        return None
    # What will be launched on idle GPUs takes room of the chutes before the switches do.
    uses = find_uses(fleet.servers, markets_without(fleet.markets, failures))
    active = [instance for instance in fleet.instances if instance.state == "active"]
    scores = ledger.scores(active, now)
    return find_switches(answers, fleet, uses, failures, scores, now)


def find_switches(
    answers: FleetAnswers,
    fleet: Fleet,
    uses: Iterable[Use],
    failures: Failures,
    scores: Mapping[str, float | None],
    now: float,
) -> Switches | None:
    """Return what to run instead of active instances.

    None while it is unknown what can be launched, or what failed. Each instance is compared with
    what could be launched if its GPUs were idle.

    Args:
        answers: The answers that the fleet is joined from.
        fleet: The fleet.
        uses: What will be launched on idle GPUs, which takes room from the switches.
        failures: What failed on the miner's servers.
        scores: Compute units of active instances in the score of the past day, by id.
        now: The Unix time.
    """
    demand = find_demand(answers)
    if demand is None or fleet.markets is None or not failures.are_all_known:
        return None
    candidates: list[_Candidate] = []
    not_compared: list[NotCompared] = []
    for instance in fleet.instances:
        may_be_active = instance.state in ("active", None)
        if not may_be_active:
            continue
        candidate_or_reason = _candidate(instance, fleet, scores.get(instance.instance_id), now)
        if isinstance(candidate_or_reason, _Candidate):
            candidates.append(candidate_or_reason)
        else:
            not_compared.append(NotCompared(instance, candidate_or_reason))
    freed_servers = [_as_idle(candidate) for candidate in candidates]
    markets = find_markets(answers, demand, freed_servers, fleet.instances)
    proposed, too_dear = _choose(candidates, markets, failures, _launched_on_idle_gpus(uses))
    return Switches(proposed, too_dear, len(candidates), tuple(not_compared))


def _candidate(
    instance: Instance, fleet: Fleet, score: float | None, now: float
) -> _Candidate | str:
    """Return an instance that can be compared, or what is not known of it.

    ``score`` are its compute units in the score of the past day, None if they are unknown.
    """
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
    return _Candidate(
        instance=instance,
        server=server,
        gpus=instance.gpus,
        kept_units=kept,
        cost=cost,
        worth=(kept + _least_cost(cost)) / instance.gpus,
    )


def _kept_units(instance: Instance, now: float) -> float | None:
    """Return the compute units that an instance would earn in the next day, None if unknown.

    Its pay per second moves from the present to the later one. That begins 2 hours after the
    activation. A fleet does not have the time of the activation, so that of the creation is used.
    """
    present, later = instance.units_per_second, instance.later_units_per_second
    if present is None or later is None or instance.created_at is None:
        return None
    return later * DAY + (present - later) * fading_seconds(now - instance.created_at)


def _deletion_cost(instance: Instance, score: float | None, now: float) -> DeletionCost | None:
    """Return what the deletion of an instance costs, None if that is unknown.

    A private one loses its score at any age, so it has no time from which on it keeps it.
    """
    secured_at = instance.deadlines.get("secured")
    if secured_at is None and instance.private:
        # Any number will do, because the cost of a private one does not depend on it.
        secured_at = 0.0
    is_last_active = instance.is_last_active
    if instance.private is None or is_last_active is None or secured_at is None or score is None:
        return None
    return deletion_cost(
        private=instance.private,
        is_last_active=is_last_active,
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
    """Return for how many seconds an instance of an age would have to keep its present pay, before
    it gets the later one, to earn the same as it does while its pay fades.

    The pay stays for 2 hours. Then each run of the autoscaler takes away a part of the difference
    that is left: the square of a sixth of the hours since then. After 8 hours, nothing is left.
    """
    seconds = 0.0
    part_left = 1.0
    age_at_run = max(0.0, age)
    while age_at_run < 8 * HOUR:
        seconds += part_left * _RUN
        age_at_run += _RUN
        faded = max(0.0, age_at_run - 2 * HOUR) / (6 * HOUR)
        part_left *= max(0.0, 1 - faded**2)
    return seconds


def _as_idle(candidate: _Candidate) -> Server:
    """Return a server that has nothing but the GPUs of an instance, all idle.

    It has the id of the instance, because several instances of a server become several of these.
    """
    instance_id = candidate.instance.instance_id
    gpus = [
        Gpu(
            gpu_id=f"{instance_id}-{index}",
            server_id=instance_id,
            model=candidate.instance.model,
            index=index,
            state="idle",
            chute_id="",
            chute="",
            instance_id="",
        )
        for index in range(candidate.gpus)
    ]
    return replace(candidate.server, server_id=instance_id, gpus=tuple(gpus), instances=())


def _launched_on_idle_gpus(uses: Iterable[Use]) -> Counter[str]:
    """Return how many instances of each chute will be launched on idle GPUs, by chute id."""
    launched: Counter[str] = Counter()
    for use in uses:
        for launch in use.launches:
            launched[launch.offer.chute_id] += launch.instances
    return launched


def _choose(
    candidates: Iterable[_Candidate],
    markets: Sequence[Market],
    failures: Failures,
    launched_before: Mapping[str, int],
) -> tuple[tuple[Switch, ...], tuple[Switch, ...]]:
    """Return the switches to make, those that gain most after their cost first, and the switches
    that cost too much.

    ``launched_before`` is the number of instances of each chute that will be launched on idle GPUs.
    They take room of the chute before any switch.
    """
    launched = Counter(launched_before)
    offers_by_kind = _offers_by_kind(markets, failures)
    proposed: list[Switch] = []
    too_dear: list[Switch] = []
    # The instance that is worth least chooses first, because it gains most by the best chute.
    for candidate in sorted(candidates, key=attrgetter("worth", "instance.instance_id")):
        kind = candidate.instance.model, candidate.server.tee
        switch = _best_switch(candidate, offers_by_kind[kind], launched)
        if switch is None:
            continue
        if not switch.pays_within_a_day:
            too_dear.append(switch)
            continue
        proposed.append(switch)
        for launch in switch.launches:
            launched[launch.offer.chute_id] += launch.instances
    proposed.sort(key=lambda switch: switch.first_day_gain - switch.least_cost, reverse=True)
    return tuple(proposed), tuple(too_dear)


def _offers_by_kind(
    markets: Iterable[Market], failures: Failures
) -> defaultdict[tuple[str | None, bool | None], list[Offer]]:
    """Return the offers for which an instance that earns can be given up, by model and whether
    they need TEE.

    An unknown model or TEE can be looked up, too, and has no offers.
    """
    offers_by_kind: defaultdict[tuple[str | None, bool | None], list[Offer]] = defaultdict(list)
    for market in markets:
        for offer in market.offers:
            if _is_safe(offer, failures):
                offers_by_kind[offer.model, offer.tee].append(offer)
    return offers_by_kind


def _is_safe(offer: Offer, failures: Failures) -> bool:
    """Return whether an instance that earns can be given up for an offer.

    It must be known not to fail here, and be no race: of a private chute with a bounty, the first
    instance of all miners that becomes active wins.
    """
    is_race = offer.private and offer.bounty_boost is not None
    is_known_to_start = not offer.hanging and failures.fails(offer.chute_id) is False
    return is_known_to_start and not is_race


def _best_switch(
    candidate: _Candidate, offers: Sequence[Offer], launched: Mapping[str, int]
) -> Switch | None:
    """Return the best that an instance's GPUs could run instead, None if it pays too little.

    On a server that holds an upgrade slot, nothing can be launched. ``offers`` are those for its
    model and its server. ``launched`` is how many instances of each chute idle GPUs and earlier
    switches launch, which takes room of the chute.
    """
    instance, server = candidate.instance, candidate.server
    if server.holds_slot or instance.model is None:
        return None
    wanted = _wanted(candidate, offers, launched)
    # The search takes time, and few instances are worth it.
    if _most_units(candidate, wanted) <= (1 + LEAST_GAIN) * candidate.kept_units:
        return None
    # It is known of each candidate whether its server has TEE.
    space = Space(instance.instance_id, instance.model, bool(server.tee), candidate.gpus)
    counts = best_placement([space], wanted).get(space, Counter())
    launches = tuple(Launch(offer, count) for offer, count in sorted_offers(counts))
    switch = Switch(instance, launches, candidate.kept_units, candidate.cost)
    pays_more_at_first = switch.first_day_gain > LEAST_GAIN * candidate.kept_units
    # GPUs that the launches leave idle can make the later gain negative.
    pays_enough_later = switch.later_gain >= 0
    is_better = launches and pays_more_at_first and pays_enough_later
    return switch if is_better else None


def _most_units(candidate: _Candidate, offers: Iterable[Offer]) -> float:
    """Return the compute units that an instance's GPUs can earn at most in the first day, if all
    of them take the offer with the best pay of a GPU.
    """
    best_of_gpu = max((offer.first_day_units / offer.size for offer in offers), default=0.0)
    return candidate.gpus * best_of_gpu


def _wanted(
    candidate: _Candidate, offers: Iterable[Offer], launched: Mapping[str, int]
) -> list[Offer]:
    """Return the offers of other chutes that fit on the GPUs of an instance, with the room that is
    left for them.

    ``launched`` is how many instances of each chute idle GPUs and earlier switches launch, which
    takes room of the chute.
    """
    # What each candidate earns later is known.
    later_of_gpu = (candidate.instance.later_units_per_second or 0.0) / candidate.gpus
    wanted = []
    for offer in offers:
        taken_room = launched.get(offer.chute_id, 0)
        if offer.left <= taken_room or offer.size > candidate.gpus:
            continue
        runs_already = offer.chute_id == candidate.instance.chute_id
        if runs_already:
            continue
        # A bounty must not lead to a chute that pays less when it is over.
        if offer.later_units_per_second / offer.size < later_of_gpu:
            continue
        # Only an offer that changes is copied, because copies would take most of the time.
        if taken_room:
            wanted.append(replace(offer, left=offer.left - taken_room))
        else:
            wanted.append(offer)
    return wanted


def _first_day_units(launches: Iterable[Launch]) -> float:
    return sum(launch.instances * launch.offer.first_day_units for launch in launches)


def _later_units(launches: Iterable[Launch]) -> float:
    return sum(launch.instances * launch.offer.later_units_per_second for launch in launches)

"""What a miner can launch now on its idle GPUs, and what that pays."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chutes_exporter.fleet.answers import are_complete, by_field
from chutes_exporter.rules.launch import (
    LaunchServer,
    demand_for,
    gpus_of_instance,
    launch_refusal,
    runs_on,
)
from chutes_exporter.rules.money import (
    first_day_units,
    first_units_per_second,
    later_units_per_second,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.instances import Instance
    from chutes_exporter.fleet.servers import Server
    from chutes_exporter.rules.launch import Demand, LaunchRefusal

_MOST_INSTANCES: Final = 1e6
"""More instances than a miner has. What they pay together must be finite."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A chute that the service lets the miner launch now on a GPU model.

    Attributes:
        demand: The chute, of which everything is known that decides a launch and its pay.
        size: GPUs of an instance.
        room_after_starting: Instances that may still become active, less the launches of all miners
            that are under way and would take the room.
        first_day_units: Compute units of an instance in its first day.
        later_units_per_second: What it earns for certain from 8 hours after its activation on.
        hanging: Instances of it that have been starting on the miner's servers for over an hour.
    """

    model: str
    demand: Demand
    size: int
    room_after_starting: int
    first_day_units: float
    later_units_per_second: float
    hanging: int

    @property
    def chute_id(self) -> str:
        """The id of the chute."""
        return self.demand.chute.chute_id

    @property
    def chute(self) -> str | None:
        """The name of the chute."""
        return self.demand.chute.name

    @property
    def is_avoided(self) -> bool:
        """Whether another instance may fail: no room is left, or one hangs already."""
        return not self.room_after_starting or self.hanging > 0

    @property
    def rank(self) -> tuple[float, str]:
        """What sorts offers: by the first day's pay of a GPU, the best one first."""
        return -self.first_day_units / self.size, self.chute_id


@dataclass(frozen=True, slots=True)
class Market:
    """What a miner can launch on the idle GPUs of a model.

    Attributes:
        offers: The best paid in the first day first. Those without room left come last, and so do
            those that hang on the miner's servers.
        refused: The number of other chutes that run on the model, by reason.
    """

    model: str
    offers: tuple[Offer, ...]
    refused: Mapping[LaunchRefusal, int]


def find_demand(answers: FleetAnswers) -> dict[str | None, Demand] | None:
    """Return all chutes with the instances of all miners, by the id of the chute.

    None while an answer is not complete.
    """
    if not are_complete(
        answers.chutes,
        answers.active_instances,
        answers.held_gpus,
        answers.utilization,
        answers.bounties,
    ):
        return None
    utilization_by_chute = {record.chute_id: record for record in answers.utilization.value}
    bounties_by_chute = {bounty.chute_id: bounty for bounty in answers.bounties.value}
    gpus_by_chute = by_field(answers.held_gpus.value, "chute_id")
    return {
        chute.chute_id: demand_for(
            chute,
            utilization_by_chute.get(chute.chute_id),
            answers.active_by_chute[chute.chute_id],
            gpus_by_chute[chute.chute_id],
            # Targets expire, and their age is measured by the service's clock.
            answers.utilization.received_at,
            bounties_by_chute.get(chute.chute_id),
        )
        for chute in answers.chutes_by_id.values()
    }


def find_markets(
    answers: FleetAnswers,
    servers: Sequence[Server],
    instances: Iterable[Instance],
) -> tuple[Market, ...] | None:
    """Return what the miner can launch on each model of which it has an idle GPU.

    Without all answers, a launch could be offered that the service refuses, so it is unknown.
    """
    is_known = are_complete(
        answers.servers,
        answers.nodes,
        answers.inventory,
        answers.instances,
        answers.maintenance,
        answers.metagraph,
        answers.supported_gpus,
    )
    if answers.demand is None or not is_known:
        return None
    now = answers.instances.received_at
    # Instances that have been starting for over an hour, or may have been, by chute.
    hanging = Counter(
        instance.chute_id
        for instance in instances
        if instance.state == "starting" and instance.is_slow(now) is not False
    )
    # In a set, servers that are alike are asked about once.
    servers_by_model: dict[str, set[LaunchServer]] = defaultdict(set)
    for server in servers:
        for model, free in server.known_idle_gpus.items():
            servers_by_model[model].add(LaunchServer(server.tee, server.holds_slot, free))
    return tuple(
        _market(model, servers_by_model[model], answers, hanging)
        for model in sorted(servers_by_model)
    )


def _market(
    model: str,
    servers: Iterable[LaunchServer],
    answers: FleetAnswers,
    hanging: Mapping[str | None, int],
) -> Market:
    """Return what the miner can launch on the idle GPUs of a model, which are on these servers."""
    refused: Counter[LaunchRefusal] = Counter()
    offers = []
    for demand in (answers.demand or {}).values():
        runs = runs_on(demand.chute, model)
        if runs is False:
            continue
        found = _offer_or_refusal(demand, model, servers, answers, hanging)
        if isinstance(found, Offer):
            offers.append(found)
        # A chute that may run on the model does not matter if it is refused anyway.
        elif runs or found == "unknown":
            refused[found] += 1
    offers.sort(key=lambda offer: (offer.is_avoided, offer.rank))
    return Market(model, tuple(offers), refused)


def _offer_or_refusal(
    demand: Demand,
    model: str,
    servers: Iterable[LaunchServer],
    answers: FleetAnswers,
    hanging: Mapping[str | None, int],
) -> Offer | LaunchRefusal:
    """Return the offer of a chute, or why the miner cannot launch it, which may be unknown."""
    refusal = launch_refusal(answers.seat, demand, servers, runs_tee=answers.runs_tee)
    if refusal is not None:
        return refusal
    chute, size = demand.chute, gpus_of_instance(demand.chute)
    first = first_units_per_second(chute, model, answers.rates)
    later = later_units_per_second(chute, model, answers.rates)
    room = demand.room_after_starting
    if first is None or later is None or size is None or room is None:
        return "unknown"
    first_day = first_day_units(first, later)
    if not math.isfinite(_MOST_INSTANCES * first_day):
        # A sum of the pay would not be finite.
        return "unknown"
    return Offer(
        model=model,
        demand=demand,
        size=size,
        # It is below 0 if more instances start than there is room for.
        room_after_starting=max(0, int(room)),
        first_day_units=first_day,
        later_units_per_second=later,
        hanging=hanging.get(chute.chute_id, 0),
    )

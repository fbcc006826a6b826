"""What a miner can launch now on its idle GPUs, and what that pays."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from chutes_exporter.fleet.answers import are_complete
from chutes_exporter.fleet.model import Market, Offer
from chutes_exporter.rules.launch import (
    LaunchServer,
    demand_for,
    gpus_of_instance,
    launch_refusal,
    runs_on,
)
from chutes_exporter.rules.money import (
    bounty_boost,
    bounty_expires_at,
    first_day_units,
    first_units_per_second,
    later_units_per_second,
    urgency_boost,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.api.records import HeldGpu
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.model import Instance, Server
    from chutes_exporter.rules.launch import Demand, LaunchRefusal

_MOST_INSTANCES: Final = 1e6
"""More instances than a miner has. What they pay together must be finite."""


def find_demand(answers: FleetAnswers) -> list[Demand] | None:
    """Return all chutes with the instances of all miners, None while an answer is not complete."""
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
    gpus_by_chute: dict[str, list[HeldGpu]] = defaultdict(list)
    for gpu in answers.held_gpus.value:
        gpus_by_chute[gpu.chute_id].append(gpu)
    return [
        demand_for(
            chute,
            utilization_by_chute.get(chute.chute_id),
            answers.active_by_chute[chute.chute_id],
            gpus_by_chute[chute.chute_id],
            # Targets expire, and their age is measured by the service's clock.
            answers.utilization.received_at,
            bounties_by_chute.get(chute.chute_id),
        )
        for chute in answers.chutes_by_id.values()
    ]


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
    # Instances that have been starting for over an hour, or may have been, by chute.
    hanging = Counter(
        instance.chute_id
        for instance in instances
        if instance.state == "starting" and instance.is_slow(answers.at) is not False
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
    for demand in answers.demand or ():
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
    room, room_after_starting = demand.room_now, demand.room_after_starting
    if first is None or later is None or size is None:
        return "unknown"
    first_day = first_day_units(first, later)
    # A sum of the pay must be finite.
    is_finite = math.isfinite(_MOST_INSTANCES * first_day)
    if room is None or room_after_starting is None or not is_finite:
        return "unknown"
    # The service accepts the launch, so TEE is known. The later pay is known, so the kind and the
    # factors of the chute are.
    return Offer(
        model=model,
        tee=bool(chute.tee),
        chute_id=chute.chute_id,
        chute=chute.name,
        private=not chute.public,
        size=size,
        room_now=room,
        # It is below 0 if more instances start than there is room for.
        room_after_starting=max(0, int(room_after_starting)),
        starting=demand.starting,
        first_day_units=first_day,
        later_units_per_second=later,
        urgency_boost=urgency_boost(chute),
        hanging=hanging.get(chute.chute_id, 0),
        bounty_boost=bounty_boost(demand.bounty),
        bounty_expires_at=bounty_expires_at(demand.bounty),
    )

"""What a miner can launch now on its idle GPUs, and what that pays."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chutes_exporter.duration import HOUR
from chutes_exporter.fleet.answers import are_whole
from chutes_exporter.fleet.model import Launch, Market, Offer, Use, first_day
from chutes_exporter.fleet.placement import Space, best_placement
from chutes_exporter.rules.bounties import bounty_boost, bounty_expires_at
from chutes_exporter.rules.demand import recent_ratio
from chutes_exporter.rules.gpus import later_multiplier, units_per_gpu_second
from chutes_exporter.rules.launch import (
    ChuteInstances,
    LaunchServer,
    chute_instances,
    launch_refusal,
    launch_room,
    room_left,
    service_time,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.api.records import Chute, ChuteUtilization, HeldGpu, MetagraphNode
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.model import Instance, Server
    from chutes_exporter.rules.launch import LaunchRefusal

_MOST_INSTANCES: Final = 1e6
"""More instances than a miner has. What they pay together must be finite."""
HANGS_AFTER: Final = HOUR
"""Seconds after which a start is not usual any more. Most take 10 to 35 minutes."""


# Not frozen, because it takes less time to make thousands.
@dataclass(slots=True)
class Demand:
    """A chute with the instances of all miners."""

    chute: Chute
    instances: ChuteInstances
    utilization: ChuteUtilization | None

    @property
    def room(self) -> float | None:
        """The room for more instances of it."""
        return launch_room(self.chute, self.instances)


def find_demand(answers: FleetAnswers) -> list[Demand] | None:
    """Return all chutes with their instances, None while an answer is not whole."""
    chutes, active, held = answers.chutes, answers.active_instances, answers.held_gpus
    utilization, bounties = answers.utilization, answers.bounties
    if chutes is None or active is None or held is None or utilization is None or bounties is None:
        return None
    if not are_whole(chutes, active, held, utilization, bounties):
        return None
    now = service_time(list(utilization.records), list(bounties.records))
    logged = {record.chute_id: record for record in utilization.records}
    with_bounty = {bounty.chute_id for bounty in bounties.records}
    held_by_chute: dict[str, list[HeldGpu]] = defaultdict(list)
    for gpu in held.records:
        held_by_chute[gpu.chute_id].append(gpu)
    found = []
    for key, chute in answers.chutes_by_id.items():
        instances = chute_instances(
            chute,
            logged.get(key),
            answers.active_by_chute.get(key, set()),
            held_by_chute.get(key, ()),
            now,
            bounty=key in with_bounty,
        )
        found.append(Demand(chute, instances, logged.get(key)))
    return found


class _Miner:
    """What the service looks at when a miner launches an instance."""

    def __init__(self, answers: FleetAnswers, instances: Iterable[Instance]) -> None:
        self.answers = answers
        self.seat = _seat(answers)
        self.hanging = Counter(
            one.chute_id
            for one in instances
            if one.state == "starting"
            and (one.created_at is None or answers.at - one.created_at > HANGS_AFTER)
        )
        own = {
            one.chute_id
            for one in (answers.active_instances.records if answers.active_instances else ())
            if one.miner_hotkey == answers.hotkey
        }
        self.runs_tee = any(
            chute.tee and chute.chute_id in own for chute in answers.chutes_by_id.values()
        )
        self.bounties = {
            bounty.chute_id: bounty
            for bounty in (answers.bounties.records if answers.bounties else ())
        }


def _seat(answers: FleetAnswers) -> MetagraphNode | None:
    seats = answers.metagraph.records if answers.metagraph else ()
    return next((seat for seat in seats if seat.hotkey == answers.hotkey), None)


def find_markets(
    answers: FleetAnswers,
    demand: Sequence[Demand],
    servers: Sequence[Server],
    instances: Sequence[Instance],
) -> tuple[Market, ...]:
    """Return what the miner can launch on each model of which it has an idle GPU."""
    miner = _Miner(answers, instances)
    places: dict[str, set[LaunchServer]] = defaultdict(set)
    for server in servers:
        for model, free in idle_gpus(server).items():
            places[model].add(LaunchServer(server.tee, server.holds_slot, free))
    return tuple(_market(model, places[model], demand, miner) for model in sorted(places))


def _market(
    model: str, places: Iterable[LaunchServer], demand: Sequence[Demand], miner: _Miner
) -> Market:
    refused: Counter[LaunchRefusal] = Counter()
    offers = []
    for one in demand:
        selector = one.chute.node_selector
        supported = None if selector is None else selector.supported_gpus
        if supported is not None and model not in supported:
            continue
        found = _offer(one, model, places, miner)
        if supported is None:
            # It may run on the model. If it is refused anyway, that does not matter.
            if isinstance(found, Offer) or found == "unknown":
                refused["unknown"] += 1
        elif isinstance(found, Offer):
            offers.append(found)
        else:
            refused[found] += 1
    offers.sort(key=_rank)
    return Market(model, tuple(offers), refused)


def _rank(offer: Offer) -> tuple[bool, float, str]:
    """Return what sorts offers: by the first day's pay of a GPU, those to avoid last."""
    avoid = not offer.left or offer.hanging > 0
    return avoid, -offer.first_day_units / offer.size, offer.chute_id


def _offer(
    demand: Demand, model: str, places: Iterable[LaunchServer], miner: _Miner
) -> Offer | LaunchRefusal:
    """Return the offer of a chute for a model, or why no server of the miner can launch it."""
    chute = demand.chute
    refusal = launch_refusal(miner.seat, chute, demand.instances, places, runs_tee=miner.runs_tee)
    if refusal is not None:
        return refusal
    size = chute.node_selector.gpu_count if chute.node_selector else None
    first = units_per_gpu_second(chute, model, miner.answers.rates)
    later = later_multiplier(chute, model, miner.answers.rates)
    left = room_left(chute, demand.instances)
    if size is None or first is None or later is None:
        return "unknown"
    if left is None or chute.tee is None or chute.public is None or demand.room is None:
        return "unknown"
    if not math.isfinite(_MOST_INSTANCES * first_day(first * size, later)):
        return "unknown"
    bounty = miner.bounties.get(chute.chute_id)
    logged = demand.utilization
    return Offer(
        model=model,
        tee=chute.tee,
        chute_id=chute.chute_id,
        chute=chute.name,
        private=not chute.public,
        size=size,
        room=demand.room,
        left=max(0, int(left)),
        starting=demand.instances.starting,
        units_per_second=first * size,
        later_units_per_second=later,
        hanging=miner.hanging[chute.chute_id],
        bounty_boost=None if bounty is None else bounty_boost(bounty),
        bounty_expires_at=None if bounty is None else bounty_expires_at(bounty),
        load=None if logged is None else recent_ratio(logged, logged.utilization_15m),
        rate_limited=None if logged is None else recent_ratio(logged, logged.rate_limit_ratio_15m),
    )


def idle_gpus(server: Server) -> Counter[str]:
    """Count the idle GPUs of a server by model."""
    return Counter(gpu.model for gpu in server.gpus if gpu.state == "idle" and gpu.model)


def find_uses(servers: Iterable[Server], markets: Iterable[Market]) -> tuple[Use, ...]:
    """Return the best use of the idle GPUs of each server that can be used, by model."""
    spaces = [
        Space(server.server_id, model, server.tee, free)
        for server in servers
        if server.holds_slot is False and server.tee is not None
        for model, free in sorted(idle_gpus(server).items())
    ]
    by_model = {market.model: market for market in markets}
    offers = [offer for market in by_model.values() for offer in market.offers]
    placement = best_placement(spaces, [offer for offer in offers if not offer.hanging])
    uses = []
    for space in spaces:
        launched = placement.get(space, Counter())
        uses.append(
            Use(
                server_id=space.server_id,
                model=space.model,
                free=space.free,
                launches=tuple(Launch(offer, count) for offer, count in sorted_offers(launched)),
                is_least="unknown" in by_model[space.model].refused,
            )
        )
    return tuple(uses)


def sorted_offers(launched: Counter[Offer]) -> list[tuple[Offer, int]]:
    """Return offers with their numbers, the best paid first."""
    return sorted(launched.items(), key=lambda item: _rank(item[0]))

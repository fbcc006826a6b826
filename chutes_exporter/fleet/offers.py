"""What a miner can launch now on its idle GPUs, and what that pays."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chutes_exporter.duration import HOUR
from chutes_exporter.fleet.answers import are_whole, records_of
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
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.api.records import Chute, ChuteUtilization, HeldGpu
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

    @property
    def load(self) -> float | None:
        """Its utilization in 15 minutes, if it was logged lately."""
        logged = self.utilization
        return None if logged is None else recent_ratio(logged, logged.utilization_15m)

    @property
    def rate_limited(self) -> float | None:
        """Its share of refused requests in 15 minutes, likewise."""
        logged = self.utilization
        return None if logged is None else recent_ratio(logged, logged.rate_limit_ratio_15m)


def find_demand(answers: FleetAnswers) -> list[Demand] | None:
    """Return all chutes with their instances, None while an answer is not whole."""
    if not are_whole(
        answers.chutes,
        answers.active_instances,
        answers.held_gpus,
        answers.utilization,
        answers.bounties,
    ):
        return None
    utilization = list(records_of(answers.utilization))
    bounties = list(records_of(answers.bounties))
    now = service_time(utilization, bounties)
    logged = {record.chute_id: record for record in utilization}
    with_bounty = {bounty.chute_id for bounty in bounties}
    held_by_chute: dict[str, list[HeldGpu]] = defaultdict(list)
    for gpu in records_of(answers.held_gpus):
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
        self.hanging = Counter(one.chute_id for one in instances if _hangs(one, answers.at))
        own = {
            one.chute_id
            for one in records_of(answers.active_instances)
            if one.miner_hotkey == answers.hotkey
        }
        self.runs_tee = any(
            chute.tee and chute.chute_id in own for chute in answers.chutes_by_id.values()
        )
        self.bounties = {bounty.chute_id: bounty for bounty in records_of(answers.bounties)}


def _hangs(instance: Instance, at: float) -> bool:
    """Return whether an instance may have been starting for longer than is usual."""
    if instance.state != "starting":
        return False
    return instance.created_at is None or at - instance.created_at > HANGS_AFTER


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
        is_supported = _is_supported(model, one.chute)
        if is_supported is False:
            continue
        found = _offer(one, model, places, miner)
        if is_supported is None:
            # It may run on the model. If it is refused anyway, that does not matter.
            if isinstance(found, Offer) or found == "unknown":
                refused["unknown"] += 1
        elif isinstance(found, Offer):
            offers.append(found)
        else:
            refused[found] += 1
    offers.sort(key=_rank)
    return Market(model, tuple(offers), refused)


def _is_supported(model: str, chute: Chute) -> bool | None:
    """Return whether a chute runs on a GPU model, None if that is unknown."""
    selector = chute.node_selector
    if selector is None or selector.supported_gpus is None:
        return None
    return model in selector.supported_gpus


def _rank(offer: Offer) -> tuple[bool, float, str]:
    """Return what sorts offers: by the first day's pay of a GPU, those to avoid last."""
    avoid = not offer.left or offer.hanging > 0
    return avoid, -offer.first_day_units / offer.size, offer.chute_id


def _offer(
    demand: Demand, model: str, places: Iterable[LaunchServer], miner: _Miner
) -> Offer | LaunchRefusal:
    """Return the offer of a chute for a model, or why no server of the miner can launch it."""
    chute = demand.chute
    refusal = launch_refusal(
        miner.answers.seat, chute, demand.instances, places, runs_tee=miner.runs_tee
    )
    if refusal is not None:
        return refusal
    pay = _pay(chute, model, miner.answers.rates)
    left = room_left(chute, demand.instances)
    if (
        pay is None
        or left is None
        or demand.room is None
        or chute.tee is None
        or chute.public is None
    ):
        return "unknown"
    boost = expires_at = None
    bounty = miner.bounties.get(chute.chute_id)
    if bounty is not None:
        boost, expires_at = bounty_boost(bounty), bounty_expires_at(bounty)
    return Offer(
        model=model,
        tee=chute.tee,
        chute_id=chute.chute_id,
        chute=chute.name,
        private=not chute.public,
        size=pay.size,
        room=demand.room,
        left=max(0, int(left)),
        starting=demand.instances.starting,
        units_per_second=pay.units_per_second,
        later_units_per_second=pay.later_units_per_second,
        hanging=miner.hanging[chute.chute_id],
        bounty_boost=boost,
        bounty_expires_at=expires_at,
        load=demand.load,
        rate_limited=demand.rate_limited,
    )


@dataclass(frozen=True)
class _Pay:
    """What an instance of a chute earns on a model, and how many GPUs it takes."""

    size: int
    units_per_second: float
    later_units_per_second: float


def _pay(chute: Chute, model: str, rates: Mapping[str, float]) -> _Pay | None:
    """Return what an instance earns, None if that is unknown, or too much for a sum."""
    size = chute.node_selector.gpu_count if chute.node_selector else None
    first = units_per_gpu_second(chute, model, rates)
    later = later_multiplier(chute, model, rates)
    if size is None or first is None or later is None:
        return None
    if not math.isfinite(_MOST_INSTANCES * first_day(first * size, later)):
        return None
    return _Pay(size, first * size, later)


def idle_gpus(server: Server) -> Counter[str]:
    """Count the idle GPUs of a server by model."""
    return Counter(gpu.model for gpu in server.gpus if gpu.state == "idle" and gpu.model)


def find_uses(servers: Iterable[Server], markets: Iterable[Market]) -> tuple[Use, ...]:
    """Return the best use of the idle GPUs of each server that can be used, by model."""
    spaces = _spaces(servers)
    by_model = {market.model: market for market in markets}
    offers: list[Offer] = []
    for market in by_model.values():
        offers += (offer for offer in market.offers if not offer.hanging)
    placement = best_placement(spaces, offers)
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


def _spaces(servers: Iterable[Server]) -> list[Space]:
    """Return the idle GPUs of each server that can be used, by model."""
    found = []
    for server in servers:
        if server.holds_slot is False and server.tee is not None:
            for model, free in sorted(idle_gpus(server).items()):
                found.append(Space(server.server_id, model, server.tee, free))
    return found


def sorted_offers(launched: Counter[Offer]) -> list[tuple[Offer, int]]:
    """Return offers with their numbers, the best paid first."""
    return sorted(launched.items(), key=lambda item: _rank(item[0]))

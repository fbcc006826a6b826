"""What a miner can launch now on its idle GPUs, and what that pays."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chutes_exporter.duration import HOUR
from chutes_exporter.fleet.answers import are_complete, records_of
from chutes_exporter.fleet.model import Launch, Market, Offer, ServerPlan
from chutes_exporter.fleet.placement import Space, best_placement
from chutes_exporter.rules.demand import recent_ratio
from chutes_exporter.rules.launch import (
    ChuteInstances,
    LaunchServer,
    chute_instances,
    launch_refusal,
    room_after_starting,
    room_now,
    service_time,
)
from chutes_exporter.rules.money import (
    bounty_boost,
    bounty_expires_at,
    first_day_units,
    first_multiplier,
    later_multiplier,
    urgency_boost,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from chutes_exporter.api.records import Chute, ChuteUtilization, HeldGpu
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.model import Instance, LeftOut, Server, Window
    from chutes_exporter.rules.launch import LaunchRefusal

UPGRADE_DUE: Final = 12 * HOUR
"""Seconds before the end of a window in which nothing is launched on a server that waits for its
upgrade. One upgrade takes up to 4 hours, and a miner has few slots."""
_MOST_INSTANCES: Final = 1e6
"""More instances than a miner has. What they pay together must be finite."""


# Not frozen, because it takes less time to make thousands.
@dataclass(slots=True)
class Demand:
    """A chute with the instances of all miners."""

    chute: Chute
    instances: ChuteInstances
    utilization: ChuteUtilization | None

    @property
    def room_now(self) -> float | None:
        """The room for more instances of it."""
        return room_now(self.chute, self.instances)

    @property
    def load(self) -> float | None:
        """Its utilization in 15 minutes, None if that is unknown."""
        logged = self.utilization
        return None if logged is None else recent_ratio(logged, logged.utilization_15m)

    @property
    def rate_limited(self) -> float | None:
        """Its share of refused requests in 15 minutes, None if that is unknown."""
        logged = self.utilization
        return None if logged is None else recent_ratio(logged, logged.rate_limit_ratio_15m)


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
    utilization = list(records_of(answers.utilization))
    bounties = list(records_of(answers.bounties))
    # Targets expire, and their age is measured by the service's clock.
    now = service_time(utilization, bounties)
    utilization_by_chute = {record.chute_id: record for record in utilization}
    chutes_with_bounty = {bounty.chute_id for bounty in bounties}
    gpus_by_chute: dict[str, list[HeldGpu]] = defaultdict(list)
    for gpu in records_of(answers.held_gpus):
        gpus_by_chute[gpu.chute_id].append(gpu)
    demand = []
    for chute_id, chute in answers.chutes_by_id.items():
        utilization_of_chute = utilization_by_chute.get(chute_id)
        instances = chute_instances(
            chute,
            utilization_of_chute,
            answers.active_by_chute.get(chute_id, set()),
            gpus_by_chute.get(chute_id, ()),
            now,
            bounty=chute_id in chutes_with_bounty,
        )
        demand.append(Demand(chute, instances, utilization_of_chute))
    return demand


class _Miner:
    """What decides about a miner's launches, and about their order.

    Attributes:
        hanging: The number of instances that may have been starting on the miner's servers for over
            an hour, by chute.
        runs_tee: Whether an instance of a TEE chute is active on them, as the service asks before
            the launch of a private chute without TEE.
        bounties: The open bounties, by chute.
    """

    def __init__(self, answers: FleetAnswers, instances: Iterable[Instance]) -> None:
        self.answers = answers
        # One whose age is unknown counts, too.
        self.hanging = Counter(
            instance.chute_id
            for instance in instances
            if instance.state == "starting" and instance.is_slow(answers.at) is not False
        )
        self.bounties = {bounty.chute_id: bounty for bounty in records_of(answers.bounties)}
        self.runs_tee = False
        for instance in records_of(answers.active_instances):
            chute = answers.chutes_by_id.get(instance.chute_id or "")
            if instance.miner_hotkey == answers.hotkey and chute is not None and chute.tee:
                self.runs_tee = True


def find_markets(
    answers: FleetAnswers,
    demand: Sequence[Demand],
    servers: Sequence[Server],
    instances: Sequence[Instance],
) -> tuple[Market, ...]:
    """Return what the miner can launch on each model of which it has an idle GPU."""
    miner = _Miner(answers, instances)
    # In a set, servers that are alike are asked about once.
    servers_by_model: dict[str, set[LaunchServer]] = defaultdict(set)
    for server in servers:
        for model, free in idle_by_model(server).items():
            servers_by_model[model].add(LaunchServer(server.tee, server.holds_slot, free))
    models = sorted(servers_by_model)
    return tuple(_market(model, servers_by_model[model], demand, miner) for model in models)


def _market(
    model: str, servers: Iterable[LaunchServer], demand: Sequence[Demand], miner: _Miner
) -> Market:
    """Return what the miner can launch on the idle GPUs of a model, which are on these servers."""
    refused: Counter[LaunchRefusal] = Counter()
    offers = []
    for chute_demand in demand:
        is_supported = _is_supported(model, chute_demand.chute)
        if is_supported is False:
            continue
        offer_or_refusal = _offer(chute_demand, model, servers, miner)
        if is_supported is None:
            # It may run on the model. If it is refused anyway, that does not matter.
            if isinstance(offer_or_refusal, Offer) or offer_or_refusal == "unknown":
                refused["unknown"] += 1
        elif isinstance(offer_or_refusal, Offer):
            offers.append(offer_or_refusal)
        else:
            refused[offer_or_refusal] += 1
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
    avoid = not offer.room_after_starting or offer.hanging > 0
    return avoid, -offer.first_day_units / offer.size, offer.chute_id


def _offer(
    demand: Demand, model: str, servers: Iterable[LaunchServer], miner: _Miner
) -> Offer | LaunchRefusal:
    """Return the offer of a chute for a model, or why no server of the miner can launch it.

    ``servers`` are those with an idle GPU of the model.
    """
    chute = demand.chute
    refusal = launch_refusal(
        miner.answers.seat, chute, demand.instances, servers, runs_tee=miner.runs_tee
    )
    if refusal is not None:
        return refusal
    size = chute.node_selector.gpu_count if chute.node_selector else None
    first = first_multiplier(chute, model, miner.answers.rates)
    later = later_multiplier(chute, model, miner.answers.rates)
    left = room_after_starting(chute, demand.instances)
    urgency = urgency_boost(chute)
    if (
        size is None
        or first is None
        or later is None
        or left is None
        or urgency is None
        or demand.room_now is None
        or chute.tee is None
        or chute.public is None
    ):
        # An offer needs all of these.
        return "unknown"
    first_day = first_day_units(first, later)
    if not math.isfinite(_MOST_INSTANCES * first_day):
        # A sum of the pay would not be finite.
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
        size=size,
        room_now=demand.room_now,
        # It is below 0 if more instances start than there is room for.
        room_after_starting=max(0, int(left)),
        starting=demand.instances.starting,
        first_day_units=first_day,
        later_units_per_second=later,
        urgency_boost=urgency,
        hanging=miner.hanging[chute.chute_id],
        bounty_boost=boost,
        bounty_expires_at=expires_at,
        load=demand.load,
        rate_limited=demand.rate_limited,
    )


def idle_by_model(server: Server) -> Counter[str]:
    """Count the idle GPUs of a server by model."""
    return Counter(gpu.model for gpu in server.gpus if gpu.state == "idle" and gpu.model)


def find_left_out(
    servers: Iterable[Server], window: Window | None, now: float
) -> dict[str, LeftOut]:
    """Return why nothing should be launched on servers at a Unix time, by the server's id.

    Servers that can be used are left out of the result.
    """
    reasons = {}
    for server in servers:
        if reason := _left_out(server, window, now):
            reasons[server.server_id] = reason
    return reasons


def _left_out(server: Server, window: Window | None, now: float) -> LeftOut | None:
    if server.holds_slot:
        return "upgrade_slot"
    is_due, starts_hang = _upgrade_is_due(server, window, now), _starts_hang(server, now)
    if is_due:
        return "upgrade_due"
    if starts_hang:
        return "starts_hang"
    # Each chute runs either with TEE or without.
    if None in (server.holds_slot, server.tee, is_due, starts_hang):
        return "use_not_known"
    return None


def _upgrade_is_due(server: Server, window: Window | None, now: float) -> bool | None:
    """Return whether a server waits for its upgrade in an open window that ends soon, and may come
    back from it. None is unknown.
    """
    waits = server.waits_for_upgrade
    if waits is False:
        return False
    if window is None:
        return None
    if window.is_open is False or server.measured == "not_measured":
        return False
    if window.ends_at is not None and window.ends_at - now >= UPGRADE_DUE:
        return False
    if None in (waits, window.is_open, window.ends_at, server.measured):
        return None
    return True


def _starts_hang(server: Server, now: float) -> bool | None:
    """Return whether an instance has been starting on a server for over an hour, not in vain, and
    no instance is active there. None is unknown.
    """
    if not any(gpu.state == "starting" for gpu in server.gpus):
        return False
    if any(instance.state == "active" for instance in server.instances):
        return False
    hang = [one.hangs(now) for one in server.instances if one.state == "starting"]
    if True in hang:
        return True
    # The instance that holds the GPU may be unknown.
    return None if None in hang or not hang else False


def plan_servers(
    servers: Iterable[Server],
    markets: Iterable[Market],
    left_out: Collection[str],
    *,
    avoided: Collection[str] = (),
) -> tuple[ServerPlan, ...]:
    """Return the best use of the idle GPUs of each server that can be used, one for each model.

    A chute with an instance that has been starting on the miner's servers for over an hour is not
    launched again. ``left_out`` are the ids of the servers that cannot be used, and ``avoided``
    those of chutes that are not launched.
    """
    spaces = []
    for server in servers:
        if server.server_id not in left_out:
            # Of a server that can be used, it is known whether it has TEE.
            for model, free in sorted(idle_by_model(server).items()):
                spaces.append(Space(server.server_id, model, bool(server.tee), free))
    offers: list[Offer] = []
    models_with_unknown = set()
    for market in markets:
        if "unknown" in market.refused:
            models_with_unknown.add(market.model)
        offers += (
            offer for offer in market.offers if not offer.hanging and offer.chute_id not in avoided
        )
    plans = []
    for space, counts in best_placement(spaces, offers).items():
        # The best paid first.
        launched = sorted(counts, key=_rank)
        plan = ServerPlan(
            server_id=space.server_id,
            model=space.model,
            free=space.free,
            launches=tuple(Launch(offer, counts[offer]) for offer in launched),
            may_be_more=space.model in models_with_unknown,
        )
        plans.append(plan)
    return tuple(plans)

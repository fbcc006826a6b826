"""What the signing miner can launch on its idle GPUs now, and what that pays."""

from __future__ import annotations

from typing import Final

from chutes_exporter.collectors.base import Answers, Collector, Miners, Part, Samples
from chutes_exporter.collectors.fleet import OF_INSTANCE, OF_SERVER, labels_of_instance
from chutes_exporter.duration import DAY
from chutes_exporter.feeds import definitions as f
from chutes_exporter.feeds.fleet import FLEET_FEEDS
from chutes_exporter.fleet.instances import INSTANCE_DECISIONS
from chutes_exporter.rules.launch import LAUNCH_REFUSALS
from chutes_exporter.rules.money import urgency_boost

# Any answer about a fleet may decide what can be launched, and what it pays.
_PART = Part(also=FLEET_FEEDS)
_metric = _PART.metric
_OF_OFFER: Final = ("hotkey", "gpu", "chute_id", "chute")
_OFFERED: Final = (
    "Only for chutes that the service lets the miner launch now and that one of its servers can "
    "hold."
)

SERVER_IDLE_UNITS = _metric(
    "chutes_server_idle_compute_units_per_second",
    "Compute units per second that the server's idle GPUs would earn, on average of the first "
    "day, in the plan of docs/advise.md. A lower bound if it is unknown whether a chute can be "
    "launched.",
    OF_SERVER,
)
FLEET_IDLE_UNITS = _metric(
    "chutes_fleet_idle_compute_units_per_second",
    "The sum of chutes_server_idle_compute_units_per_second over all servers with an idle GPU. "
    "Absent while it is unknown of one of them, or of every server of the miner.",
    ("hotkey",),
)
SERVER_LEFT_OUT = _metric(
    "chutes_server_launch_left_out",
    "1 for a server with idle GPUs on which the plan launches nothing, and why: upgrade_slot, "
    "upgrade_due, starts_hang, may_be_dead. docs/advise.md explains the reasons.",
    (*OF_SERVER, "reason"),
)
SERVER_LAUNCH = _metric(
    "chutes_server_launch_instances",
    "Instances of the chute in the best use of the server's idle GPUs of the model. Absent while "
    "it is unknown which chutes fail on the miner's servers, because an audit report is missing.",
    (*OF_SERVER, "gpu", "chute_id", "chute"),
)
SERVER_LAUNCH_UNITS = _metric(
    "chutes_server_launch_compute_units_per_second",
    "Compute units per second of these instances, by pay: first_day (the average of that day), "
    "later (from 8 hours after the activation on).",
    (*OF_SERVER, "gpu", "chute_id", "chute", "pay"),
)
FIRST_DAY_UNITS = _metric(
    "chutes_launch_first_day_units_per_gpu_second",
    "Compute units per second and GPU, on average of the first day, in an instance of the chute "
    "that the miner launches now. Only for chutes that it can launch now.",
    _OF_OFFER,
)
LATER_UNITS = _metric(
    "chutes_launch_later_units_per_gpu_second",
    "Compute units per second and GPU that this launch would earn for certain from 8 hours after "
    "the activation on, without the bounty and the urgency boost.",
    _OF_OFFER,
)
URGENCY = _metric(
    "chutes_launch_urgency_boost_ratio",
    "Factor of the urgency in the first pay of a launch of the chute, while the chute wants more "
    "instances. Absent for a chute without one.",
    _OF_OFFER,
)
GPUS = _metric(
    "chutes_launch_gpus", f"GPUs that an instance of the chute needs. {_OFFERED}", _OF_OFFER
)
ROOM_AFTER_STARTING = _metric(
    "chutes_launch_room_instances",
    "Launches of the chute that can still become active: its room, less the starting instances of"
    " all miners that would take it.",
    _OF_OFFER,
)
STARTING = _metric(
    "chutes_launch_starting_instances",
    f"Starting instances of the chute on all miners. {_OFFERED}",
    _OF_OFFER,
)
REFUSED = _metric(
    "chutes_launch_refused_chutes",
    "Chutes that run on the idle model, but that the miner cannot launch now, by the first reason"
    " that applies. docs/advise.md explains the reasons.",
    ("hotkey", "gpu", "reason"),
)
IN_VAIN = _metric(
    "chutes_instance_start_in_vain",
    "Whether the service would refuse the activation of the starting instance (1): its chute has "
    "as many active instances as it wants, or no target any more. Absent while it is unknown.",
    OF_INSTANCE,
)
DECISION = _metric(
    "chutes_instance_decision",
    "Whether this is what the miner has to decide about the instance (1), the first that applies:"
    " in_vain, slow (starting for more than an hour), disabled, none. Absent while it is unknown.",
    (*OF_INSTANCE, "decision"),
)


# A label that is unknown would make other series when it becomes known. So servers and chutes of
# unknown name are left out.


@_PART.function
def decisions(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add what is to be decided about instances."""
    fleet = answers.joined.fleet(miners.hotkey)
    # Without this answer, no state of an instance is known, and so no decision.
    now = answers.received_at(f.INSTANCES)
    for instance in fleet.instances:
        labels = labels_of_instance(fleet, instance)
        if labels is None:
            continue
        if instance.state == "starting":
            out.add(IN_VAIN, instance.is_in_vain, *labels)
        out.add_states(DECISION, instance.decision(now), INSTANCE_DECISIONS, *labels)


@_PART.function
def idle_servers(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add what the idle GPUs of each server would earn, or why nothing is launched on them."""
    fleet = answers.joined.fleet(miners.hotkey)
    if fleet.markets is None:
        # It is unknown what can be launched.
        return
    for server in fleet.servers:
        if server.name is None:
            continue
        labels = (fleet.hotkey, server.server_id, server.name)
        # A server without GPUs has no pay to tell.
        if server.gpus:
            out.add(SERVER_IDLE_UNITS, fleet.idle_units_per_second(server), *labels)
        reason = fleet.left_out.get(server.server_id)
        if server.count_in("idle") and reason not in (None, "use_not_known"):
            out.add(SERVER_LEFT_OUT, 1, *labels, reason)


@_PART.function
def plans(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add the launches that make the best use of the idle GPUs of each server, unless it is unknown
    which chutes fail there.
    """
    fleet = answers.joined.fleet(miners.hotkey)
    if not fleet.failures.are_all_known:
        return
    for plan in fleet.plans:
        server_name = fleet.servers_by_id[plan.server_id].name
        for launch in plan.launches:
            offer = launch.offer
            if server_name is None or offer.chute is None:
                continue
            server = (fleet.hotkey, plan.server_id, server_name, plan.model)
            labels = (*server, offer.chute_id, offer.chute)
            out.add(SERVER_LAUNCH, launch.instances, *labels)
            out.add(SERVER_LAUNCH_UNITS, launch.first_day_units / DAY, *labels, "first_day")
            out.add(SERVER_LAUNCH_UNITS, launch.later_units_per_second, *labels, "later")


@_PART.function
def markets(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add what all idle GPUs would earn, and for each of their models, what the miner can launch on
    them and how many chutes are refused.
    """
    fleet = answers.joined.fleet(miners.hotkey)
    if fleet.markets is not None:
        out.add(FLEET_IDLE_UNITS, fleet.idle_units_of_all, fleet.hotkey)
    for market in fleet.markets or ():
        for offer in market.offers:
            if offer.chute is None:
                continue
            labels = (fleet.hotkey, market.model, offer.chute_id, offer.chute)
            out.add(FIRST_DAY_UNITS, offer.first_day_units / DAY / offer.size, *labels)
            out.add(LATER_UNITS, offer.later_units_per_second / offer.size, *labels)
            boost = urgency_boost(offer.demand.chute)
            if boost != 1:
                out.add(URGENCY, boost, *labels)
            out.add(GPUS, offer.size, *labels)
            out.add(ROOM_AFTER_STARTING, offer.room_after_starting, *labels)
            out.add(STARTING, offer.demand.starting, *labels)
        for reason in LAUNCH_REFUSALS:
            out.add(REFUSED, market.refused.get(reason, 0), fleet.hotkey, market.model, reason)


COLLECTOR = Collector(
    "launch", "what the miner can launch on its idle GPUs now, and what that pays", (_PART,)
)

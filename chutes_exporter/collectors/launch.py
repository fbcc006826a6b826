"""Which chutes the signing miner can launch on its idle GPUs now, and what they pay."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from chutes_exporter.collectors.base import (
    Answers,
    Collector,
    Miners,
    Part,
    Samples,
    distinct,
    metric_of,
)
from chutes_exporter.feeds import table as f
from chutes_exporter.rules.gpus import units_per_gpu_second
from chutes_exporter.rules.launch import (
    LAUNCH_REFUSALS,
    LaunchRefusal,
    LaunchServer,
    chute_instances,
    launch_refusal,
    launch_room,
    service_time,
)
from chutes_exporter.rules.maintenance import holds_slot

if TYPE_CHECKING:
    from chutes_exporter.api.records import Chute, Server
    from chutes_exporter.rules.launch import ChuteInstances

_FEEDS = (
    *(f.CHUTES, f.UTILIZATION, f.BOUNTIES, f.ACTIVE_INSTANCES, f.METAGRAPH),
    *(f.SERVERS, f.INVENTORY, f.HELD_GPUS, f.MAINTENANCE, f.SUPPORTED_GPUS),
)

_metric = metric_of(*_FEEDS)
UNITS = _metric(
    "chutes_launch_units_per_gpu_second",
    "Compute units that an idle GPU of this model would earn per second in an instance of the "
    "chute that starts now. "
    "Only for chutes that the service lets the miner launch now and that one of its servers can "
    "hold. Absent if the "
    "pay on a more expensive GPU is unknown. Within 8 hours, the value falls by the share of the "
    "bounty, and that of a "
    "public instance to the value of the cheapest GPU that the chute allows.",
    ("hotkey", "gpu", "chute_id"),
)
ROOM = _metric(
    "chutes_launch_room_instances",
    "Instances of a chute of chutes_launch_units_per_gpu_second that may still become active.",
    ("hotkey", "gpu", "chute_id"),
)
REFUSED = _metric(
    "chutes_launch_refused_chutes",
    "Chutes that run on the idle model, but that the miner cannot launch now, by the first reason: "
    "not_registered, blacklisted, disabled (the chute is disabled), no_bounty (private, without "
    "an active instance and "
    "without a bounty), target_expired (private, and the service has no target any more, so that "
    "it would refuse the "
    "activation), no_room (as many active instances as the service wants), enough_starting "
    "(public TEE chutes), "
    "tee_mismatch (the servers with idle GPUs have no TEE and the chute needs it, or the other "
    "way round), "
    "in_maintenance (the servers with idle GPUs hold upgrade slots), too_many_gpus (no server has "
    "as many idle GPUs), "
    "unknown (an answer lacks what decides, or what determines the pay).",
    ("hotkey", "gpu", "reason"),
)


def _collect(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add the pay and room of each chute that the miner can launch on an idle model, and count the
    others by reason.
    """
    servers = distinct(answers[f.SERVERS], lambda server: server.server_id)
    held = {item.gpu_id for item in answers[f.INVENTORY]}
    idle = {server.server_id: _free_gpus(server, held) for server in servers}
    models = sorted({model for free in idle.values() for model in free})
    if not models:
        return
    chutes = chutes_with_instances(answers)
    seat = next((seat for seat in answers[f.METAGRAPH] if seat.hotkey == miners.hotkey), None)
    running = {
        one.chute_id for one in answers[f.ACTIVE_INSTANCES] if one.miner_hotkey == miners.hotkey
    }
    runs_tee = any(chute.tee and chute.chute_id in running for chute, _, _ in chutes)
    rates = {
        model.gpu: rate
        for model in answers[f.SUPPORTED_GPUS]
        if (rate := model.hourly_rate) is not None and rate > 0
    }
    slots = {one.server_id: holds_slot(one) for one in answers[f.MAINTENANCE].servers or ()}
    # A slot in either answer counts. The list of servers may not show the slots of pending servers.
    in_maintenance = {
        server.server_id: server.maintenance_pending
        or slots.get(server.server_id, server.maintenance_pending)
        for server in servers
    }
    for model in models:
        places = [
            LaunchServer(server.is_tee, in_maintenance[server.server_id], free)
            for server in servers
            if (free := idle[server.server_id][model])
        ]
        refused: Counter[LaunchRefusal | None] = Counter()
        for chute, instances, room in chutes:
            if chute.node_selector is None or model not in (
                chute.node_selector.supported_gpus or ()
            ):
                continue
            refusals = [
                launch_refusal(seat, chute, instances, place, runs_tee=runs_tee) for place in places
            ]
            if None not in refusals:
                # No server can hold the chute. The one that is refused by the last check is nearest
                # to it.
                refused[max(refusals, key=LAUNCH_REFUSALS.index)] += 1
            elif (units := units_per_gpu_second(chute, model, rates)) is None:
                refused["unknown"] += 1
            else:
                out.add(UNITS, units, miners.hotkey, model, chute.chute_id)
                out.add(ROOM, room, miners.hotkey, model, chute.chute_id)
        for reason in LAUNCH_REFUSALS:
            out.add(REFUSED, refused[reason], miners.hotkey, model, reason)


def _free_gpus(server: Server, held: set[str]) -> Counter[str]:
    """Count the verified GPUs of a server in no instance, by model."""
    return Counter(
        gpu.gpu_identifier
        for gpu in server.gpus or ()
        if gpu.gpu_identifier and gpu.verified_at and gpu.uuid not in held
    )


def chutes_with_instances(answers: Answers) -> list[tuple[Chute, ChuteInstances, float | None]]:
    """Return each chute with its instances, and with its room for more of them
    (:func:`launch_room`).
    """
    utilization = {record.chute_id: record for record in answers[f.UTILIZATION]}
    bounties = {bounty.chute_id for bounty in answers[f.BOUNTIES]}
    active: defaultdict[str | None, set[str]] = defaultdict(set)
    for instance in answers[f.ACTIVE_INSTANCES]:
        active[instance.chute_id].add(instance.instance_id)
    now = service_time(answers[f.UTILIZATION], answers[f.BOUNTIES])
    held = defaultdict(list)
    for gpu in answers[f.HELD_GPUS]:
        held[gpu.chute_id].append(gpu)
    found = []
    for chute in distinct(answers[f.CHUTES], lambda chute: chute.chute_id):
        key = chute.chute_id
        instances = chute_instances(
            chute, utilization.get(key), active[key], held[key], now, bounty=key in bounties
        )
        found.append((chute, instances, launch_room(chute, instances)))
    return found


LAUNCH = Part(_FEEDS, (UNITS, ROOM, REFUSED), _collect)

COLLECTOR = Collector(
    "launch",
    "the chutes that the miner can launch on its idle GPUs now, and what they pay",
    (LAUNCH,),
)

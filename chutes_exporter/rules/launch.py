"""Rules about launches: which chutes a miner can launch on a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec import UNSET

from chutes_exporter.rules.demand import starting_instances, target_instances
from chutes_exporter.rules.score import is_blacklisted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import Bounty, Chute, ChuteUtilization, HeldGpu, MetagraphNode

LaunchRefusal = Literal[
    # The miner may launch nothing.
    "not_registered",
    "blacklisted",
    "disabled",  # The chute is disabled.
    "no_bounty",  # The chute is private and has neither an active instance nor a bounty.
    # The chute is private, and its target is so old that an activation would be refused.
    "target_expired",
    "no_room",  # The chute has as many active instances as the service wants.
    "enough_starting",  # The public TEE chute has enough active and starting instances.
    "tee_mismatch",  # The chute needs TEE and the server has none, or the other way round.
    "in_maintenance",  # The server holds an upgrade slot.
    "too_many_gpus",  # An instance needs more GPUs of the model than are free on the server.
    "unknown",  # An answer lacks what decides.
]
"""Why a miner cannot launch a chute on a server."""
LAUNCH_REFUSALS: Final[tuple[LaunchRefusal, ...]] = get_args(LaunchRefusal)
_PRIVATE_FACTORS: Final = frozenset({"private", "private_tee", "integrated_subnet"})
_TARGET_LIFETIME: Final = 3700.0
"""Seconds after which the service forgets a target that the autoscaler does not renew."""


@dataclass(frozen=True, slots=True)
class LaunchServer:
    """A server that may hold the instance. An unknown value is None.

    ``in_maintenance`` means that it holds an upgrade slot. ``free_gpus`` are the GPUs of the wanted
    model that are verified and in no instance.
    """

    tee: bool | None
    in_maintenance: bool | None
    free_gpus: int


@dataclass(frozen=True, slots=True)
class ChuteInstances:
    """The instances of a chute on all miners. An unknown value is None.

    Those that start were never active. ``target`` is the number of active instances that the
    service wants. ``target_expired`` is whether it has no target any more, which matters only for
    private chutes.
    """

    active: float | None
    starting: float | None
    target: float | None
    target_expired: bool | None = False
    bounty: bool = False


def service_time(utilization: list[ChuteUtilization], bounties: list[Bounty]) -> float | None:
    """Return about when the service sent these answers, by its clock. None if they have no time.

    It is the latest time of a bounty's age or of a run of the autoscaler, which runs about every 2
    minutes.
    """
    logged = (record.timestamp for record in utilization)
    sent = (
        bounty.created_at + bounty.seconds_elapsed
        for bounty in bounties
        if bounty.created_at is not None and bounty.seconds_elapsed is not None
    )
    return max((time for time in (*logged, *sent) if time is not None), default=None)


def chute_instances(
    chute: Chute,
    utilization: ChuteUtilization | None,
    active: AbstractSet[str],
    held: Iterable[HeldGpu],
    now: float | None,
    *,
    bounty: bool = False,
) -> ChuteInstances:
    """Return the instances of a chute and its target.

    ``utilization`` is None if the autoscaler has no record of the chute. ``active`` are the ids of
    its active instances, and ``held`` the GPUs of all its instances. ``now`` is the service's time,
    None if it is unknown.
    """
    others = {gpu.instance_id: gpu.activated_at for gpu in held if gpu.instance_id not in active}
    starting: float | None = (
        None if UNSET in others.values() else sum(time is None for time in others.values())
    )
    if utilization is not None:
        # Those that are not active start or are disabled. The GPUs may be from an older answer and
        # show more.
        not_active = starting_instances(utilization)
        if not_active is not None and starting is not None:
            starting = min(starting, not_active)
        elif not_active is not None and not_active <= 0:
            starting = not_active
        target = target_instances(utilization)
        if target is None and None not in (utilization.scale_allowance, utilization.target_count):
            # The sent target is too high. The service measures a launch against at most the active
            # instances.
            target = utilization.active_instance_count
        logged_at = utilization.timestamp
        expired = None if logged_at is None or now is None else now - logged_at > _TARGET_LIFETIME
        return ChuteInstances(utilization.active_instance_count, starting, target, expired, bounty)
    # Without a target, the service takes the present number of instances of a public chute,
    # disabled ones included.
    target = 0 if follows_private_rules(chute) else len(active) + len(others)
    return ChuteInstances(len(active), starting, target, target_expired=True, bounty=bounty)


def follows_private_rules(chute: Chute) -> bool | None:
    """Return whether launches of a chute follow the rules of private chutes.

    Chutes of the user ``chutes`` and old private ones follow the rules of public chutes. Their
    factors tell.
    """
    factors = chute.compute_multiplier_factors
    return None if factors is None else not _PRIVATE_FACTORS.isdisjoint(factors)


def launch_refusal(
    seat: MetagraphNode | None,
    chute: Chute,
    instances: ChuteInstances,
    server: LaunchServer,
    *,
    runs_tee: bool,
) -> LaunchRefusal | None:
    """Return why a miner cannot launch an instance of a chute on a server now, or None if it can.

    This follows the service's answer to ``GET /instances/launch_config``, and the checks when the
    instance is claimed and becomes active. The first certain refusal is returned. Without one, an
    unknown check gives ``unknown``.

    ``seat`` is the miner's, and ``runs_tee`` whether it has an active instance of a TEE chute.
    """
    gpus = None if chute.node_selector is None else chute.node_selector.gpu_count
    room_reason, no_room = _refused_by_room(chute, instances)
    checks: dict[LaunchRefusal, bool | None] = {
        "not_registered": seat is None,
        "blacklisted": seat is not None and is_blacklisted(seat),
        "disabled": None if chute.disabled is UNSET else bool(chute.disabled),
        room_reason: no_room,
        "tee_mismatch": None if None in (chute.tee, server.tee) else chute.tee != server.tee,
        "in_maintenance": server.in_maintenance,
        "too_many_gpus": None if gpus is None else gpus > server.free_gpus,
        # Without TEE, the service looks at the miner's past too, which no endpoint shows.
        "unknown": None if follows_private_rules(chute) and not (chute.tee or runs_tee) else False,
    }
    for reason, refused in checks.items():
        if refused:
            return reason
    return "unknown" if None in checks.values() else None


def _refused_by_room(chute: Chute, instances: ChuteInstances) -> tuple[LaunchRefusal, bool | None]:
    """Return why the number of instances can refuse one more, and whether it does.

    None is unknown.
    """
    active, target = instances.active or 0, instances.target or 0
    room = launch_room(chute, instances)
    refused = None if room is None else room <= 0
    if not follows_private_rules(chute):
        return "no_room" if active >= target else "enough_starting", refused
    if not active:
        return "no_bounty", refused
    # With a target of 0, the service accepts the launch and refuses the activation.
    return "target_expired" if instances.target_expired else "no_room", refused


def launch_room(chute: Chute, instances: ChuteInstances) -> float | None:
    """Return how many more instances of a chute the service wants and lets start, 0 or less if
    none.

    Of a public chute with TEE, active and starting instances must be fewer than the target plus 1.
    The first instance of a private chute needs a bounty, whatever the target says, and others a
    target that has not expired.
    """
    active, starting, target = instances.active, instances.starting, instances.target
    private = follows_private_rules(chute)
    if private is None or active is None or target is None:
        return None
    if private and not active:
        return 1 if instances.bounty else 0
    if private and instances.target_expired is None and target > active:
        return None
    if private and instances.target_expired:
        return 0
    room = target - active
    if private or chute.tee is False or room <= 0:
        return room
    return None if chute.tee is None or starting is None else min(room, room + 1 - starting)


def room_left(chute: Chute, instances: ChuteInstances) -> float | None:
    """Return how many launches from now on can still become active.

    Public chutes with TEE are not checked again at the activation. In others, the instances that
    already start take the room, if they become active first.
    """
    room = launch_room(chute, instances)
    private = follows_private_rules(chute)
    if room is None or private is None or chute.tee is None:
        return None
    if not private and chute.tee:
        return room
    return None if instances.starting is None else room - instances.starting


def activation_is_refused(chute: Chute, instances: ChuteInstances) -> bool | None:
    """Return whether the service would refuse the activation of an instance that starts.

    It checks the room of private chutes, and of public ones without TEE, again. It then deletes
    nothing: the instance holds its GPUs until it is purged. None while that is unknown.
    """
    private = follows_private_rules(chute)
    active, target = instances.active, instances.target
    if private is None or chute.tee is None:
        return None
    if not private and chute.tee:
        return False
    if active is None or target is None:
        return None
    if private and not active and instances.bounty:
        return False
    if active >= target:
        return True
    return instances.target_expired if private else False

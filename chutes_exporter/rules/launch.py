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


# Not frozen, because it takes less time to make thousands.
@dataclass(slots=True)
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
    activations = [*others.values()]
    starting = None if UNSET in activations else activations.count(None)
    if utilization is not None:
        return ChuteInstances(
            active=utilization.active_instance_count,
            starting=_fewer_starting(starting, utilization),
            target=_target_at_launch(utilization),
            target_expired=_target_is_expired(utilization, now),
            bounty=bounty,
        )
    # Without a target, the service takes the present number of instances of a public chute,
    # disabled ones included.
    target = 0 if follows_private_rules(chute) else len(active) + len(others)
    return ChuteInstances(len(active), starting, target, target_expired=True, bounty=bounty)


def _fewer_starting(starting: float | None, utilization: ChuteUtilization) -> float | None:
    """Return how many instances start, by the GPUs that they hold and by the autoscaler.

    The autoscaler counts disabled ones, too. The GPUs may be from an older answer and show more.
    """
    not_active = starting_instances(utilization)
    if not_active is None:
        return starting
    if starting is not None:
        return min(starting, not_active)
    return not_active if not_active <= 0 else None


def _target_at_launch(utilization: ChuteUtilization) -> float | None:
    """Return the number of active instances that the service measures a launch against."""
    target = target_instances(utilization)
    is_sent = utilization.scale_allowance is not None and utilization.target_count is not None
    if target is None and is_sent:
        # The sent target is too high. The service takes at most the active instances.
        return utilization.active_instance_count
    return target


def _target_is_expired(utilization: ChuteUtilization, now: float | None) -> bool | None:
    if utilization.timestamp is None or now is None:
        return None
    return now - utilization.timestamp > _TARGET_LIFETIME


def follows_private_rules(chute: Chute) -> bool | None:
    """Return whether launches of a chute follow the rules of private chutes.

    Chutes of the user ``chutes`` and old private ones follow the rules of public chutes. Their
    factors tell.
    """
    factors = chute.compute_multiplier_factors
    if factors is None:
        return None
    return not _PRIVATE_FACTORS.isdisjoint(factors)


def launch_refusal(
    seat: MetagraphNode | None,
    chute: Chute,
    instances: ChuteInstances,
    servers: Iterable[LaunchServer],
    *,
    runs_tee: bool,
) -> LaunchRefusal | None:
    """Return why a miner can launch an instance of a chute on none of some servers now, or None if
    it can.

    This follows the service's answer to ``GET /instances/launch_config``, and the checks when the
    instance is claimed and becomes active. The first certain refusal is returned. Without one, an
    unknown check gives ``unknown``. Of several servers, the one that is refused by the last check
    is nearest to a launch.

    ``seat`` is the miner's, and ``runs_tee`` whether it has an active instance of a TEE chute.
    """
    on_any = _refusal_on_any_server(seat, chute, instances, runs_tee=runs_tee)
    if on_any not in (None, "unknown"):
        return on_any
    nearest: LaunchRefusal | None = None
    for server in servers:
        refusal = _refusal_on_server(chute, server) or on_any
        if refusal is None:
            return None
        nearest = max(nearest or refusal, refusal, key=LAUNCH_REFUSALS.index)
    return nearest


def _refusal_on_any_server(
    seat: MetagraphNode | None, chute: Chute, instances: ChuteInstances, *, runs_tee: bool
) -> LaunchRefusal | None:
    if seat is None:
        return "not_registered"
    blacklisted, disabled = is_blacklisted(seat), _is_disabled(chute)
    if blacklisted:
        return "blacklisted"
    if disabled:
        return "disabled"
    room = launch_room(chute, instances)
    if room is not None and room <= 0:
        return _refusal_without_room(chute, instances)
    # Without TEE, the service looks at the miner's past too, which no endpoint shows.
    past_decides = follows_private_rules(chute) and not (chute.tee or runs_tee)
    return "unknown" if past_decides or None in (blacklisted, disabled, room) else None


def _refusal_on_server(chute: Chute, server: LaunchServer) -> LaunchRefusal | None:
    tee_differs, needs_more = _tee_differs(chute, server), _needs_more_gpus(chute, server)
    if tee_differs:
        return "tee_mismatch"
    if server.in_maintenance:
        return "in_maintenance"
    if needs_more:
        return "too_many_gpus"
    return "unknown" if None in (tee_differs, server.in_maintenance, needs_more) else None


def _is_disabled(chute: Chute) -> bool | None:
    if chute.disabled is UNSET:
        return None
    return bool(chute.disabled)


def _tee_differs(chute: Chute, server: LaunchServer) -> bool | None:
    if chute.tee is None or server.tee is None:
        return None
    return chute.tee != server.tee


def _needs_more_gpus(chute: Chute, server: LaunchServer) -> bool | None:
    if chute.node_selector is None or chute.node_selector.gpu_count is None:
        return None
    return chute.node_selector.gpu_count > server.free_gpus


def _refusal_without_room(chute: Chute, instances: ChuteInstances) -> LaunchRefusal:
    """Return why the service would refuse an instance for which there is no room."""
    active, target = instances.active or 0, instances.target or 0
    if not follows_private_rules(chute):
        return "no_room" if active >= target else "enough_starting"
    if not active:
        return "no_bounty"
    # With a target of 0, the service accepts the launch and refuses the activation.
    return "target_expired" if instances.target_expired else "no_room"


def launch_room(chute: Chute, instances: ChuteInstances) -> float | None:
    """Return how many more instances of a chute the service wants and lets start, 0 or less if
    none.

    Of a public chute with TEE, active and starting instances must be fewer than the target plus 1.
    The first instance of a private chute needs a bounty, whatever the target says, and others a
    target that has not expired.
    """
    active, target = instances.active, instances.target
    private = follows_private_rules(chute)
    if private is None or active is None or target is None:
        return None
    if private and not active:
        return 1 if instances.bounty else 0
    room = target - active
    if private:
        return _private_room(room, target_expired=instances.target_expired)
    return _public_room(room, instances.starting, tee=chute.tee)


def _private_room(room: float, *, target_expired: bool | None) -> float | None:
    if target_expired:
        return 0
    if target_expired is None and room > 0:
        return None
    return room


def _public_room(room: float, starting: float | None, *, tee: bool | None) -> float | None:
    if tee is False or room <= 0:
        return room
    if tee is None or starting is None:
        return None
    return min(room, room + 1 - starting)


def room_left(chute: Chute, instances: ChuteInstances) -> float | None:
    """Return how many launches from now on can still become active.

    Public chutes with TEE are not checked again at the activation. In others, the instances that
    already start take the room, if they become active first.
    """
    room = launch_room(chute, instances)
    is_checked = _activation_is_checked(chute)
    if room is None or is_checked is None:
        return None
    if not is_checked:
        return room
    if instances.starting is None:
        return None
    return room - instances.starting


def activation_is_refused(chute: Chute, instances: ChuteInstances) -> bool | None:
    """Return whether the service would refuse the activation of an instance that starts.

    It checks the room of private chutes, and of public ones without TEE, again. It then deletes
    nothing: the instance holds its GPUs until it is purged. None while that is unknown.
    """
    is_checked = _activation_is_checked(chute)
    if not is_checked:
        return is_checked
    active, target = instances.active, instances.target
    if active is None or target is None:
        return None
    if not follows_private_rules(chute):
        return active >= target
    if not active and instances.bounty:
        return False
    return active >= target or instances.target_expired


def _activation_is_checked(chute: Chute) -> bool | None:
    """Return whether the service checks the room of a chute again when an instance is activated."""
    private = follows_private_rules(chute)
    if private is None or chute.tee is None:
        return None
    return private or not chute.tee

"""Rules about launches: which chutes a miner can launch on a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec import UNSET

from chutes_exporter.rules.demand import highest_target
from chutes_exporter.rules.score import is_blacklisted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import Bounty, Chute, ChuteUtilization, HeldGpu, MetagraphNode

    Check = tuple["LaunchRefusal", bool | None]

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
class Demand:
    """A chute with its instances on all miners. An unknown value is None.

    Attributes:
        starting: Instances that start. They were never active.
        target: The number of active instances that the service wants.
        target_expired: Whether it has no target any more, which matters only for private chutes.
        bounty: Its open bounty.
    """

    chute: Chute
    active: float | None
    starting: float | None
    target: float | None
    target_expired: bool | None = False
    bounty: Bounty | None = None

    @property
    def below_target(self) -> float | None:
        """How many active instances are missing to the target, None if it is unknown."""
        if self.active is None or self.target is None:
            return None
        return self.target - self.active

    @property
    def room_now(self) -> float | None:
        """How many more instances the service wants and lets start: 0 or less for none, and None
        if it is unknown.

        The first active instance of a private chute needs a bounty, whatever the target says. All
        others need a target above the active instances.
        """
        has_private_rules, room = follows_private_rules(self.chute), self.below_target
        if has_private_rules is None or room is None:
            return None
        if not has_private_rules:
            return self._public_room(room)
        if self.active == 0:
            return int(self.bounty is not None)
        # The service forgets a target that has expired, and then refuses activations. Where there
        # is no room anyway, it does not matter whether the target has expired.
        if self.target_expired or room <= 0:
            return min(0, room)
        return None if self.target_expired is None else room

    def _public_room(self, room: float) -> float | None:
        """Return the room of a public chute, None if it is unknown.

        ``room`` is its target less the active instances. With TEE, active and starting instances
        together must also be fewer than the target plus 1, which can only make the room smaller.
        """
        if self.chute.tee is False or room <= 0:
            return room
        if self.chute.tee is None or self.starting is None:
            return None
        return min(room, room + 1 - self.starting)

    @property
    def room_after_starting(self) -> float | None:
        """How many launches from now on can still become active, None if it is unknown.

        If the service checks the room again at the activation, the instances that already start may
        become active first, and take it.
        """
        room, is_checked = self.room_now, activation_is_checked(self.chute)
        if is_checked is False:
            return room
        if room is None or is_checked is None or self.starting is None:
            return None
        return room - self.starting

    @property
    def activation_is_refused(self) -> bool | None:
        """Whether the service would refuse the activation of an instance that starts, None while
        that is unknown.

        The service does not delete a refused instance, which holds its GPUs until it is purged.
        """
        is_checked, room = activation_is_checked(self.chute), self.below_target
        if is_checked is False:
            return False
        if is_checked is None or room is None:
            return None
        # A bounty is enough for the first active instance of a private chute. Only the targets of
        # private chutes expire.
        has_bounty = self.active == 0 and self.bounty is not None
        if_public = room <= 0
        if_private = False if has_bounty else if_public or self.target_expired
        has_private_rules = follows_private_rules(self.chute)
        if has_private_rules is None and if_private is not if_public:
            return None
        return if_private if has_private_rules else if_public

    @property
    def refusal_without_room(self) -> LaunchRefusal:
        """Why the service would refuse another instance while there is certainly no room for it.

        Then it is known how many are below the target.
        """
        if not follows_private_rules(self.chute):
            return "no_room" if (self.below_target or 0) <= 0 else "enough_starting"
        if self.active == 0:
            return "no_bounty"
        # The service takes an expired target as 0: it accepts the launch, but refuses the
        # activation.
        return "target_expired" if self.target_expired else "no_room"


def demand_for(
    chute: Chute,
    utilization: ChuteUtilization | None,
    active_ids: AbstractSet[str],
    held_gpus: Iterable[HeldGpu],
    now: float,
    bounty: Bounty | None = None,
) -> Demand:
    """Return a chute with its instances and its target.

    ``utilization`` is None if the autoscaler has no record of the chute. ``active_ids`` are the ids
    of its active instances, and ``held_gpus`` the GPUs of all its instances. ``now`` is the
    service's time.
    """
    activations = {gpu.instance_id: gpu.activated_at for gpu in held_gpus}
    inactive = [activations[one] for one in activations if one not in active_ids]
    # A time of None means that the instance starts, another one that it is disabled. UNSET is
    # unknown.
    starting = None if UNSET in inactive else inactive.count(None)
    if utilization is None:
        # A private chute has no target then. For a public one, the service takes the present number
        # of instances, disabled ones included. While it is unknown which rules a chute follows, its
        # target does not matter, because its room is unknown.
        active = len(active_ids)
        target = 0 if follows_private_rules(chute) else active + len(inactive)
        return Demand(chute, active, starting, target, target_expired=True, bounty=bounty)
    expired = None
    if utilization.timestamp is not None:
        expired = now - utilization.timestamp > _TARGET_LIFETIME
    return Demand(
        chute,
        utilization.active_instance_count,
        starting,
        highest_target(utilization),
        target_expired=expired,
        bounty=bounty,
    )


def follows_private_rules(chute: Chute) -> bool | None:
    """Return whether launches of a chute follow the rules of private chutes. None is unknown.

    Private chutes of the user ``chutes``, and old ones, follow the rules of public chutes.
    """
    # The service gives one of these factors to exactly the chutes with the rules of private ones.
    factors = chute.compute_multiplier_factors
    if factors is None:
        return None
    return not _PRIVATE_FACTORS.isdisjoint(factors)


def allowed_models(chute: Chute | None) -> list[str] | None:
    """Return the GPU models that a chute runs on, None if they are unknown."""
    if chute is None or chute.node_selector is None:
        return None
    return chute.node_selector.supported_gpus


def runs_on(chute: Chute | None, model: str | None) -> bool | None:
    """Return whether a chute runs on a GPU model, None if it is unknown."""
    models = allowed_models(chute)
    if models is None or model is None:
        return None
    return model in models


def gpus_of_instance(chute: Chute | None) -> int | None:
    """Return how many GPUs an instance of a chute takes, None if it is unknown."""
    if chute is None or chute.node_selector is None:
        return None
    gpus = chute.node_selector.gpu_count
    # Another number makes no sense.
    return gpus if gpus and gpus > 0 else None


def launch_refusal(
    seat: MetagraphNode | None, demand: Demand, servers: Iterable[LaunchServer], *, runs_tee: bool
) -> LaunchRefusal | None:
    """Return why a miner cannot launch an instance of a chute on any of some servers now.

    It is None if the miner can launch it on one of them. At least one is given.

    This follows the service's answer to ``GET /instances/launch_config``, and the checks when the
    instance is claimed and becomes active. The first certain refusal is returned. Without one, an
    unknown check gives ``unknown``. If all servers refuse, the refusal by the latest check, in the
    order of ``LAUNCH_REFUSALS``, counts: its server is nearest to a launch.

    ``seat`` is the miner's, and ``runs_tee`` whether it has an active instance of a TEE chute.
    """
    checks = _checks_on_any_server(seat, demand, runs_tee=runs_tee)
    refusals: list[LaunchRefusal] = []
    tee, gpus = demand.chute.tee, gpus_of_instance(demand.chute)
    for server in servers:
        refusal = _first_certain(
            *checks,
            ("tee_mismatch", None if None in (tee, server.tee) else tee != server.tee),
            ("in_maintenance", server.in_maintenance),
            ("too_many_gpus", None if gpus is None else gpus > server.free_gpus),
        )
        if refusal is None:
            return None
        refusals.append(refusal)
    return max(refusals, key=LAUNCH_REFUSALS.index)


def _checks_on_any_server(
    seat: MetagraphNode | None, demand: Demand, *, runs_tee: bool
) -> tuple[Check, ...]:
    chute, room = demand.chute, demand.room_now
    # Of a private chute without TEE, the service looks at the miner's past, which no answer shows,
    # unless the miner runs a TEE chute.
    past_decides = follows_private_rules(chute) and not chute.tee and not runs_tee
    return (
        ("not_registered", seat is None),
        ("blacklisted", seat is not None and is_blacklisted(seat)),
        ("disabled", None if chute.disabled is UNSET else bool(chute.disabled)),
        (demand.refusal_without_room, None if room is None else room <= 0),
        ("unknown", None if past_decides else False),
    )


def _first_certain(*checks: Check) -> LaunchRefusal | None:
    """Return the first check that certainly refuses, ``unknown`` if only an unknown one may."""
    for refusal, refuses in checks:
        if refuses:
            return refusal
    return "unknown" if any(refuses is None for _, refuses in checks) else None


def activation_is_checked(chute: Chute) -> bool | None:
    """Return whether the service checks the room of a chute again when an instance is activated.

    It does so for private chutes, and for public ones without TEE. None is unknown.
    """
    has_private_rules = follows_private_rules(chute)
    if has_private_rules or chute.tee is False:
        return True
    if None in (has_private_rules, chute.tee):
        return None
    return False

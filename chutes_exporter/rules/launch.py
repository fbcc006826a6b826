"""Rules about launches: which chutes a miner can launch on a server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec import UNSET

from chutes_exporter.rules.demand import starting_instances, target_instances

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import Chute, ChuteUtilization, HeldGpu, Server

LaunchRefusal = Literal[
    # The miner may launch nothing.
    "not_registered",
    "blacklisted",
    "disabled",  # The chute is disabled.
    "no_bounty",  # The chute is private and has neither an active instance nor a bounty.
    "no_room",  # The chute has as many active instances as the service wants.
    "enough_starting",  # The public TEE chute has enough active and starting instances.
    "old_tee_server",  # A TEE server of the miner is too old, so it can launch no newer TEE chute.
    "tee_mismatch",  # The chute needs TEE and the server has none, or the other way round.
    "in_maintenance",  # The server holds an upgrade slot.
    "too_many_gpus",  # An instance needs more GPUs of the model than are free on the server.
    "unknown",  # An answer lacks what decides.
]
"""Why a miner cannot launch a chute on a server."""
LAUNCH_REFUSALS: Final[tuple[LaunchRefusal, ...]] = get_args(LaunchRefusal)
_PRIVATE_FACTORS: Final = frozenset({"private", "private_tee", "integrated_subnet"})
_OLDEST_TEE_SERVER: Final = (0, 2, 1)
_NEWER_CHUTE: Final = (0, 6, 0)


@dataclass(frozen=True, slots=True)
class LaunchMiner:
    """A miner that wants to launch an instance. An unknown value is None.

    ``registered`` means that it has a seat, and ``runs_tee`` that it has an active instance of a TEE chute.
    ``old_tee_server`` is whether one of its servers is too old (:func:`is_old_tee_server`).
    """

    registered: bool | None
    blacklisted: bool | None
    old_tee_server: bool | None
    runs_tee: bool | None


@dataclass(frozen=True, slots=True)
class LaunchServer:
    """A server that may hold the instance. An unknown value is None.

    ``in_maintenance`` means that it holds an upgrade slot. ``free_gpus`` are the GPUs of the wanted model that are
    verified and in no instance.
    """

    tee: bool | None
    in_maintenance: bool | None
    free_gpus: int


@dataclass(frozen=True, slots=True)
class ChuteInstances:
    """The instances of a chute on all miners. An unknown value is None.

    Those that start were never active. ``target`` is the number of active instances that the service wants, 0 if it has
    no target for a private chute.
    """

    active: float | None
    starting: float | None
    target: float | None


def chute_instances(
    chute: Chute, utilization: ChuteUtilization | None, active: AbstractSet[str], held: Iterable[HeldGpu] | None
) -> ChuteInstances:
    """Return the instances of a chute and its target.

    ``utilization`` is None if the autoscaler has no record of the chute. ``active`` are the ids of its active
    instances. ``held`` are the GPUs that its instances hold, None if they are unknown.
    """
    starting: float | None = None
    others: int | None = None
    if held is not None:
        activated = {gpu.instance_id: gpu.activated_at for gpu in held if gpu.instance_id not in active}
        others = len(activated)
        starting = None if UNSET in activated.values() else sum(1 for time in activated.values() if time is None)
    if utilization is not None:
        not_active = starting_instances(utilization)
        # The list of GPUs may be older.
        if not_active is not None and (starting is None or starting > not_active):
            starting = not_active if starting is not None or not_active <= 0 else None
        target = target_instances(utilization)
        if target is None and None not in (utilization.scale_allowance, utilization.target_count):
            # A launch is measured against at most the active instances.
            target = utilization.active_instance_count
        return ChuteInstances(utilization.active_instance_count, starting, target)
    # Without a target, the service takes the present number of instances of a public chute, disabled ones included.
    present = None if others is None else len(active) + others
    return ChuteInstances(len(active), starting, 0 if follows_private_rules(chute) else present)


def follows_private_rules(chute: Chute) -> bool | None:
    """Return whether launches of a chute follow the rules of private chutes.

    Chutes of the user ``chutes`` and old private ones follow the rules of public chutes. Their factors tell.
    """
    factors = chute.compute_multiplier_factors
    return None if factors is None else not _PRIVATE_FACTORS.isdisjoint(factors)


def is_old_tee_server(server: Server) -> bool | None:
    """Return whether a TEE server is so old that the service refuses all launches of newer TEE chutes to its miner."""
    if server.is_tee is None:
        return None
    if not server.is_tee:
        return False
    if server.version is UNSET:
        return None
    return server.version is None or _version(server.version) < _OLDEST_TEE_SERVER


def _version(text: str) -> tuple[int, ...]:
    """Return the three numbers that begin a version, as the service compares them: zeros if there are not three."""
    match = re.match(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", text, re.ASCII)
    return tuple(map(int, match.groups())) if match else (0, 0, 0)


def launch_refusal(
    miner: LaunchMiner,
    chute: Chute,
    instances: ChuteInstances,
    server: LaunchServer,
    *,
    bounty: bool,
) -> LaunchRefusal | None:
    """Return why a miner cannot launch an instance of a chute on a server now, or None if it can.

    This follows the service's answer to ``GET /instances/launch_config``, and the checks when the instance is claimed.

    ``bounty`` is whether the chute has one.
    """
    gpus = None if chute.node_selector is None else chute.node_selector.gpu_count
    checks: dict[LaunchRefusal, bool | None] = {
        "not_registered": None if miner.registered is None else not miner.registered,
        "blacklisted": miner.blacklisted,
        "disabled": None if chute.disabled is UNSET else bool(chute.disabled),
        **_refused_by_room(miner, chute, instances, bounty=bounty),
        "old_tee_server": _needs_newer_servers(chute) and miner.old_tee_server,
        "tee_mismatch": None if None in (chute.tee, server.tee) else chute.tee != server.tee,
        "in_maintenance": server.in_maintenance,
        "too_many_gpus": None if gpus is None else gpus > server.free_gpus,
    }
    for reason, refused in checks.items():
        if refused:
            return reason
    return "unknown" if None in checks.values() else None


def _refused_by_room(
    miner: LaunchMiner, chute: Chute, instances: ChuteInstances, *, bounty: bool
) -> dict[LaunchRefusal, bool | None]:
    active, target = instances.active, instances.target
    private = follows_private_rules(chute)
    room = launch_room(chute, instances)
    if private is None or active is None or target is None:
        return {"unknown": None}
    if private:
        return {
            "no_bounty": active == 0 and not bounty,
            "no_room": 0 < target <= active,
            # Without TEE, the service looks at the miner's past too, which no endpoint shows.
            "unknown": None if not chute.tee and not miner.runs_tee else False,
        }
    return {"no_room": active >= target, "enough_starting": None if room is None else room <= 0}


def launch_room(chute: Chute, instances: ChuteInstances) -> float | None:
    """Return how many more instances of a chute the service wants and lets start, 0 or less if none.

    Of a public chute with TEE, active and starting instances must be fewer than the target plus 1.
    """
    active, starting, target = instances.active, instances.starting, instances.target
    if active is None or target is None:
        return None
    room = target - active
    if follows_private_rules(chute) or chute.tee is False:
        return room
    return None if chute.tee is None or starting is None else min(room, room + 1 - starting)


def _needs_newer_servers(chute: Chute) -> bool | None:
    if chute.tee is None or chute.chutes_version is UNSET:
        return None
    return chute.tee and _version(chute.chutes_version or "") >= _NEWER_CHUTE

"""Rules about instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec import UNSET

from chutes_exporter.duration import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from chutes_exporter.api.records import Instance, RollingUpdate

SECURED_AFTER: Final = HOUR
"""Seconds after its activation from which a public instance keeps its score when it is deleted."""
LONGEST_START: Final = 3.5 * HOUR
"""Seconds after its creation within which an instance must become active."""
InstanceState = Literal["active", "starting", "disabled"]
"""State of an instance.

A starting one was never active. A disabled one was active, and its miner disabled it.
"""
INSTANCE_STATES: Final[tuple[InstanceState, ...]] = get_args(InstanceState)


def instance_state(instance: Instance) -> InstanceState | None:
    """Return the state of an instance."""
    if instance.active:
        return "active"
    if instance.active is None and instance.activated_at is not None:
        # `active` is null only before the first activation, so the two fields contradict each
        # other.
        return None
    if instance.activated_at is UNSET:
        return None
    return "starting" if instance.activated_at is None else "disabled"


def disabled_rate(instance: Instance) -> float | None:
    """Return the compute units per second that an instance earns although it is disabled, 0 in
    another state.
    """
    state = instance_state(instance)
    if state is None:
        return None
    return instance.compute_multiplier if state == "disabled" else 0.0


def is_public(instance: Instance) -> bool | None:
    """Return whether an instance is public, which means that nobody is billed for it."""
    return None if instance.billed_to is UNSET else instance.billed_to is None


def secured_at(instance: Instance) -> float | None:
    """Return the time from which a public instance keeps its score when deleted.

    None for private instances.
    """
    if not is_public(instance) or instance.activated_at is UNSET or instance.activated_at is None:
        return None
    return instance.activated_at + SECURED_AFTER


def purged_at(instance: Instance) -> float | None:
    """Return the time at which the service purges a starting or disabled instance.

    None for active ones.

    A starting one must become active within 3.5 hours of its creation, and within 3 hours of its
    verification. A disabled one is purged 3 hours after its verification. ``last_verified_at`` is
    that time, and with TEE never moves.
    """
    state = instance_state(instance)
    if state == "disabled":
        return None if instance.last_verified_at is None else instance.last_verified_at + 3 * HOUR
    if state != "starting" or instance.verified is None or instance.created_at is None:
        return None
    deadline = instance.created_at + LONGEST_START
    if not instance.verified:
        return deadline
    verified_at = instance.last_verified_at
    return None if verified_at is None else min(deadline, verified_at + 3 * HOUR)


def unknown_in(instances: Iterable[Instance]) -> Iterator[str]:
    """Yield a text for each time that decides what happens to an instance, and is unknown."""
    for instance in instances:
        state = instance_state(instance)
        if state != "active" and purged_at(instance) is None:
            yield "the answer does not say when the service deletes an instance that is not active"
        if (
            state != "starting"
            and is_public(instance) is not False
            and secured_at(instance) is None
        ):
            yield "the answer does not say until when an instance loses its score if it is deleted"


def is_outdated(instance: Instance, updates: Mapping[str, RollingUpdate]) -> bool | None:
    """Return whether a rolling update will replace an instance, because it does not run the new
    version.

    It replaces only active, verified instances. ``updates`` has all rolling updates, by chute.
    """
    if False in (instance.active, instance.verified):
        return False
    if instance.chute_id is None:
        return None
    update = updates.get(instance.chute_id)
    if update is None:
        return False
    if None in (instance.version, update.new_version, instance.active, instance.verified):
        return None
    return instance.version != update.new_version

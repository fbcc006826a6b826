"""Rules about instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec import UNSET

from chutes_exporter.duration import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
DeadlineKind = Literal["purge", "secured", "end_of_billing"]
"""What happens to an instance at a time: the service deletes it unless it becomes active, it keeps
its score from then on, or the service deletes it unless it gets requests."""
DEADLINES: Final[tuple[DeadlineKind, ...]] = get_args(DeadlineKind)


def instance_state(instance: Instance) -> InstanceState | None:
    """Return the state of an instance, None if it is unknown."""
    if instance.active:
        return "active"
    if instance.active is None and instance.activated_at is not None:
        # `active` is null only before the first activation, so the two fields contradict each
        # other.
        return None
    if instance.activated_at is UNSET:
        # The answer does not have the field, so the instance may be starting or disabled.
        return None
    return "starting" if instance.activated_at is None else "disabled"


def disabled_units_per_second(instance: Instance) -> float | None:
    """Return the compute units per second that an instance earns although it is disabled, 0 in
    another state.
    """
    state = instance_state(instance)
    if state is None:
        return None
    if state != "disabled":
        return 0.0
    return instance.compute_multiplier


def is_private(instance: Instance) -> bool | None:
    """Return whether an instance is private, which means that a user is billed for it."""
    if instance.billed_to is UNSET:
        return None
    return instance.billed_to is not None


def secured_at(instance: Instance) -> float | None:
    """Return the Unix time from which a public instance keeps its score when it is deleted.

    None for a private instance and for one that was never active, or if that is unknown.
    """
    if is_private(instance) is not False:
        return None
    if instance.activated_at is UNSET or instance.activated_at is None:
        return None
    return instance.activated_at + SECURED_AFTER


def purged_at(instance: Instance) -> float | None:
    """Return the Unix time at which the service purges a starting or disabled instance.

    None for an active instance, or if that is unknown.

    A starting one must become active within 3.5 hours of its creation, and within 3 hours of its
    verification. A disabled one is purged 3 hours after its verification.
    """
    state = instance_state(instance)
    after_verification = None
    if instance.last_verified_at is not None:
        after_verification = instance.last_verified_at + 3 * HOUR
    if state == "disabled":
        return after_verification
    if state != "starting" or instance.verified is None or instance.created_at is None:
        return None
    after_creation = instance.created_at + LONGEST_START
    if not instance.verified:
        return after_creation
    if after_verification is None:
        return None
    return min(after_creation, after_verification)


def deadlines_of(instance: Instance) -> dict[DeadlineKind, float]:
    """Return the Unix times of the deadlines that an instance is known to have, by their kind."""
    times: dict[DeadlineKind, float | None] = {
        "purge": purged_at(instance),
        "secured": secured_at(instance),
        "end_of_billing": instance.stop_billing_at,
    }
    return {kind: time for kind, time in times.items() if time is not None}


def unknown_in(instances: Iterable[Instance]) -> Iterator[str]:
    """Yield a text for each deadline of an instance that is unknown.

    An instance that is not active has the deadline of its purge. A public one that was ever active
    has the time from which it keeps its score. If the state or the kind of an instance is unknown,
    it may have both.
    """
    for instance in instances:
        state = instance_state(instance)
        if state != "active" and purged_at(instance) is None:
            yield "the answer does not say when the service deletes an instance that is not active"
        may_be_public = not is_private(instance)
        if state != "starting" and may_be_public and secured_at(instance) is None:
            yield "the answer does not say until when an instance loses its score if it is deleted"


def is_outdated(instance: Instance, updates: Sequence[RollingUpdate]) -> bool | None:
    """Return whether one of all rolling updates will replace an instance, because it does not run
    the new version. None if it is unknown.
    """
    if instance.active is False or instance.verified is False:
        # An update replaces only active, verified instances.
        return False
    if instance.chute_id is None:
        return None
    # Of two updates of a chute, the first counts.
    update = next((one for one in updates if one.chute_id == instance.chute_id), None)
    if update is None:
        return False
    if None in (instance.version, update.new_version, instance.active, instance.verified):
        return None
    return instance.version != update.new_version

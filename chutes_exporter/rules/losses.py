"""Rules about ended instances: why they ended, whether they count, and what they lost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from chutes_exporter.api.records import END_TEXTS, OLD_VERSION
from chutes_exporter.duration import DAY
from chutes_exporter.rules.instances import SECURED_AFTER
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from chutes_exporter.api.records import AuditInstance, ComputeRecord

_CUT_BELOW: Final = 0.2
"""A multiplier below this part of the one before was cut: multiplied by 0 or 0.1."""
END_REASONS: Final = (*END_TEXTS, "none", "other")
"""All reasons for the end of an instance: also no text, and an unknown one."""


def end_reason(text: str | None) -> str:
    """Return why an instance ended, from its ``deletion_reason``."""
    if not text:
        return "none"
    if OLD_VERSION in text:
        return "update"
    return next(
        (reason for reason, starts in END_TEXTS.items() if text.startswith(starts)), "other"
    )


def ended_counts(instance: AuditInstance) -> bool:
    """Return whether an ended instance keeps its score.

    One that was never active has none to keep.
    """
    activated, deleted, text = (
        instance.activated_at,
        instance.deleted_at,
        instance.deletion_reason or "",
    )
    if activated is None or deleted is None:
        return False
    secured = instance.billed_to is None and deleted - activated >= SECURED_AFTER
    kept = end_reason(text) in ("idle", "no_balance") or OLD_VERSION in text
    return secured or kept or bool(instance.valid_termination)


def records_before_end(
    instance: AuditInstance, records: Iterable[ComputeRecord], earlier: Mapping[float, float | None]
) -> list[ComputeRecord] | None:
    """Return the multipliers of an instance before it was deleted, None if the last one is unknown.

    If a miner deletes the last active instance of a chute on the platform, the service first cuts
    the multiplier of the open record: it multiplies it by 0 (private) or 0.1. Reports made before
    that still have the uncut one. For a record that is in none of them, the uncut one is about that
    of the record before.

    ``records`` are those of the instance in the newest reports. ``earlier`` are its multipliers in
    older reports, by the start of their record.
    """
    ordered = sorted(records, key=lambda record: record.started_at)
    if instance.activated_at is None or end_reason(instance.deletion_reason) != "miner":
        return ordered
    if not ordered or (multiplier := ordered[-1].compute_multiplier) is None:
        return None
    *older, last = ordered
    uncut = earlier.get(last.started_at) or (older[-1].compute_multiplier if older else None)
    if uncut is None:
        # Only an instance that lost its score anyway needs no comparison, unless 0 shows a cut.
        return None if ended_counts(instance) or multiplier == 0 else ordered
    return (
        [*older, replace(last, compute_multiplier=uncut)]
        if multiplier < _CUT_BELOW * uncut
        else ordered
    )


def is_last_of_chute(
    instance: AuditInstance,
    records: Collection[ComputeRecord],
    earlier: Mapping[float, float | None],
) -> bool | None:
    """Return whether a miner deleted its instance as the last active one of its chute, None if it
    is unknown.

    The service does not say so, but cuts a multiplier. The arguments are those of
    :func:`records_before_end`.
    """
    before = records_before_end(instance, records, earlier)
    return None if before is None else not set(before) <= set(records)


def lost_compute_units(
    instance: AuditInstance,
    records: Collection[ComputeRecord],
    earlier: Mapping[float, float | None],
    now: float,
) -> float | None:
    """Return the compute units that an ended instance had scored in the 24 hours before now, and
    lost by its end.

    Unless there is exactly one multiplier for each second, the units are unknown. The arguments are
    those of :func:`records_before_end`.
    """
    if instance.activated_at is None:
        return 0.0
    before, counts = records_before_end(instance, records, earlier), ended_counts(instance)
    if before is None:
        return None
    if counts and set(before) == set(records):
        return 0.0
    scored = _compute_units(instance, before, now)
    # One that still counts keeps the units with the cut multiplier.
    kept = _compute_units(instance, records, now) if counts else 0.0
    return None if scored is None or kept is None else scored - kept


def _compute_units(
    instance: AuditInstance, records: Iterable[ComputeRecord], now: float
) -> float | None:
    parts, uncovered = scored_seconds(instance, records, now)
    if abs(uncovered) > 1:
        return None
    return total(
        None if multiplier is None or multiplier < 0 else seconds * multiplier
        for seconds, multiplier in parts
    )


def scored_seconds(
    instance: AuditInstance, records: Iterable[ComputeRecord], now: float
) -> tuple[list[tuple[float, float | None]], float]:
    """Return the seconds of the past day with each multiplier, and how many are in no record
    (negative: in two).

    Seconds count from the creation, until the end or until billing stops.
    """
    start = max(instance.created_at, now - DAY)
    end = max(start, min(instance.deleted_at or now, instance.stop_billing_at or now, now))
    parts = [
        (seconds, record.compute_multiplier)
        for record in records
        if (seconds := min(end, record.ended_at or end) - max(start, record.started_at)) > 0
    ]
    return parts, end - start - math.fsum(seconds for seconds, _ in parts)

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
    return next((reason for reason, starts in END_TEXTS.items() if text.startswith(starts)), "other")


def ended_counts(instance: AuditInstance) -> bool:
    """Return whether an ended instance keeps its score. One that was never active has none to keep."""
    activated, deleted, text = instance.activated_at, instance.deleted_at, instance.deletion_reason or ""
    if activated is None or deleted is None:
        return False
    secured = instance.billed_to is None and deleted - activated >= SECURED_AFTER
    kept = end_reason(text) in ("idle", "no_balance") or OLD_VERSION in text
    return secured or kept or bool(instance.valid_termination)


def multiplier_before_end(
    instance: AuditInstance, records: Iterable[ComputeRecord], earlier: Mapping[float, float | None]
) -> float | None:
    """Return the multiplier that an instance had when it was deleted, None if it is unknown.

    If a miner deletes the last active instance of a chute on the platform, the service first cuts the multiplier of
    the open record: it multiplies it by 0 (private) or 0.1. Reports made before that still have the uncut one. For a
    record that is in none of them, the uncut one is about that of the record before.

    ``records`` are those of the instance in the newest reports. ``earlier`` are its multipliers in older reports, by
    the start of their record.
    """
    ordered = sorted(records, key=lambda record: record.started_at)
    if not ordered:
        return None
    *older, last = ordered
    if end_reason(instance.deletion_reason) != "miner" or last.compute_multiplier is None:
        return last.compute_multiplier
    uncut = earlier.get(last.started_at) or (older[-1].compute_multiplier if older else None)
    if uncut is None:
        # Only an instance that lost its score anyway needs no comparison, unless 0 shows a cut.
        needs_comparison = ended_counts(instance) or last.compute_multiplier == 0
        return None if needs_comparison else last.compute_multiplier
    return uncut if last.compute_multiplier < _CUT_BELOW * uncut else last.compute_multiplier


def is_last_of_chute(
    instance: AuditInstance, records: Collection[ComputeRecord], earlier: Mapping[float, float | None]
) -> bool | None:
    """Return whether a miner deleted its instance as the last active one of its chute, None if it is unknown.

    The service does not say so, but then cuts the multiplier of the newest record. A cut multiplier differs from
    :func:`multiplier_before_end`, which has the same arguments.
    """
    if instance.activated_at is None or end_reason(instance.deletion_reason) != "miner":
        return False
    before = multiplier_before_end(instance, records, earlier)
    if before is None:
        return None
    return before != max(records, key=lambda record: record.started_at).compute_multiplier


def lost_compute_units(
    instance: AuditInstance, records: Collection[ComputeRecord], earlier: Mapping[float, float | None], now: float
) -> float | None:
    """Return the compute units that an ended instance had scored in the 24 hours before now, and lost by its end.

    Unless there is exactly one multiplier for each second, the units are unknown. The arguments are those of
    :func:`multiplier_before_end`.
    """
    if instance.activated_at is None or (instance.deleted_at or now) <= now - DAY:
        return 0.0
    counts, is_last = ended_counts(instance), is_last_of_chute(instance, records, earlier)
    if is_last is None:
        return None
    if counts and not is_last:
        return 0.0
    uncut = list(records)
    if is_last:
        last = max(records, key=lambda record: record.started_at)
        uncut.remove(last)
        uncut.append(replace(last, compute_multiplier=multiplier_before_end(instance, records, earlier)))
    scored = _compute_units(instance, uncut, now)
    # One that still counts keeps the units with the cut multiplier.
    kept = _compute_units(instance, records, now) if counts else 0.0
    return None if scored is None or kept is None else scored - kept


def _compute_units(instance: AuditInstance, records: Iterable[ComputeRecord], now: float) -> float | None:
    parts, uncovered = scored_seconds(instance, records, now)
    if abs(uncovered) > 1:
        return None
    return total(
        None if multiplier is None or multiplier < 0 else seconds * multiplier for seconds, multiplier in parts
    )


def scored_seconds(
    instance: AuditInstance, records: Iterable[ComputeRecord], now: float
) -> tuple[list[tuple[float, float | None]], float]:
    """Return the seconds of the past day with each multiplier, and how many are in no record (negative: in two).

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

"""Rules about ended instances: why they ended, whether they count, and what they lost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from chutes_exporter.api.records import END_TEXTS, OLD_VERSION
from chutes_exporter.duration import DAY
from chutes_exporter.rules.instances import SECURED_AFTER
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.api.records import AuditInstance, ComputeRecord

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


def lost_compute_units(instance: AuditInstance, records: Iterable[ComputeRecord], now: float) -> float | None:
    """Return the compute units that an ended instance had scored in the 24 hours before now, and lost by its end.

    Unless there is exactly one multiplier for each second, the units are unknown.
    """
    parts, uncovered = lost_seconds(instance, records, now)
    if abs(uncovered) > 1:
        return None
    return total(
        None if multiplier is None or multiplier < 0 else seconds * multiplier for seconds, multiplier in parts
    )


def lost_seconds(
    instance: AuditInstance, records: Iterable[ComputeRecord], now: float
) -> tuple[list[tuple[float, float | None]], float]:
    """Return the lost seconds with each multiplier, and how many seconds are in no record (negative: in two).

    Seconds count from the creation, until the end or until billing stops.
    """
    if instance.activated_at is None or ended_counts(instance):
        return [], 0.0
    start = max(instance.created_at, now - DAY)
    end = max(start, min(instance.deleted_at or now, instance.stop_billing_at or now, now))
    parts = [
        (seconds, record.compute_multiplier)
        for record in records
        if (seconds := min(end, record.ended_at or end) - max(start, record.started_at)) > 0
    ]
    return parts, end - start - math.fsum(seconds for seconds, _ in parts)

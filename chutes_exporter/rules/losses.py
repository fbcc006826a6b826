"""Rules about ended instances: why they ended, whether they count, and what they lost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec import structs

from chutes_exporter.api.records import (
    END_TEXTS,
    OLD_VERSION,
    AuditInstance,
    ComputeRecord,
    UnixTime,
)
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.rules.instances import LONGEST_START, SECURED_AFTER
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.api.records import Chute

NO_REASON: Final = "none"
REDEPLOYED: Final = "redeployed"
END_REASONS: Final = (*END_TEXTS, REDEPLOYED, NO_REASON, "other")
"""All reasons for the end of an instance: also a redeployment, no text, and an unknown text."""
Outcome = Literal["counts", "lost", "never_active"]
"""Whether an ended instance keeps its score, lost it, or was never active and had none."""
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

_PLANNED: Final = frozenset(
    ("scale_down", "update", "maintenance", "idle", "no_balance", "chute_removed", REDEPLOYED)
)
"""Reasons that say nothing about whether a chute runs well."""
_INTEGRATED_SUBNETS: Final = (
    *("affine", "babelbit", "chronoseek", "glyph"),
    *("leoma", "prometheon", "turbovision", "vocence"),
)
"""Each is a part of the names of the chutes that another subnet uses."""
_PUBLIC_PENALTY: Final = 0.1
"""Multiplies the pay of a public instance that its miner deletes as the last active one."""
_CUT_BELOW: Final = 2 * _PUBLIC_PENALTY
"""A multiplier below this part of the one before was cut. Others change in small steps."""
_MAX_GAP: Final = 1.0
"""Seconds without a multiplier that rounding explains."""


def end_reason(text: str | None) -> str:
    """Return why an instance ended, from its ``deletion_reason``."""
    if not text:
        return NO_REASON
    if OLD_VERSION in text:
        return "update"
    for reason, beginnings in END_TEXTS.items():
        if text.startswith(beginnings):
            return reason
    return "other"


def may_be_redeployed(instance: AuditInstance) -> bool:
    """Return whether an instance ended like those of a redeployed private chute: without a reason,
    and without the mark of a valid end.
    """
    is_private = instance.billed_to is not None
    return is_private and not instance.deletion_reason and not instance.valid_termination


def ends_all_at_once(chute: Chute) -> bool | None:
    """Return whether a new version of a chute ends all its instances at once, as with private
    chutes of integrated subnets.
    """
    if "integrated_subnet" in (chute.compute_multiplier_factors or {}):
        return True
    if chute.public is None or chute.name is None:
        return None
    name = chute.name.lower()
    return not chute.public and any(part in name for part in _INTEGRATED_SUBNETS)


def ended_within_hour(instance: AuditInstance, end: float) -> bool:
    """Return whether an instance ended in the hour with this end."""
    return instance.deleted_at is not None and end - HOUR <= instance.deleted_at <= end


def outcome_of(instance: AuditInstance) -> Outcome:
    """Return what became of the score of an ended instance."""
    if instance.activated_at is None:
        return "never_active"
    text = instance.deletion_reason or ""
    active_seconds = (instance.deleted_at or instance.activated_at) - instance.activated_at
    is_secured = instance.billed_to is None and active_seconds >= SECURED_AFTER
    is_kept = end_reason(text) in ("idle", "no_balance") or OLD_VERSION in text
    return "counts" if is_secured or is_kept or instance.valid_termination else "lost"


def is_failure(outcome: Outcome, reason: str | None) -> bool | None:
    """Return whether an instance failed: it was never active or lost its score, and nobody planned
    its end.

    None if only the name of its chute would say whether it was redeployed.
    """
    if outcome == "counts":
        return False
    return None if reason is None else reason not in _PLANNED


DeletionReason = Literal["free", "first_hour", "private", "last_active"]
"""Why the deletion of an active instance costs score, or that it is free."""


@dataclass(frozen=True)
class History:
    """The multipliers of an instance, from several reports.

    Attributes:
        records: Its records, in the order of their starts. Two with the same start are both paid.
        open_multiplier: The multiplier of the last record in a report that was made before the
            instance ended. None without such a report.
    """

    records: Sequence[ComputeRecord]
    open_multiplier: float | None


def join_records(by_report: Iterable[Iterable[ComputeRecord]]) -> History:
    """Join the records of an instance in each report, the newest report first.

    A newer report knows when a record ended.
    """
    newest: dict[float, list[ComputeRecord]] = {}
    while_open: dict[float, float | None] = {}
    for records in by_report:
        of_report: dict[float, list[ComputeRecord]] = {}
        for record in records:
            of_report.setdefault(record.started_at, []).append(record)
            if record.ended_at is None:
                while_open[record.started_at] = _multiplier(record)
        for start, found in of_report.items():
            newest.setdefault(start, found)
    joined = [record for records in newest.values() for record in records]
    # A report has no order. Of two with the same start, the one that is open is the last.
    joined.sort(key=lambda record: (record.started_at, record.ended_at or math.inf))
    return History(joined, while_open.get(joined[-1].started_at) if joined else None)


@dataclass(frozen=True)
class Loss:
    """What the score lost by the end of an instance.

    Attributes:
        units: Compute units of the past day.
        is_last_of_chute: Whether its miner deleted it as the last active one of its chute.
    """

    units: float | None
    is_last_of_chute: bool | None


def loss_of(instance: AuditInstance, history: History, now: float) -> Loss:
    """Return the compute units of the 24 hours before now that an instance lost by its end.

    If a miner deletes the last active instance of a chute on the platform, the service first
    multiplies the multiplier of the open record by 0 (private) or 0.1. So a public one loses nine
    tenths of the units of that record, even if it counts.
    """
    if instance.activated_at is None:
        return Loss(0.0, is_last_of_chute=False)
    counts = outcome_of(instance) == "counts"
    scored = 0.0 if counts else _compute_units(instance, history.records, now)
    if not _deleted_by_miner(instance):
        return Loss(scored, is_last_of_chute=False)
    last = _multiplier(history.records[-1]) if history.records else None
    uncut = _uncut_multiplier(history)
    if last is None or uncut is None:
        return Loss(None, is_last_of_chute=None)
    cut = max(0.0, uncut - last)
    cut_units = cut * _paid_seconds(instance, history.records[-1], now)
    return Loss(total([scored, cut_units]), is_last_of_chute=cut > 0)


def score_of_running(
    created_at: float, history: History, known_until: float, multiplier: float, now: float
) -> float | None:
    """Return the compute units that a running instance has in the score of the past day.

    Its history is known until a time, and since then its multiplier is the present one. An instance
    without a history was activated after that time, because records come with the activation. None
    if the history has a gap.
    """
    records = list(history.records)
    since = max(created_at, known_until)
    if not records and known_until - created_at < LONGEST_START:
        since = created_at
    elif records and records[-1].ended_at is None:
        last = records.pop()
        since = max(since, last.started_at)
        records.append(structs.replace(last, ended_at=UnixTime(since)))
    running = AuditInstance(
        instance_id="",
        miner_hotkey="",
        created_at=UnixTime(created_at),
        activated_at=UnixTime(created_at),
        deleted_at=None,
        stop_billing_at=None,
        billed_to=None,
        deletion_reason=None,
        valid_termination=None,
    )
    present = ComputeRecord("", started_at=UnixTime(since), compute_multiplier=multiplier)
    return _compute_units(running, [*records, present], now)


@dataclass(frozen=True)
class DeletionCost:
    """What the score loses if the miner deletes an active instance.

    Attributes:
        units: Compute units of the past day, at most.
        free_at: Unix time from which it costs nothing, None if no time is known.
    """

    why: DeletionReason
    units: float
    free_at: float | None


def deletion_cost(
    *, private: bool, is_last_active: bool, secured_at: float, score: float, now: float
) -> DeletionCost:
    """Return what the deletion of an active instance costs.

    A private one loses its score at any age. A public one loses it in its first hour, and nine
    tenths of it if it is the only active one of its chute on the platform. The service cuts only
    the time since the last change of its multiplier, so it may lose less.

    ``secured_at`` is when the first hour of a public one is over, and ``score`` its compute units
    in the score of the past day.
    """
    if private:
        return DeletionCost("private", score, None)
    if now < secured_at:
        return DeletionCost("first_hour", score, None if is_last_active else secured_at)
    if is_last_active:
        return DeletionCost("last_active", (1 - _PUBLIC_PENALTY) * score, None)
    return DeletionCost("free", 0.0, now)


def needs_report(instance: AuditInstance, history: History, now: float, end: float) -> bool:
    """Return whether the report of the hour with this end may have a multiplier of an ended
    instance that is needed and not known yet.
    """
    if instance.activated_at is None:
        return False
    if _deleted_by_miner(instance) and history.open_multiplier is None:
        starts = [record.started_at for record in history.records]
        if not starts or starts[-1] < end:
            return True
    if outcome_of(instance) == "counts":
        return False
    gap = _first_gap(instance, history.records, now)
    return gap is not None and gap < end


def _deleted_by_miner(instance: AuditInstance) -> bool:
    return end_reason(instance.deletion_reason) == "miner"


def _multiplier(record: ComputeRecord) -> float | None:
    multiplier = record.compute_multiplier
    return None if multiplier is None or multiplier < 0 else multiplier


def _uncut_multiplier(history: History) -> float | None:
    """Return the last multiplier of an instance, before the service may have cut it.

    If no report shows it, one that is far below the one before was cut. A private one was cut to 0.
    Then the one before is the best estimate.
    """
    if history.open_multiplier is not None:
        return history.open_multiplier
    # With a single record, it is not known whether it was cut.
    before, last = [None, None, *map(_multiplier, history.records)][-2:]
    if before is None or last is None:
        return None
    if last >= _CUT_BELOW * before:
        return last
    return last / _PUBLIC_PENALTY if last else before


def _compute_units(
    instance: AuditInstance, records: Sequence[ComputeRecord], now: float
) -> float | None:
    """Return the compute units of an instance in the 24 hours before now."""
    if _first_gap(instance, records, now) is not None:
        return None
    units: list[float | None] = []
    for record in records:
        seconds, multiplier = _paid_seconds(instance, record, now), _multiplier(record)
        if seconds > 0:
            units.append(None if multiplier is None else seconds * multiplier)
    return total(units)


def _first_gap(
    instance: AuditInstance, records: Sequence[ComputeRecord], now: float
) -> float | None:
    """Return the first time without a multiplier, None if each second has one.

    The records are in the order of their starts.
    """
    covered, end = _paid_time(instance, now)
    for record in records:
        if record.started_at > covered + _MAX_GAP:
            return covered
        # Only the last records have no end. That of an earlier one is in a missing report.
        if record.ended_at is None and record.started_at != records[-1].started_at:
            return record.started_at
        covered = max(covered, record.ended_at or end)
    return covered if covered < end - _MAX_GAP else None


def _paid_time(instance: AuditInstance, now: float) -> tuple[float, float]:
    """Return the start and the end of the time that the score of the past day counts: from the
    creation, until the end or until billing stops.
    """
    start = max(instance.created_at, now - DAY)
    end = min(instance.deleted_at or now, instance.stop_billing_at or now, now)
    return start, max(start, end)


def _paid_seconds(instance: AuditInstance, record: ComputeRecord, now: float) -> float:
    start, end = _paid_time(instance, now)
    return max(0.0, min(end, record.ended_at or end) - max(start, record.started_at))

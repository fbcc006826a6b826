"""Rules about ended instances: why they ended, whether they count, and what they lost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal, get_args

from chutes_exporter.api.records import (
    END_TEXTS,
    OLD_VERSION,
    PURGED,
    AuditInstance,
    ComputeRecord,
)
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.rules.instances import SECURED_AFTER
from chutes_exporter.rules.launch import activation_is_checked
from chutes_exporter.rules.sums import product, total

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
        # Only a part of this text is known, and not its beginning.
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
    chutes of integrated subnets. None if it is unknown.
    """
    factors = chute.compute_multiplier_factors or {}
    if "integrated_subnet" in factors:
        return True
    # A chute with TEE has the factor "private_tee" instead, so its name decides.
    if chute.public is None or chute.name is None:
        return None
    name = chute.name.lower()
    return not chute.public and any(part in name for part in _INTEGRATED_SUBNETS)


def ended_within_hour(instance: AuditInstance, end: float) -> bool:
    """Return whether an instance ended in the hour with this end."""
    return instance.deleted_at is not None and end - HOUR <= instance.deleted_at <= end


def outcome_of(instance: AuditInstance) -> Outcome:
    """Return what became of the score of an ended instance.

    A public one keeps it from an hour after its activation on. Any keeps it at an end that the
    service marks as valid, or for one of a few reasons.
    """
    if instance.activated_at is None:
        return "never_active"
    # Every ended instance has this time. Without it, the first hour would not be over.
    deleted_at = instance.deleted_at or instance.activated_at
    is_public = instance.billed_to is None
    if is_public and deleted_at - instance.activated_at >= SECURED_AFTER:
        return "counts"
    # Ends for these reasons count even without the mark.
    text = instance.deletion_reason or ""
    reason_counts = OLD_VERSION in text or end_reason(text) in ("idle", "no_balance")
    if instance.valid_termination or reason_counts:
        return "counts"
    return "lost"


def may_have_lost_race(instance: AuditInstance, chute: Chute | None) -> bool:
    """Return whether the service may have refused the activation of an instance, because others had
    filled its chute in the meantime.

    The service does not delete such an instance. It purges it as one that hangs, and no report
    tells the two apart. One that was not even verified did not come so far. ``chute`` is None if
    it is unknown.
    """
    was_purged = (instance.deletion_reason or "").startswith(PURGED)
    if instance.activated_at is not None or instance.verified_at is None or not was_purged:
        return False
    return chute is None or activation_is_checked(chute) is not False


def is_failure(outcome: Outcome, reason: str | None, *, lost_race: bool) -> bool | None:
    """Return whether an instance failed: it was never active or lost its score, and nobody planned
    its end.

    None is unknown. Without a reason, the instance may be that of a job that is over. A reason of
    None is unknown: it may have been redeployed. ``lost_race`` is whether it may have lost a race,
    which is no failure.
    """
    if outcome == "counts" or reason in _PLANNED:
        return False
    if reason in (None, NO_REASON) or lost_race:
        return None
    return True


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


def join_records(reports: Iterable[Sequence[ComputeRecord]]) -> History:
    """Join the records of an instance in each report, the newest report first.

    Several reports have the same records, which have the same start. The newest one knows when
    they ended. An older one may show their multiplier from before the end.
    """
    newest_by_start: dict[float, list[ComputeRecord]] = {}
    open_multipliers: dict[float, float | None] = {}
    for records in reports:
        for start, records_of_start in _by_start(records).items():
            newest_by_start.setdefault(start, records_of_start)
        for record in records:
            # The instance had not ended yet when this report was made. Until its end, a record
            # keeps its multiplier, so all reports with the open record agree.
            if record.ended_at is None:
                open_multipliers[record.started_at] = _multiplier(record)
    joined = list(chain.from_iterable(newest_by_start.values()))
    if not joined:
        return History([], None)
    # A report has no order. Of two with the same start, the one that is open is the last.
    joined.sort(key=lambda record: (record.started_at, record.ended_at or math.inf))
    return History(joined, open_multipliers.get(joined[-1].started_at))


def _by_start(records: Iterable[ComputeRecord]) -> dict[float, list[ComputeRecord]]:
    by_start: dict[float, list[ComputeRecord]] = {}
    for record in records:
        by_start.setdefault(record.started_at, []).append(record)
    return by_start


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
        # It never had a score.
        return Loss(0.0, is_last_of_chute=False)
    paid = _paid_time(instance, now)
    lost_units: float | None = 0.0
    if outcome_of(instance) == "lost":
        lost_units = _compute_units(history.records, paid)
    if not _deleted_by_miner(instance):
        return Loss(lost_units, is_last_of_chute=False)
    multiplier_before = _multiplier_before_cut(history)
    multiplier_after = _last_multiplier(history)
    if multiplier_before is None or multiplier_after is None:
        return Loss(None, is_last_of_chute=None)
    # `lost_units` are by the multiplier after the cut. What the cut took is lost as well.
    cut = max(0.0, multiplier_before - multiplier_after)
    cut_units = cut * paid.seconds_of(history.records[-1])
    return Loss(total([lost_units, cut_units]), is_last_of_chute=cut > 0)


def loss_needs_report(instance: AuditInstance, history: History, now: float, end: float) -> bool:
    """Return whether the report of an hour may have a multiplier that is missing for the loss of
    an ended instance.

    ``end`` is the end of the hour. The loss is of the 24 hours before now.
    """
    if instance.activated_at is None:
        # It never had a score, so it lost nothing.
        return False
    may_be_cut = _deleted_by_miner(instance) and history.open_multiplier is None
    if may_be_cut and (not history.records or history.records[-1].started_at < end):
        # This report may show the last record while it was open, with its multiplier before a cut.
        return True
    if outcome_of(instance) == "counts":
        # Apart from a cut, it lost nothing.
        return False
    gap = _first_gap(history.records, _paid_time(instance, now))
    # The report has no record of a time after its hour.
    return gap is not None and gap < end


def _deleted_by_miner(instance: AuditInstance) -> bool:
    return end_reason(instance.deletion_reason) == "miner"


def _multiplier(record: ComputeRecord) -> float | None:
    """Return the multiplier of a record, None if it is unknown or makes no sense."""
    multiplier = record.compute_multiplier
    if multiplier is None or multiplier < 0:
        return None
    return multiplier


def _last_multiplier(history: History) -> float | None:
    """Return the last multiplier of an instance, after the service may have cut it."""
    if not history.records:
        return None
    return _multiplier(history.records[-1])


def _multiplier_before_cut(history: History) -> float | None:
    """Return the last multiplier of an instance, before the service may have cut it.

    If no report shows it, the last two records decide. A last multiplier that is far below the one
    before was cut: that of a public instance to a tenth, that of a private one to 0. A cut to
    0 does not show what was cut, so the multiplier of the record before is the best estimate.
    """
    if history.open_multiplier is not None:
        return history.open_multiplier
    if len(history.records) <= 1:
        # Without a record before the last one, it is not known whether it was cut.
        return None
    previous, last = map(_multiplier, history.records[-2:])
    if previous is None or last is None:
        return None
    if last >= _CUT_BELOW * previous:
        return last
    if last == 0:
        return previous
    return last / _PUBLIC_PENALTY


@dataclass(frozen=True)
class _PaidTime:
    """The part of the past day in which an instance is paid, in Unix time."""

    start: float
    end: float

    def seconds_of(self, record: ComputeRecord) -> float:
        """Return the seconds of this time in which a record applies."""
        end = min(self.end, record.ended_at or self.end)
        return max(0.0, end - max(self.start, record.started_at))


def _paid_time(instance: AuditInstance, now: float) -> _PaidTime:
    """Return the time that the score of the past day counts: from the creation, until the end or
    until billing stops.
    """
    end = min(instance.deleted_at or now, instance.stop_billing_at or now, now)
    return _past_day(instance.created_at, end, now=now)


def _past_day(start: float, end: float, *, now: float) -> _PaidTime:
    """Return the part of a time that is in the 24 hours before now."""
    start = max(start, now - DAY)
    # A time that ended before these hours becomes an empty one.
    return _PaidTime(start, max(start, end))


def _compute_units(records: Sequence[ComputeRecord], paid: _PaidTime) -> float | None:
    """Return the compute units of an instance in its paid time, None if a multiplier is unknown.

    The records are in the order of their starts.
    """
    if _first_gap(records, paid) is not None:
        return None
    units: list[float | None] = []
    for record in records:
        seconds = paid.seconds_of(record)
        if seconds > 0:
            units.append(product(seconds, _multiplier(record)))
    return total(units)


def _first_gap(records: Sequence[ComputeRecord], paid: _PaidTime) -> float | None:
    """Return the first Unix time in the paid time to which no record applies, None without a gap.

    The records are in the order of their starts.
    """
    covered_until = paid.start
    for record in records:
        if record.started_at > covered_until + _MAX_GAP:
            return covered_until
        # Only the last record has no end, or the last two if they have the same start. The end of
        # an earlier one is in a report that is missing, so it is unknown how long it applies.
        if record.ended_at is None and record.started_at != records[-1].started_at:
            return record.started_at
        covered_until = max(covered_until, record.ended_at or paid.end)
    if covered_until < paid.end - _MAX_GAP:
        return covered_until
    return None

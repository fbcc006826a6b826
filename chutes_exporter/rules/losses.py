"""Rules about ended instances: why they ended, whether they count, and what they lost."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec import structs

from chutes_exporter.api.records import (
    END_TEXTS,
    OLD_VERSION,
    PURGED,
    AuditInstance,
    ComputeRecord,
    UnixTime,
)
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.rules.instances import SECURED_AFTER
from chutes_exporter.rules.launch import activation_is_checked
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Self

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
"""A multiplier below this part of the one before was cut."""
_KEPT_FROM: Final = 5 * _PUBLIC_PENALTY
"""One from this part on was not cut, because others change in smaller steps. Between the two, that
is unknown: a bounty may have raised the multiplier before it was cut.
"""
_MAX_GAP: Final = 1.0
"""Seconds without a multiplier that rounding explains."""


def reason_of_text(text: str | None) -> str:
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


def end_reason(instance: AuditInstance, chute: Chute | None) -> str | None:
    """Return why an instance ended, None if that is unknown.

    A new version of a private chute of an integrated subnet ends all its instances, and the report
    gives no reason then, nor the mark of a valid end. Only the name or the factors of the chute,
    which is None if it is unknown, show whether it is one of these.
    """
    is_public = instance.billed_to is None
    if is_public or instance.deletion_reason or instance.valid_termination:
        return reason_of_text(instance.deletion_reason)
    is_redeployed = None if chute is None else _ends_all_at_once(chute)
    if is_redeployed is None:
        return None
    return REDEPLOYED if is_redeployed else NO_REASON


def _ends_all_at_once(chute: Chute) -> bool | None:
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


def ended_within_hour(instance: AuditInstance, report_end: float) -> bool:
    """Return whether an instance ended in the hour of the report with this end."""
    ended_at = instance.deleted_at
    return ended_at is not None and report_end - HOUR <= ended_at <= report_end


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
    reason_counts = OLD_VERSION in text or reason_of_text(text) in ("idle", "no_balance")
    if instance.valid_termination or reason_counts:
        return "counts"
    return "lost"


def is_failure(instance: AuditInstance, reason: str | None, chute: Chute | None) -> bool | None:
    """Return whether an instance failed: it was never active or lost its score, and nobody planned
    its end.

    None is unknown. Without a reason, the instance may be that of a job that is over. A reason of
    None is unknown: it may have been redeployed. ``chute`` is None if it is unknown, too.
    """
    outcome = outcome_of(instance)
    if outcome == "counts" or reason in _PLANNED:
        return False
    if reason == "miner":
        # A start may have been deleted because it failed.
        return None if outcome == "never_active" else False
    if reason in (None, NO_REASON) or _may_have_lost_race(instance, chute):
        return None
    return True


def _may_have_lost_race(instance: AuditInstance, chute: Chute | None) -> bool:
    """Return whether the service may have refused the activation of an instance, because others had
    filled its chute in the meantime.

    The service does not delete such an instance. It purges it as one that hangs, and no report
    tells the two apart. One that was not even verified did not come so far.
    """
    was_purged = (instance.deletion_reason or "").startswith(PURGED)
    if instance.activated_at is not None or instance.verified_at is None or not was_purged:
        return False
    return chute is None or activation_is_checked(chute) is not False


@dataclass(frozen=True)
class PaidTime:
    """The part of the past day in which an instance is paid, in Unix time."""

    start: float
    end: float

    @classmethod
    def of(cls, instance: AuditInstance, now: float) -> Self:
        """Return the time that the score of the 24 hours before now counts: from the creation,
        until the end or until billing stops.
        """
        end = min(instance.deleted_at or now, instance.stop_billing_at or now, now)
        start = max(instance.created_at, now - DAY)
        # A time that ended before the past day becomes an empty one.
        return cls(start, max(start, end))

    def seconds_of(self, record: ComputeRecord) -> float:
        """Return the seconds of this time in which a record applies."""
        end = min(self.end, record.ended_at or self.end)
        return max(0.0, end - max(self.start, record.started_at))

    def units_of(self, record: ComputeRecord) -> float | None:
        """Return the compute units of a record in this time, None if they are unknown."""
        seconds = self.seconds_of(record)
        return product(seconds, _multiplier(record)) if seconds else 0.0


@dataclass(frozen=True)
class History:
    """The multipliers of an instance, from several reports.

    Attributes:
        records: Its records, in the order of their starts. Two with the same start are both paid.
        open_multiplier: The multiplier of the last record in a report that was made before the
            instance ended. None without such a report.
        report_ends: The ends of the hours whose reports were joined.
    """

    records: Sequence[ComputeRecord]
    open_multiplier: float | None
    report_ends: Collection[float] = ()

    def units(self, activated_at: float, paid: PaidTime) -> list[float | None]:
        """Return the compute units of each record in the paid time. What is unknown is None."""
        units = [paid.units_of(record) for record in self.records]
        if not self.covers(paid) or self.may_lack_first(activated_at, paid):
            # Those of other records are unknown.
            units.append(None)
        return units

    def covers(self, paid: PaidTime) -> bool:
        """Return whether a record applies at each moment of the paid time."""
        covered_until = paid.start
        for record in self.records:
            if record.started_at > covered_until + _MAX_GAP:
                return False
            # Only the last record has no end.
            covered_until = max(covered_until, record.ended_at or paid.end)
        return covered_until >= paid.end - _MAX_GAP

    def may_lack_first(self, activated_at: float, paid: PaidTime) -> bool:
        """Return whether a record from before the activation may be missing.

        An instance on a GPU that is dearer than its chute needs has two records that begin at its
        creation, and both are paid. The first ends at its activation, so newer reports lack it.
        """
        if not self.records or activated_at <= paid.start + _MAX_GAP:
            return False
        if any(end - HOUR <= activated_at <= end for end in self.report_ends):
            return False
        return (self.records[0].ended_at or math.inf) > activated_at + _MAX_GAP


def join_records(reports: Mapping[float, Sequence[ComputeRecord]]) -> History:
    """Join the records of an instance in each report, by the end of its hour, the newest first.

    Several reports have the same records. The newest one knows when they ended. An older one may
    show their multiplier from before the end. A report has only the records that apply in its hour,
    so of two records with the same start, the newest report may lack the one that ended earlier.
    """
    all_records = chain.from_iterable(reports.values())
    last_start = max((record.started_at for record in all_records), default=None)
    open_multiplier = None
    joined: Counter[ComputeRecord] = Counter()
    for report_end, records in reports.items():
        newer_starts = {record.started_at for record in joined}
        found = []
        for record in records:
            if record.ended_at is not None:
                found.append(record)
                continue
            # The instance had not ended yet when this report was made.
            is_last = record.started_at == last_start
            if is_last:
                # Until its end, a record keeps its multiplier, so all reports with it agree.
                open_multiplier = _multiplier(record)
            if record.started_at not in newer_starts:
                # The report in which another record ends is missing. It applied until this one at
                # least.
                known_end = UnixTime(max(report_end, record.started_at))
                found.append(record if is_last else structs.replace(record, ended_at=known_end))
        # A report may have two equal records, which are both paid.
        joined |= Counter(found)
    # Of two with the same start, the one that ends later is the last.
    in_order = sorted(
        joined.elements(), key=lambda record: (record.started_at, record.ended_at or math.inf)
    )
    return History(in_order, open_multiplier, tuple(reports))


Precision = Literal["exact", "about", "at_least"]
"""Whether a loss is exact, an estimate, or a lower bound."""


@dataclass(frozen=True)
class Loss:
    """What the score lost by the end of an instance.

    Attributes:
        units: Compute units of the past day. None if nothing is known of them.
        precision: Without units, they are at least 0.
        is_last_of_chute: Whether its miner deleted it as the last active one of its chute.
    """

    units: float | None
    precision: Precision
    is_last_of_chute: bool | None = False


def loss_of(instance: AuditInstance, history: History, now: float) -> Loss:
    """Return the compute units of the 24 hours before now that an instance lost by its end.

    If a miner deletes the last active instance of a chute on the platform, the service first
    multiplies the multiplier of the open record by 0 (private) or 0.1. So a public one loses nine
    tenths of the units of that record, even if it counts.
    """
    if instance.activated_at is None:
        # It never had a score.
        return Loss(0.0, "exact")
    paid = PaidTime.of(instance, now)
    lost = history.units(instance.activated_at, paid) if outcome_of(instance) == "lost" else []
    cut, precision = _cut(instance, history)
    if cut:
        # The history is by the multiplier after the cut. What the cut took is lost as well.
        lost.append(product(cut, paid.seconds_of(history.records[-1])))
    units = total(filter(None, lost))
    if None in (units, *lost):
        precision = "at_least"
    if not units and precision == "at_least":
        units = None
    return Loss(units, precision, None if cut is None else cut > 0)


def _multiplier(record: ComputeRecord) -> float | None:
    multiplier = record.compute_multiplier
    if multiplier is None or multiplier < 0:
        return None
    return multiplier


def _cut(instance: AuditInstance, history: History) -> tuple[float | None, Precision]:
    """Return what the end of an instance took from its last multiplier, None if that is unknown.
    Only a deletion by its miner takes something.

    If no report shows the multiplier before, the last two records decide. That of a private
    instance is cut to 0, which does not show what was cut, so the record before is the best
    estimate. A public one whose last multiplier is far below the one before was cut to a tenth.
    """
    if reason_of_text(instance.deletion_reason) != "miner":
        return 0.0, "exact"
    multipliers: list[float | None] = [None, None, *map(_multiplier, history.records)]
    previous, last = multipliers[-2:]
    if last is None:
        return None, "at_least"
    if history.open_multiplier is not None:
        return max(0.0, history.open_multiplier - last), "exact"
    if instance.billed_to is None:
        return _public_cut(last, previous)
    if last > 0:
        return 0.0, "exact"
    return previous, "at_least" if previous is None else "about"


def _public_cut(last: float, previous: float | None) -> tuple[float | None, Precision]:
    if previous is not None and last < _CUT_BELOW * previous:
        return last / _PUBLIC_PENALTY - last, "exact"
    if previous is not None and last >= _KEPT_FROM * previous:
        return 0.0, "exact"
    # Nothing tells whether the last multiplier was cut.
    return None, "at_least"

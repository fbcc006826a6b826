"""The ended instances of miners, from the validator's hourly reports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from chutes_exporter.duration import HOUR
from chutes_exporter.rules.launch import gpus_of_instance
from chutes_exporter.rules.losses import (
    end_reason,
    ended_within_hour,
    is_failure,
    join_records,
    loss_of,
    outcome_of,
)
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.api.records import AuditInstance, Chute, ComputeRecord, HourlyAudit
    from chutes_exporter.rules.losses import History, Loss, Outcome


@dataclass(frozen=True)
class End:
    """An instance that ended.

    Attributes:
        chute_record: Its chute, None if that is unknown.
        private: Whether a user was billed for it, or its job.
        reason: Why it ended, None if only the name of its chute would say whether it was
            redeployed.
        text: The service's text about the reason.
        is_failure: Whether it failed, and was not ended by an update, a scale-down or the like.
            None if no report tells that.
        outcome: What became of its score.
        loss: What its score lost.
    """

    instance_id: str
    hotkey: str
    chute_id: str | None
    chute_record: Chute | None
    private: bool
    created_at: float
    activated_at: float | None
    ended_at: float
    reason: str | None
    text: str | None
    is_failure: bool | None
    outcome: Outcome
    loss: Loss

    @property
    def chute(self) -> str | None:
        """The name of its chute, None if it is unknown."""
        return None if self.chute_record is None else self.chute_record.name

    @property
    def gpus(self) -> int | None:
        """The number of its GPUs, None if it is unknown."""
        return gpus_of_instance(self.chute_record)

    @property
    def may_be_costly_deletion(self) -> bool:
        """Whether its miner deleted it, and lost something by that or may have."""
        return self.reason == "miner" and (self.outcome == "lost" or self.loss.units != 0)


@dataclass(frozen=True)
class LostUnits:
    """The compute units that several ends lost.

    Attributes:
        known: Those that are known. They are a lower bound while a loss is unknown.
        unknown: How many ends lost more than is known, or may have.
        are_about: Whether one of the losses is an estimate.
    """

    known: float
    unknown: int
    are_about: bool


def sum_of_losses(ends: Iterable[End]) -> LostUnits:
    """Return what several ends lost. Units that are too many for a number are unknown."""
    ends = list(ends)
    known = total(end.loss.units or 0.0 for end in ends)
    precisions = [end.loss.precision for end in ends]
    if known is None:
        return LostUnits(0.0, len(ends), are_about=False)
    return LostUnits(known, precisions.count("at_least"), are_about="about" in precisions)


class Ledger:
    """The ended instances of all miners in some hourly reports.

    Args:
        reports: The reports.
        chutes: The known chutes.

    Attributes:
        end: The end of the newest hour, 0 without a report. Lost units are those of the 24 hours
            before.
    """

    def __init__(self, reports: Iterable[HourlyAudit], chutes: Iterable[Chute] = ()) -> None:
        self._reports = sorted(reports, key=lambda report: report.end, reverse=True)
        self._chutes: dict[str | None, Chute] = {chute.chute_id: chute for chute in chutes}
        self.end = self._reports[0].end if self._reports else 0.0
        # Of several records of an instance, that of the newest report counts, which is the first.
        self._ended: dict[str, AuditInstance] = {}
        for report in self._reports:
            for instance in report.instances:
                if ended_within_hour(instance, report.end):
                    self._ended.setdefault(instance.instance_id, instance)

    @cached_property
    def _histories(self) -> dict[str, History]:
        """The multipliers of the instances, by id. One that no report has gets an empty history."""
        # The records of each instance, by the end of the report that has them.
        records: dict[str, dict[float, list[ComputeRecord]]] = {}
        for instance_id in self._ended:
            records[instance_id] = {report.end: [] for report in self._reports}
        for report in self._reports:
            for record in report.multipliers:
                if record.instance_id in records:
                    records[record.instance_id][report.end].append(record)
        return {instance_id: join_records(by_end) for instance_id, by_end in records.items()}

    def missing_hours(self, hours: int) -> int:
        """Return how many of the newest hours lack a report, or have one that lacks a record.

        Without any report, that is all hours.
        """
        first = self.end - HOUR * hours
        complete = [one.end for one in self._reports if one.complete and one.end > first]
        return hours - len(set(complete))

    def needs_report(self, hours: int, end: float) -> bool:
        """Return whether the report of the hour with this end may tell what instances lost that
        ended in the newest hours.

        Any report since an instance was created may have a multiplier of it. That matters only if
        it lost its score, or its miner deleted it.
        """
        return any(
            one.created_at < end and (one.outcome == "lost" or one.reason == "miner")
            for one in self.ends(hours)
        )

    def ends(self, hours: int) -> list[End]:
        """Return the known ends of the newest hours, with what each of them lost."""
        ends = []
        for instance in self.ended_instances(hours):
            chute = self._chutes.get(instance.chute_id)
            reason = end_reason(instance, chute)
            end = End(
                instance_id=instance.instance_id,
                hotkey=instance.miner_hotkey,
                chute_id=instance.chute_id,
                chute_record=chute,
                private=instance.billed_to is not None,
                created_at=instance.created_at,
                activated_at=instance.activated_at,
                # All instances in the ledger were deleted, so there is a time.
                ended_at=instance.deleted_at or 0.0,
                reason=reason,
                text=instance.deletion_reason,
                is_failure=is_failure(instance, reason, chute),
                outcome=outcome_of(instance),
                loss=loss_of(instance, self._histories[instance.instance_id], self.end),
            )
            ends.append(end)
        return ends

    def ends_of(self, hotkey: str, hours: int) -> list[End]:
        """Return those of a miner."""
        return [end for end in self.ends(hours) if end.hotkey == hotkey]

    def ended_instances(self, hours: int) -> list[AuditInstance]:
        """Return the records of the known instances that ended in the newest hours."""
        start = self.end - HOUR * hours
        # All instances in the ledger have a time of deletion, so 0 is never used.
        return [one for one in self._ended.values() if (one.deleted_at or 0.0) >= start]


NO_REPORTS = Ledger(())
"""The ledger while no report is known."""

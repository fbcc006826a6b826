"""Why instances ended, and what that cost: the validator's audit reports of the past day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chutes_exporter.collectors.base import Answers, Collector, Miners, Part, Samples
from chutes_exporter.duration import DAY_HOURS
from chutes_exporter.feeds.definitions import AUDIT_REPORT, CHUTES
from chutes_exporter.fleet.answers import by_field
from chutes_exporter.fleet.ends import sum_of_losses
from chutes_exporter.fleet.failures import FAILURE_HOURS
from chutes_exporter.rules.losses import END_REASONS, NO_REASON, OUTCOMES, REDEPLOYED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.fleet.ends import End
    from chutes_exporter.metric import Metric

_WINDOWS: Final = {"1h": 1, "6h": 6, "1d": DAY_HOURS}
"""Hours of each window."""
_OUTCOMES_BY_CHUTE: Final = (*OUTCOMES, "replaced", "unclear")
# What is unknown because of a missing record, the ledger decides.
_PART = Part(AUDIT_REPORT, also=(CHUTES,), scope="miner")
_metric = _PART.metric

REPORT_END = _metric(
    "chutes_audit_report_end_timestamp_seconds",
    "End of the hour that the newest audit report of the validator covers. The windows of ended "
    "instances end then.",
)
KNOWN_HOURS = _metric(
    "chutes_audit_reports_known",
    "Number of the 24 hours before that end whose report is known. After a start, the exporter "
    "reads the older reports within some minutes.",
)
ENDED = _metric(
    "chutes_miner_window_ended_instances",
    "Instances of the miner that ended in the newest audited hour, in 6 or 24 hours, by reason "
    "(see docs/earnings.md) and outcome: counts (it keeps its score), lost, never_active.",
    ("hotkey", "window", "reason", "outcome"),
)
LOST = _metric(
    "chutes_miner_window_lost_compute_units",
    "Compute units that the day's score lacks by instances that ended in the newest audited hour,"
    " in 6 or 24 hours, by reason. A lower bound unless chutes_miner_unknown_losses is 0.",
    ("hotkey", "window", "reason"),
)
TOTAL_LOST = _metric(
    "chutes_miner_window_total_lost_compute_units",
    "The same over all reasons, with the ends whose reason is not known.",
    ("hotkey", "window"),
)
UNKNOWN_LOSSES = _metric(
    "chutes_miner_unknown_losses",
    "Ended instances that lost more than is known, or may have. With 0, the lost compute units are "
    "all. Absent if the report of an hour is not known.",
    ("hotkey", "window"),
)
CHUTE_ENDED = _metric(
    "chutes_miner_chute_window_ended_instances",
    "Instances of the miner that ended in the newest audited hour, in 6 or 24 hours, by chute and"
    " outcome: counts, lost, never_active, replaced (no failure), unclear (maybe no failure).",
    ("hotkey", "window", "chute_id", "outcome"),
)
CHUTE_LOST = _metric(
    "chutes_miner_chute_window_lost_compute_units",
    "The lost compute units by chute. Chutes without an ended instance are left out.",
    ("hotkey", "window", "chute_id"),
)
PLANNED_START_END = _metric(
    "chutes_instance_planned_start_end",
    "1 for a never active instance of a watched miner that its owner, an update, a scale-down, "
    "maintenance or the like ended in the 6 hours before the newest report. No failure of its "
    "server.",
    ("hotkey", "instance_id"),
)
UNKNOWN: Final = "unknown"
COUNTED_REASONS: Final = (*END_REASONS, UNKNOWN)
# The page adds these two, because they need what earlier reports had.
COUNTED_ENDS = _metric(
    "chutes_miner_instance_ends_total",
    "Instances of the watched miner that ended, counted when their report is first read, by the "
    "reasons and outcomes of chutes_miner_window_ended_instances. Reports from before the start "
    "do not count.",
    ("hotkey", "reason", "outcome"),
)
COUNTED_LOST = _metric(
    "chutes_miner_observed_lost_compute_units_total",
    "Compute units that the score of a day lost by the ends of chutes_miner_instance_ends_total. A "
    "loss that is not known adds nothing, until a report of the next 24 hours shows it.",
    ("hotkey", "reason"),
)


@dataclass(frozen=True)
class _Window:
    """A miner's window of hours.

    Attributes:
        labels: The miner, and the name of the window.
        is_complete: Whether the reports of all its hours are known.
    """

    labels: tuple[str, str]
    is_complete: bool
    out: Samples

    def add_ended(
        self, metric: Metric, outcomes: Sequence[str], possible: Iterable[str], label: str
    ) -> None:
        """Add how many ends have each of the possible outcomes, if all ends are known."""
        if self.is_complete:
            self.out.add_counts(metric, outcomes, possible, *self.labels, label)

    def add_lost(self, metric: Metric, ends: Iterable[End], *labels: str) -> None:
        """Add what ends lost, unless it is a lower bound of 0, which says nothing."""
        lost = sum_of_losses(ends)
        if lost.known or (self.is_complete and not lost.unknown):
            self.out.add(metric, lost.known, *self.labels, *labels)


@_PART.function
def ended_instances(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add which reports are known, and the ends and losses of a watched miner.

    While one of its reports is not known, a window has no numbers of ends, because those of the
    other reports would look like all. Losses are lower bounds then.
    """
    ledger = answers.joined.ledger
    # The first two are the same for each miner, and ``out`` takes them once.
    out.add(REPORT_END, ledger.end)
    out.add(KNOWN_HOURS, DAY_HOURS - ledger.missing_hours(DAY_HOURS))
    for end in ledger.ends_of(miners.hotkey, FAILURE_HOURS):
        if end.outcome == "never_active" and end.is_failure is False:
            out.add(PLANNED_START_END, 1, end.hotkey, end.instance_id)
    for name, hours in _WINDOWS.items():
        ends = ledger.ends_of(miners.hotkey, hours)
        window = _Window((miners.hotkey, name), not ledger.missing_hours(hours), out)
        window.add_lost(TOTAL_LOST, ends)
        if window.is_complete:
            out.add(UNKNOWN_LOSSES, sum_of_losses(ends).unknown, *window.labels)
        _add_reasons(window, ends)
        _add_chutes(window, ends)


def _add_reasons(window: _Window, ends: Sequence[End]) -> None:
    """Add the ends and losses by reason, also 0 for a reason without one."""
    one_is_unclear = any(end.reason is None for end in ends)
    for reason in END_REASONS:
        if one_is_unclear and reason in (NO_REASON, REDEPLOYED):
            # Only the name of its chute would show which of the two an unclear end has.
            continue
        of_reason = [end for end in ends if end.reason == reason]
        window.add_ended(ENDED, [end.outcome for end in of_reason], OUTCOMES, reason)
        window.add_lost(LOST, of_reason, reason)


def _add_chutes(window: _Window, ends: Sequence[End]) -> None:
    """Add the ends and losses by chute.

    Nothing is added if the chute of an end is unknown, because it may belong to any chute.
    """
    by_chute = by_field(ends, "chute_id")
    if None in by_chute:
        return
    for chute_id, of_chute in by_chute.items():
        outcomes = [_outcome_by_chute(end) for end in of_chute]
        window.add_ended(CHUTE_ENDED, outcomes, _OUTCOMES_BY_CHUTE, chute_id)
        window.add_lost(CHUTE_LOST, of_chute, chute_id)


def _outcome_by_chute(end: End) -> str:
    """Return the outcome of an end.

    An end that lost its score, or was never active, and is no failure was only replaced.
    """
    if end.is_failure is None:
        return "unclear"
    if end.is_failure or end.outcome == "counts":
        return end.outcome
    return "replaced"


COLLECTOR = Collector(
    "ended_instances",
    "why instances ended in the past hour and day, and the compute units that they lost",
    (_PART,),
)

"""Why instances ended, and what that cost: the validator's audit reports of the past day."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from chutes_exporter.collectors.base import Answers, Collector, Miners, Part, Samples, metric_of
from chutes_exporter.duration import DAY_HOURS
from chutes_exporter.feeds.definitions import AUDIT_REPORT, CHUTES
from chutes_exporter.fleet.ends import Ledger
from chutes_exporter.fleet.failures import FAILURE_HOURS
from chutes_exporter.rules.losses import END_REASONS, NO_REASON, OUTCOMES, REDEPLOYED
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.fleet.ends import End
    from chutes_exporter.metric import Metric

_WINDOWS: Final = {"1h": 1, "6h": 6, "1d": DAY_HOURS}
"""Hours of each window."""
_REPLACED: Final = "replaced"
_UNCLEAR: Final = "unclear"
_OUTCOMES_BY_CHUTE: Final = (*OUTCOMES, _REPLACED, _UNCLEAR)
# What is unknown because of a missing record, the ledger decides.
_metric = metric_of(AUDIT_REPORT, whole=False)

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
    "Instances of the miner that ended in the newest audited hour, in 6 or 24 hours, by reason and "
    "outcome: counts (it keeps its score), lost, never_active. docs/earnings.md explains the "
    "reasons. Absent if the report of an hour is not known.",
    ("hotkey", "window", "reason", "outcome"),
)
LOST = _metric(
    "chutes_miner_window_lost_compute_units",
    "Compute units that the score of the past day lacks because of instances that ended in the "
    "newest audited hour, or in 24 hours, by reason, also if they were the last active ones of "
    "their chutes. Absent if one is unknown. If no report shows the last multiplier of such a "
    "private instance, the one before counts, which can be lower.",
    ("hotkey", "window", "reason"),
)
TOTAL_LOST = _metric(
    "chutes_miner_window_total_lost_compute_units",
    "Sum of chutes_miner_window_lost_compute_units over all reasons. Absent while the reason or "
    "the loss of an instance that ended is unknown, because a part would look like all.",
    ("hotkey", "window"),
)
CHUTE_ENDED = _metric(
    "chutes_miner_chute_window_ended_instances",
    "Instances of the miner that ended in the newest audited hour, in 6 or 24 hours, by chute and "
    "outcome: counts, lost, never_active, replaced (lost or never active by an update, a "
    "scale-down, maintenance or the like, which is no failure), or unclear (lost or never active, "
    "and no report tells whether it failed: the service may have refused the activation, because "
    "others had filled the chute, or a job was over). Chutes without one are left out.",
    ("hotkey", "window", "chute_id", "outcome"),
)
CHUTE_LOST = _metric(
    "chutes_miner_chute_window_lost_compute_units",
    "Compute units that the score of the past day lacks because of instances that ended in the "
    "newest audited hour, or in 24 hours, by chute. Chutes without an ended instance are left out.",
    ("hotkey", "window", "chute_id"),
)
PLANNED_START_END = _metric(
    "chutes_instance_planned_start_end",
    "1 for an instance of a watched miner that ended in the 6 hours before the newest report, was "
    "never active, and was ended by its owner, an update, a scale-down, maintenance or the like. "
    "That is no failure of its server.",
    ("hotkey", "instance_id"),
)
_METRICS: Final = (
    *(REPORT_END, KNOWN_HOURS, TOTAL_LOST),
    *(ENDED, LOST, CHUTE_ENDED, CHUTE_LOST, PLANNED_START_END),
)


def _collect(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add which reports are known, and the ends and losses of each exported miner.

    A window is left out while one of its reports is not known, because the ends of the other
    reports would look like all ends.
    """
    reports = answers[AUDIT_REPORT]
    # The names of chutes show which ends were redeployments. Without a key, they are not known.
    chutes = answers.get(CHUTES, [])
    ledger = Ledger(reports.hours, chutes)
    out.add(REPORT_END, ledger.end)
    out.add(KNOWN_HOURS, DAY_HOURS - len(ledger.missing_hours(DAY_HOURS)))
    for end in ledger.ends(FAILURE_HOURS):
        is_planned_start = end.outcome == "never_active" and end.is_failure is False
        if is_planned_start and end.hotkey in miners.watched:
            out.add(PLANNED_START_END, 1, end.hotkey, end.instance_id)
    for window, hours in _WINDOWS.items():
        if ledger.missing_hours(hours):
            continue
        for hotkey, ends in _ends_by_miner(ledger.ends(hours), miners).items():
            # An answer from before a reload may lack the ends of hotkeys that the reload added.
            # None means that it has those of all miners.
            if reports.hotkeys is None or hotkey in reports.hotkeys:
                _add_reasons(ends, (hotkey, window), out)
                _add_chutes(ends, (hotkey, window), out)


def _ends_by_miner(ends: Iterable[End], miners: Miners) -> dict[str, list[End]]:
    """Return the ends of exported miners, and an empty list for watched ones without any."""
    by_miner: dict[str, list[End]] = {hotkey: [] for hotkey in sorted(miners.watched)}
    for end in ends:
        if miners.exports(end.hotkey):
            by_miner.setdefault(end.hotkey, []).append(end)
    return by_miner


def _add_reasons(ends: Sequence[End], hotkey_and_window: tuple[str, str], out: Samples) -> None:
    """Add the ends and losses of a miner in a window by reason, also 0 for a reason without one.

    It is unclear why an instance ended if only the name of its chute would show whether the chute
    was redeployed.
    """
    one_is_unclear = any(end.reason is None for end in ends)
    for reason in END_REASONS:
        if one_is_unclear and reason in (NO_REASON, REDEPLOYED):
            # An unclear end has one of these two reasons.
            continue
        labels = (*hotkey_and_window, reason)
        of_reason = [end for end in ends if end.reason == reason]
        outcomes = [end.outcome for end in of_reason]
        _add_outcomes(ENDED, outcomes, OUTCOMES, labels, out)
        out.add(LOST, total(end.lost_units for end in of_reason), *labels)
    if not one_is_unclear:
        # This is the sum over all reasons, so it is left out where a reason was.
        out.add(TOTAL_LOST, total(end.lost_units for end in ends), *hotkey_and_window)


def _add_chutes(ends: Sequence[End], hotkey_and_window: tuple[str, str], out: Samples) -> None:
    """Add the ends and losses of a miner in a window by chute.

    Nothing is added if the chute of an end is unknown, because it may belong to any chute.
    """
    by_chute: dict[str, list[End]] = defaultdict(list)
    for end in ends:
        if end.chute_id is None:
            return
        by_chute[end.chute_id].append(end)
    for chute_id, of_chute in by_chute.items():
        labels = (*hotkey_and_window, chute_id)
        outcomes = [_outcome_by_chute(end) for end in of_chute]
        _add_outcomes(CHUTE_ENDED, outcomes, _OUTCOMES_BY_CHUTE, labels, out)
        out.add(CHUTE_LOST, total(end.lost_units for end in of_chute), *labels)


def _outcome_by_chute(end: End) -> str:
    """Return the outcome of an end.

    An end that lost its score, or was never active, and is no failure was only replaced.
    """
    if end.is_failure is None:
        return _UNCLEAR
    if end.is_failure or end.outcome == "counts":
        return end.outcome
    return _REPLACED


def _add_outcomes(
    metric: Metric,
    outcomes: Iterable[str],
    possible_outcomes: Iterable[str],
    labels: tuple[str, ...],
    out: Samples,
) -> None:
    """Add how many ends have each of the possible outcomes, also 0 for one that none has."""
    counts = Counter(outcomes)
    for outcome in possible_outcomes:
        out.add(metric, counts[outcome], *labels, outcome)


COLLECTOR = Collector(
    "ended_instances",
    "why instances ended in the past hour and day, and the compute units that they lost",
    (Part((AUDIT_REPORT,), _METRICS, _collect, also=(CHUTES,)),),
    watched_only=True,
)

"""Counters of ended instances, each counted when its audit report is first seen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter

from chutes_exporter.duration import DAY, DAY_HOURS, HOUR
from chutes_exporter.feeds.definitions import AUDIT_REPORT
from chutes_exporter.fleet.ends import Ledger
from chutes_exporter.metric import Metric
from chutes_exporter.rules.losses import END_REASONS, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from chutes_exporter.api.records import Chute
    from chutes_exporter.feeds.reports import Reports
    from chutes_exporter.fleet.ends import End

ENDS = Metric(
    "chutes_miner_instance_ends_total",
    "Instances of the watched miner that ended, by reason and outcome like "
    "chutes_miner_window_ended_instances, each counted once, when its audit report is first read. "
    "Those of reports that were there at the start of the exporter do not count, so that "
    "increase() is right over any range without a restart. The reason is unknown if only the "
    "chute's name would tell it. Only with the collector ended_instances.",
    ("hotkey", "reason", "outcome"),
    AUDIT_REPORT.endpoint.source,
)
LOST = Metric(
    "chutes_miner_observed_lost_compute_units_total",
    "Compute units that the score of a day lost by the ends of chutes_miner_instance_ends_total. "
    "A loss that is not known adds nothing. If a report of the day after shows it, it is added "
    "then.",
    ("hotkey", "reason"),
    AUDIT_REPORT.endpoint.source,
)
REASONS: Final = (*END_REASONS, "unknown")


@dataclass
class _Counted:
    """An end that was counted, with the part of its lost units that was."""

    ended_at: float
    reason: str
    units: float = 0.0


class EndCounters:
    """Counts the ends of watched miners. It outlives reloads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ends = ENDS.register(Counter, registry)
        self._lost = LOST.register(Counter, registry)
        # The ends of the hours that do not count, by hotkey: those known when it was watched, and
        # those of the first list of reports after that.
        self._known_hours: Mapping[str, frozenset[float]] = {}
        self._old_hours: dict[str, frozenset[float]] = {}
        self._counted: dict[str, _Counted] = {}
        self._shown: frozenset[str] = frozenset()
        self._origin: tuple[object, ...] = ()

    def watch(self, hotkeys: Iterable[str], reports: Reports | None) -> None:
        """Count the ends of these miners from now on, and forget the others.

        For a new one, nothing counts that stands in the present reports.
        """
        hours = frozenset(report.end for report in reports.hours) if reports else frozenset()
        self._known_hours = {one: self._known_hours.get(one, hours) for one in hotkeys}

    def count(self, reports: Reports | None, chutes: Sequence[Chute]) -> None:
        """Count what is new in the reports. It is called for each page, by one thread at a time."""
        # A reload in another thread replaces this, and never changes it.
        watched = self._known_hours
        self._show(frozenset(watched))
        origin = (watched, reports, chutes)
        is_counted = list(map(id, origin)) == list(map(id, self._origin))
        if reports is None or is_counted:
            return
        self._origin = origin
        for hotkey, known_hours in watched.items():
            # Reports from before a reload may lack a miner that is new.
            if reports.hotkeys is None or hotkey in reports.hotkeys:
                self._old_hours.setdefault(hotkey, known_hours | reports.first_listed)
        ledger = Ledger(reports.hours, chutes)
        # One more hour, because the oldest ends may be those of a report that was late.
        for end in ledger.ends(DAY_HOURS + 1):
            if end.hotkey in watched and self._is_new(end):
                self._add(end)
        # No report has the others any more.
        self._counted = {
            instance_id: counted
            for instance_id, counted in self._counted.items()
            if counted.ended_at > ledger.end - 2 * DAY
        }

    def _is_new(self, end: End) -> bool:
        """Return whether no report of an hour that does not count can have an end."""
        old_hours = self._old_hours.get(end.hotkey)
        if old_hours is None:
            return False
        return not any(hour - HOUR <= end.ended_at <= hour for hour in old_hours)

    def _add(self, end: End) -> None:
        """Count an end if it is new, and what is newly known of its loss."""
        counted = self._counted.get(end.instance_id)
        if counted is None:
            counted = _Counted(end.ended_at, end.reason or "unknown")
            self._counted[end.instance_id] = counted
            self._ends.labels(end.hotkey, counted.reason, end.outcome).inc()
        # The day that a loss is about moves on, so that it can also become less.
        more = (end.lost_units or 0.0) - counted.units
        if more > 0:
            counted.units += more
            self._lost.labels(end.hotkey, counted.reason).inc(more)

    def _show(self, watched: frozenset[str]) -> None:
        """Show all counters of these miners, from 0, and none of others."""
        for hotkey in watched - self._shown:
            for reason, outcome in product(REASONS, OUTCOMES):
                self._ends.labels(hotkey, reason, outcome)
                self._lost.labels(hotkey, reason)
        for hotkey in self._shown - watched:
            self._ends.remove_by_labels({"hotkey": hotkey})
            self._lost.remove_by_labels({"hotkey": hotkey})
            self._old_hours.pop(hotkey, None)
        self._shown = watched

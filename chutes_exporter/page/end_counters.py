"""Counts ended instances, each once, when its audit report is first seen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter

from chutes_exporter.collectors.ended_instances import (
    COUNTED_ENDS,
    COUNTED_LOST,
    COUNTED_REASONS,
    UNKNOWN,
)
from chutes_exporter.duration import DAY, DAY_HOURS, HOUR
from chutes_exporter.rules.losses import OUTCOMES

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

    from chutes_exporter.feeds.reports import Reports
    from chutes_exporter.fleet.ends import End, Ledger


@dataclass
class _Counted:
    """An end that was counted, and how many of its lost units were."""

    ended_at: float
    reason: str
    units: float = 0.0


class EndCounters:
    """The counters of the ended instances of watched miners. They outlive reloads."""

    def __init__(self) -> None:
        # They are on the page with their collector, and not with the exporter's own metrics.
        registry = CollectorRegistry()
        self._ends = COUNTED_ENDS.register(Counter, registry)
        self._lost = COUNTED_LOST.register(Counter, registry)
        self._counted: dict[str, _Counted] = {}
        # The ends of the hours that do not count for each miner, because their reports were known
        # or listed when its counters began.
        self._old_hours: dict[str, frozenset[float]] = {}

    def families(self) -> list[Family]:
        """Return the counters of the watched miners."""
        return [*self._lost.collect(), *self._ends.collect()]

    def watch(self, watched: frozenset[str], reports: Reports) -> None:
        """Begin the counters of miners that are watched now, and end those of the others."""
        for hotkey in sorted(watched - self._old_hours.keys()):
            self._old_hours[hotkey] = reports.first_listed.union(one.end for one in reports.hours)
            # All counters begin with 0, so that increase() sees the first end.
            for reason in COUNTED_REASONS:
                self._lost.labels(hotkey, reason)
            for labels in product(COUNTED_REASONS, OUTCOMES):
                self._ends.labels(hotkey, *labels)
        for hotkey in self._old_hours.keys() - watched:
            del self._old_hours[hotkey]
            self._ends.remove_by_labels({"hotkey": hotkey})
            self._lost.remove_by_labels({"hotkey": hotkey})

    def count(self, ledger: Ledger) -> None:
        """Count the ends that are new in the reports, and what is newly known of their losses."""
        # An hour more than a day, for a late report of the oldest one.
        for end in ledger.ends(DAY_HOURS + 1):
            self._count(end)
        # No report has older ends.
        counted = self._counted.items()
        first = ledger.end - 2 * DAY
        self._counted = {key: one for key, one in counted if one.ended_at > first}

    def _count(self, end: End) -> None:
        """Count an end of a watched miner once, and what is newly known of its loss."""
        old_hours = self._old_hours.get(end.hotkey)
        # An end exactly at a full hour stands in two reports.
        if old_hours is None or any(hour - HOUR <= end.ended_at <= hour for hour in old_hours):
            return
        counted = self._counted.get(end.instance_id)
        if counted is None:
            counted = _Counted(end.ended_at, end.reason or UNKNOWN)
            self._counted[end.instance_id] = counted
            self._ends.labels(end.hotkey, counted.reason, end.outcome).inc()
        # The day that a loss is about moves on, so that a loss may also become less.
        more = (end.loss.units or 0.0) - counted.units
        if more > 0:
            counted.units += more
            self._lost.labels(end.hotkey, counted.reason).inc(more)

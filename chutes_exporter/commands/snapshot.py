"""Asks once for a command about miners: samples, fleets, and what is not known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from chutes_exporter.commands.reports import read_reports
from chutes_exporter.fleet.failures import FAILURE_HOURS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.gaps import find_gaps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.api.records import HourlyAudit
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.page.exposition import States
    from chutes_exporter.page.gaps import NotKnown

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds that a command waits for the answers."""


@dataclass(frozen=True)
class Snapshot:
    """What the answers of one moment say.

    Attributes:
        samples: Labels and value of each sample, by the metric's name.
        now: Unix time by the API's clock, to which the times in answers belong.
        counted: Hotkeys of the miners for which the state of every GPU is known.
        fleets: The fleets of the watched miners, by hotkey.
    """

    samples: Mapping[str, list[tuple[dict[str, str], float]]]
    now: float
    gaps: list[NotKnown]
    states: States
    counted: set[str]
    fleets: Mapping[str, Fleet]

    def value(self, metric: str, **labels: str) -> float | None:
        """Return the value of the first sample without another value of these labels, None if it
        is unknown.
        """
        for labels_of_sample, value in self.samples.get(metric, ()):
            if all(labels.get(name, text) == text for name, text in labels_of_sample.items()):
                return value
        return None

    def records(self, feed: Feed[list[T]]) -> list[T]:
        """Return the known records of a feed about the platform."""
        state = self.states.get(feed)
        return [] if state is None or state.snapshot is None else state.snapshot.answer.value


async def take_snapshot(
    settings: Settings, metrics: frozenset[str], feeds: Iterable[Feed[Any]] | None = None
) -> Snapshot:
    """Request once what the metrics need, and some feeds, by default those of the fleets with the
    newest audit reports.

    What is not known becomes a gap of the snapshot.
    """
    reports: list[HourlyAudit] = []
    report_gaps: list[NotKnown] = []
    async with Exporter(settings) as exporter:
        if feeds is None:
            reports, report_gaps = await read_reports(exporter.client, settings, FAILURE_HOURS)
        collected = await exporter.samples(metrics, feeds, timeout=PATIENCE, reports=reports)
        now = exporter.client.api_clock()
    gaps, counted = find_gaps(collected, settings, now)
    gaps += report_gaps
    return Snapshot(
        samples=collected.samples,
        now=now,
        gaps=gaps,
        states=collected.states,
        counted=counted,
        fleets=collected.fleets,
    )

"""Asks once for a command about miners: samples, fleets, and what is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chutes_exporter.commands.reports import read_reports
from chutes_exporter.fleet.failures import FAILURE_HOURS
from chutes_exporter.page.exporter import Exporter, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.api.records import HourlyAudit
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.page.gaps import NotKnown

PATIENCE = 120.0
"""Seconds that a command waits for the answers."""


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
        snapshot = await exporter.snapshot(metrics, feeds, timeout=PATIENCE, reports=reports)
    snapshot.gaps.extend(report_gaps)
    return snapshot

"""Asks once for a command about miners: answers and hourly reports, and what is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chutes_exporter.api.errors import ApiError
from chutes_exporter.duration import DAY, HOUR, MINUTE, utc_text
from chutes_exporter.feeds.reports import fetch_report, list_reports
from chutes_exporter.fleet.ends import Ledger
from chutes_exporter.fleet.failures import FAILURE_HOURS
from chutes_exporter.page.exporter import Exporter, Snapshot
from chutes_exporter.page.gaps import UPDATE, NotKnown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.api.records import Chute, HourlyAudit
    from chutes_exporter.config import Settings

PATIENCE = 120.0
"""Seconds that a command waits for the answers."""
_MADE_WITHIN: Final = 10 * MINUTE
"""Seconds after the hour within which the service has always published its report."""
_WAIT: Final = "Just after a full hour, try again in two minutes. Otherwise it may never come."


async def take_snapshot(settings: Settings, metrics: frozenset[str]) -> Snapshot:
    """Request once what the metrics and the fleets need, with the newest audit reports.

    The gaps of the snapshot are all that is not known.
    """
    async with Exporter(settings) as exporter:
        reports, gaps = await read_reports(exporter.client, settings, FAILURE_HOURS)
        return await exporter.snapshot(metrics, timeout=PATIENCE, reports=reports, gaps=gaps)


async def read_reports(
    client: ChutesClient, settings: Settings, hours: int, chutes: Sequence[Chute] | None = None
) -> tuple[list[HourlyAudit], list[NotKnown]]:
    """Return the reports of the newest hours, and what could not be read.

    With the known chutes, it also reads the listed older reports that may tell a loss. The names of
    chutes show which ends were redeployments.
    """
    reports: list[HourlyAudit] = []
    gaps: list[NotKnown] = []
    try:
        listed = await list_reports(client)
    except ApiError as error:
        return reports, [NotKnown.after(error, "the list of reports", hotkey="")]
    # There is at least one report, because list_reports raises ApiError without any.
    newest = max(listed)
    if client.api_clock() - newest > HOUR + _MADE_WITHIN:
        reason = f"the report of {utc_text(newest + HOUR)} is not there yet"
        gaps.append(NotKnown(f"the ends since {utc_text(newest)}", "", reason, _WAIT))
    asked_ends = [newest - age * HOUR for age in range(hours)]
    for end in asked_ends:
        reports += await _read_report(client, end, listed.get(end), settings, gaps)
    if chutes is not None:
        for end in sorted(listed.keys() - {*asked_ends}, reverse=True):
            if Ledger(reports, chutes).needs_report(hours, end):
                reports += await _read_report(client, end, listed[end], settings, gaps)
    return reports, gaps


async def _read_report(
    client: ChutesClient, end: float, path: str | None, settings: Settings, gaps: list[NotKnown]
) -> list[HourlyAudit]:
    """Return the report of the hour with this end, which has no path if it is not listed."""
    subject = f"the report of {utc_text(end)}"
    if path is None:
        # At the full hour, the oldest report leaves the list at once.
        reason = "the list of reports does not have it"
        advice = f"{_WAIT} Until {utc_text(end + DAY)}, losses may be larger than shown."
        gaps.append(NotKnown(subject, "", reason, advice))
        return []
    try:
        answer = await fetch_report(client, end, path, settings.watched)
    except ApiError as error:
        gaps.append(NotKnown.after(error, subject, hotkey=""))
        return []
    if answer.rejected:
        reason = f"{answer.rejected} records cannot be read"
        gaps.append(NotKnown(subject, "", reason, UPDATE))
    return [answer.value]

"""Reads the validator's hourly reports for a command: all that it needs, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.commands.terminal import moment
from chutes_exporter.duration import DAY, DAY_HOURS, HOUR, MINUTE
from chutes_exporter.feeds.definitions import CHUTES
from chutes_exporter.feeds.reports import fetch_report, list_reports
from chutes_exporter.fleet.ends import Ledger
from chutes_exporter.fleet.failures import find_failures
from chutes_exporter.fleet.outages import with_reports
from chutes_exporter.page.gaps import UPDATE, NotKnown

if TYPE_CHECKING:
    from chutes_exporter.api.records import HourlyAudit
    from chutes_exporter.commands.snapshot import Snapshot
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet

_MADE_WITHIN: Final = 10 * MINUTE
"""Seconds after the hour within which the service has always published its report."""
_WAIT: Final = "Just after a full hour, try again in two minutes. Otherwise it may never come."


async def read_ledger(
    snapshot: Snapshot, settings: Settings, hours: int, *, all_losses: bool = False
) -> Ledger:
    """Return the ends of the newest hours, with what is known of their losses.

    For all losses, it also reads the listed older reports, since what lost units was created. What
    could not be read becomes a gap of the snapshot.
    """
    ledger = Ledger([], snapshot.records(CHUTES))
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        try:
            listed = await list_reports(client)
        except ApiError as error:
            snapshot.gaps.append(NotKnown.after(error, "the list of reports", hotkey=""))
            return ledger
        # There is at least one report, because list_reports raises ApiError without any.
        newest = max(listed.value)
        if client.api_clock() - newest > HOUR + _MADE_WITHIN:
            reason = f"the report of {moment(newest + HOUR)} is not there yet"
            snapshot.gaps.append(NotKnown(f"the ends since {moment(newest)}", "", reason, _WAIT))
        reports: list[HourlyAudit] = []
        # The list has 24 hours, and for about a minute a 25th.
        for age in range(DAY_HOURS + 1):
            end = newest - age * HOUR
            if age >= hours and not (all_losses and ledger.needs_report(hours, end)):
                break
            path = listed.value.get(end)
            if path is not None:
                reports += await _read_report(client, end, path, settings, snapshot.gaps)
                ledger = Ledger(reports, snapshot.records(CHUTES))
            elif age < hours:
                snapshot.gaps.append(_not_listed(end))
    return ledger


async def fleets_with_reports(
    snapshot: Snapshot, settings: Settings, hours: int
) -> dict[str, Fleet]:
    """Return the fleets of a snapshot by hotkey, with what the reports of the newest hours tell.

    What could not be read becomes a gap of the snapshot.
    """
    ledger = await read_ledger(snapshot, settings, hours)
    fleets = {}
    for hotkey, fleet in snapshot.fleets.items():
        fleets[hotkey] = with_reports(fleet, ledger, find_failures(ledger, hotkey, hours))
    return fleets


def _not_listed(end: float) -> NotKnown:
    # At the full hour, the oldest report leaves the list at once.
    advice = f"{_WAIT} Until {moment(end + DAY)}, losses may be larger than they are shown."
    return NotKnown(_subject(end), "", "the list of reports does not have it", advice)


def _subject(end: float) -> str:
    return f"the report of {moment(end)}"


async def _read_report(
    client: ChutesClient, end: float, path: str, settings: Settings, gaps: list[NotKnown]
) -> list[HourlyAudit]:
    """Return the report that ended at a Unix time, if it can be read. What is missing is a gap."""
    try:
        answer = await fetch_report(client, end, path, settings.watched)
    except ApiError as error:
        gaps.append(NotKnown.after(error, _subject(end), hotkey=""))
        return []
    if answer.rejected:
        reason = f"{answer.rejected} records cannot be read"
        gaps.append(NotKnown(_subject(end), "", reason, UPDATE))
    return [answer.value]

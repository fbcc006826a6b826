"""Reads the validator's hourly reports for a command: all that it needs, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chutes_exporter.api.errors import ApiError
from chutes_exporter.commands.terminal import moment
from chutes_exporter.duration import DAY, DAY_HOURS, HOUR, MINUTE
from chutes_exporter.feeds.reports import fetch_report, list_reports
from chutes_exporter.fleet.ends import Ledger
from chutes_exporter.page.gaps import UPDATE, NotKnown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.api.records import Chute, HourlyAudit
    from chutes_exporter.config import Settings

_MADE_WITHIN: Final = 10 * MINUTE
"""Seconds after the hour within which the service has always published its report."""
_WAIT: Final = "Just after a full hour, try again in two minutes. Otherwise it may never come."


async def read_reports(
    client: ChutesClient,
    settings: Settings,
    hours: int,
    *,
    all_losses: bool = False,
    chutes: Sequence[Chute] = (),
) -> tuple[list[HourlyAudit], list[NotKnown]]:
    """Return the reports of the newest hours, and what could not be read.

    For all losses, it also reads the listed older reports that may tell one. The names of chutes
    show which ends were redeployments.
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
        reason = f"the report of {moment(newest + HOUR)} is not there yet"
        gaps.append(NotKnown(f"the ends since {moment(newest)}", "", reason, _WAIT))
    # The list has 24 hours, and for about a minute a 25th.
    for age in range(DAY_HOURS + 1):
        end = newest - age * HOUR
        if age >= hours and not (all_losses and Ledger(reports, chutes).needs_report(hours, end)):
            break
        path = listed.get(end)
        subject = f"the report of {moment(end)}"
        if path is not None:
            reports += await _read_report(client, end, path, settings, subject, gaps)
        elif age < hours:
            # At the full hour, the oldest report leaves the list at once.
            advice = f"{_WAIT} Until {moment(end + DAY)}, losses may be larger than they are shown."
            gaps.append(NotKnown(subject, "", "the list of reports does not have it", advice))
    return reports, gaps


async def _read_report(
    client: ChutesClient,
    end: float,
    path: str,
    settings: Settings,
    subject: str,
    gaps: list[NotKnown],
) -> list[HourlyAudit]:
    """Return the report that ended at a Unix time, if it can be read. What is missing is a gap."""
    try:
        answer = await fetch_report(client, end, path, settings.watched)
    except ApiError as error:
        gaps.append(NotKnown.after(error, subject, hotkey=""))
        return []
    if answer.rejected:
        reason = f"{answer.rejected} records cannot be read"
        gaps.append(NotKnown(subject, "", reason, UPDATE))
    return [answer.value]

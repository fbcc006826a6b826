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


async def read_ledger(snapshot: Snapshot, settings: Settings, hours: int) -> Ledger:
    """Return the ends of the newest hours, with what is known of their losses.

    What could not be read becomes a gap of the snapshot.
    """
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        reading = _Reading(client, settings, snapshot)
        await reading.read(hours)
        await reading.read_losses(hours)
        return reading.ledger()


async def fleets_with_reports(
    snapshot: Snapshot, settings: Settings, hours: int
) -> dict[str, Fleet]:
    """Return the fleets of a snapshot by hotkey, with what the reports of the newest hours tell.

    What could not be read becomes a gap of the snapshot.
    """
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        reading = _Reading(client, settings, snapshot)
        await reading.read(hours)
        fleets = _joined(snapshot, reading.ledger(), hours)
        # Failures are only counted. Of an outage, it matters what it cost.
        if any(fleet.outages for fleet in fleets.values()):
            await reading.read_losses(hours)
            fleets = _joined(snapshot, reading.ledger(), hours)
    return fleets


def _joined(snapshot: Snapshot, ledger: Ledger, hours: int) -> dict[str, Fleet]:
    fleets = {}
    for hotkey, fleet in snapshot.fleets.items():
        fleets[hotkey] = with_reports(fleet, ledger, find_failures(ledger, hotkey, hours))
    return fleets


class _Reading:
    """The reports that were read, with what the watched miners need of them."""

    def __init__(self, client: ChutesClient, settings: Settings, snapshot: Snapshot) -> None:
        self._client = client
        self._watched = settings.watched
        self._chutes = snapshot.records(CHUTES)
        self._gaps = snapshot.gaps
        self._reports: list[HourlyAudit] = []
        self._path_by_end: dict[float, str] = {}
        self._newest = 0.0

    def ledger(self) -> Ledger:
        """Return the ended instances."""
        return Ledger(self._reports, self._chutes)

    async def read(self, hours: int) -> None:
        """Read the reports of the newest hours."""
        try:
            listed = await list_reports(self._client)
        except ApiError as error:
            self._gaps.append(NotKnown.after(error, "the list of reports", hotkey=""))
            return
        # There is at least one report, because list_reports raises ApiError without any.
        self._path_by_end = listed.value
        self._newest = max(self._path_by_end)
        if self._client.api_clock() - self._newest > HOUR + _MADE_WITHIN:
            reason = f"the report of {moment(self._newest + HOUR)} is not there yet"
            self._miss(f"the ends since {moment(self._newest)}", reason, _WAIT)
        for age in range(hours):
            await self._read_hour(age)

    async def read_losses(self, hours: int) -> None:
        """Read older reports, as long as the next one may have a multiplier that is missing for the
        losses of the newest hours.
        """
        for age in range(hours, DAY_HOURS + 1):
            if not self.ledger().needs_report(hours, self._newest - age * HOUR):
                return
            await self._read_hour(age)

    async def _read_hour(self, age: int) -> None:
        """Read the report that ended so many hours before the newest one."""
        end = self._newest - age * HOUR
        subject = f"the report of {moment(end)}"
        if end in self._path_by_end:
            await self._read_report(subject, end)
        elif age < DAY_HOURS:
            # The list has 24 hours, and for about a minute a 25th. At the full hour, the oldest
            # report leaves it at once.
            advice = f"{_WAIT} Until {moment(end + DAY)}, losses may be larger than they are shown."
            self._miss(subject, "the list of reports does not have it", advice)

    async def _read_report(self, subject: str, end: float) -> None:
        try:
            path = self._path_by_end[end]
            answer = await fetch_report(self._client, end, path, self._watched)
        except ApiError as error:
            self._gaps.append(NotKnown.after(error, subject, hotkey=""))
            return
        if answer.rejected:
            self._miss(subject, f"{answer.rejected} records cannot be read", UPDATE)
        self._reports.append(answer.value)

    def _miss(self, subject: str, reason: str, advice: str) -> None:
        self._gaps.append(NotKnown(subject, "", reason, advice))

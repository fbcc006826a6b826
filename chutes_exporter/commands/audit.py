"""Reads the validator's hourly reports for a command: all that it needs, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import structs

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.commands.terminal import moment
from chutes_exporter.duration import DAY, DAY_HOURS, HOUR, MINUTE
from chutes_exporter.feeds import definitions as e
from chutes_exporter.feeds.definitions import CHUTES
from chutes_exporter.feeds.reports import list_reports, reduced
from chutes_exporter.fleet.ends import Ledger
from chutes_exporter.fleet.failures import FAILURE_HOURS, find_failures
from chutes_exporter.fleet.outages import with_reports
from chutes_exporter.page.gaps import UPDATE, NotKnown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.api.endpoint import Endpoint
    from chutes_exporter.api.records import HourlyAudit
    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet

T = TypeVar("T")

MADE_WITHIN: Final = 10 * MINUTE
"""Seconds after the hour within which the service has always published its report."""
_WAIT: Final = "Try again in two minutes. It comes about 73 seconds after the hour, or never."


async def with_failures(report: Report, settings: Settings) -> dict[str, Fleet]:
    """Return the fleets of a report by hotkey, with what the reports of the newest FAILURE_HOURS
    hours tell of them.

    What could not be read becomes a gap of the report.
    """
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        audit = AuditReading(client, settings.watched)
        await audit.read(FAILURE_HOURS, with_losses=False)
        fleets = _fleets_with_reports(report, audit)
        # Failures are only counted. Of an outage, it matters what it cost.
        if any(fleet.outages for fleet in fleets.values()):
            await audit.read_losses(FAILURE_HOURS)
            fleets = _fleets_with_reports(report, audit)
    report.gaps.extend(audit.gaps)
    return fleets


def _fleets_with_reports(report: Report, audit: AuditReading) -> dict[str, Fleet]:
    fleets = {}
    for hotkey, fleet in report.fleets.items():
        ledger = audit.ledger_with_names(report, hotkey)
        failures = find_failures(ledger, hotkey, FAILURE_HOURS, are_all_known=not audit.gaps)
        fleets[hotkey] = with_reports(fleet, ledger, failures)
    return fleets


class AuditReading:
    """What a command reads of the reports.

    Attributes:
        reports: Those that could be read, with what the watched miners need.
        ledger: The ended instances.
        gaps: What could not be read.
    """

    def __init__(self, client: ChutesClient, watched: Iterable[str]) -> None:
        self.reports: list[HourlyAudit] = []
        self.ledger = Ledger([])
        self.gaps: list[NotKnown] = []
        self._client = client
        self._path_by_end: dict[float, str] = {}
        self._newest = 0.0
        self._watched = frozenset(watched)

    async def read(self, hours: int, *, with_losses: bool = True) -> None:
        """Read the reports of the newest hours.

        The loss of an instance depends on all its multipliers. So for losses, also read older
        reports, as long as the next one may have a multiplier that is missing.
        """
        try:
            listed = await list_reports(self._client)
        except ApiError as error:
            self.gaps.append(NotKnown.after(error, "the list of reports", hotkey=""))
            return
        # There is at least one report, because list_reports raises ApiError without any.
        self._path_by_end = listed.value
        self._newest = max(self._path_by_end)
        if self._client.api_clock() - self._newest > HOUR + MADE_WITHIN:
            self.miss(f"the ends since {moment(self._newest)}", self._next_is_missing, _WAIT)
        for age in range(hours):
            await self._read_hour(age)
        if with_losses:
            await self.read_losses(hours)

    async def read_losses(self, hours: int) -> None:
        """Read the older reports that the losses of the newest hours need."""
        for age in range(hours, DAY_HOURS + 1):
            if not self.ledger.needs_report(hours, self._newest - age * HOUR):
                return
            await self._read_hour(age)

    @property
    def _next_is_missing(self) -> str:
        return f"the report of {moment(self._newest + HOUR)} is not there yet"

    async def _read_hour(self, age: int) -> None:
        """Read the report that ended so many hours before the newest one."""
        end = self._newest - age * HOUR
        what = f"the report of {moment(end)}"
        if end in self._path_by_end:
            params = {"path": self._path_by_end[end]}
            self._add(await self._request(what, e.AUDIT_REPORT, params=params), end)
        elif age == DAY_HOURS:
            # The list has 24 hours, and for about a minute a 25th.
            return
        elif self._client.api_clock() - end > DAY:
            # At the full hour, the oldest report leaves the list at once.
            self.miss(what, f"it has left the list, and {self._next_is_missing}", _WAIT)
        else:
            advice = f"Until {moment(end + DAY)}, losses are only known to be at least so large."
            self.miss(what, "the service did not make it, and never makes it later", advice)

    def _add(self, answer: Answer[HourlyAudit] | None, end: float) -> None:
        """Add the report of the hour that ended at a Unix time to the ledger, if it was read."""
        if answer is None:
            return
        # The service sends a report without its hour.
        report = structs.replace(answer.value, end=end, complete=answer.complete)
        # Only what the watched miners need is kept, because a report has all miners.
        self.reports.append(reduced(report, self._watched))
        self.ledger = Ledger(self.reports)

    def ledger_with_names(self, report: Report, hotkey: str) -> Ledger:
        """Return the ended instances, with the names of the chutes that a miner sees."""
        answers = report.answers(hotkey)
        chutes = answers[CHUTES.name].value if CHUTES.name in answers else ()
        return Ledger(self.reports, chutes)

    async def fetch(self, what: str, endpoint: Endpoint[T], **request: Any) -> T | None:
        """Return the value of an answer, None after an error. What cannot be read becomes a gap.

        ``what`` names the data in the gap.
        """
        answer = await self._request(what, endpoint, **request)
        return None if answer is None else answer.value

    async def _request(self, what: str, endpoint: Endpoint[T], **request: Any) -> Answer[T] | None:
        """Return an answer, None after an error. What cannot be read becomes a gap.

        ``what`` names the data in the gap.
        """
        try:
            answer = await self._client.fetch(endpoint, **request)
        except ApiError as error:
            self.gaps.append(NotKnown.after(error, what, hotkey=""))
            return None
        if answer.rejected:
            self.miss(what, f"{answer.rejected} records cannot be read", UPDATE)
        return answer

    def miss(self, what: str, reason: str, advice: str, hotkey: str = "") -> None:
        """Note that something is not known."""
        self.gaps.append(NotKnown(what, hotkey, reason, advice))

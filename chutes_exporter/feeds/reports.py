"""Requests the validator's hourly audit reports, and keeps those of the past day."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from chutes_exporter.api.answer import Answer
from chutes_exporter.api.errors import NotFoundError, UnavailableError, UndecodableError
from chutes_exporter.api.records import HourlyAudit
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.feeds.definitions import AUDIT, AUDIT_REPORT
from chutes_exporter.rules.losses import ended_within_hour

if TYPE_CHECKING:
    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.api.records import AuditInstance

PAUSE: Final = 5.0
"""Seconds between the requests for two older reports."""
_LIST_PAUSE: Final = 55.0
"""Seconds between the requests for the list while the newest report is late."""
_NEXT_AFTER: Final = HOUR + 90.0
"""Seconds from the end of a report's hour to the request for the next one. The service makes that
half a minute earlier.
"""
_OVERDUE: Final = 2 * HOUR
"""Seconds for which the next report may be late. By then, the newest one is dropped."""


@dataclass(frozen=True, slots=True)
class Reports:
    """The reports of the past day, as far as they were read.

    Attributes:
        hours: The reports, the newest first. The one before the past day shows how it began.
        unread: Number of reports that are still to be read.
        first_listed: The ends of the hours whose reports were there when the list was read first
            for these miners.
    """

    hours: tuple[HourlyAudit, ...]
    unread: int
    first_listed: frozenset[float] = frozenset()


class ReportReader:
    """Reads the newest report, and then the older ones, one with each call.

    A report has up to 13 MB. What some miners need of it is kept.
    """

    def __init__(self, client: ChutesClient) -> None:
        self._client = client
        # The miners whose data is kept.
        self._hotkeys = frozenset[str]()
        self._forget()

    def _forget(self) -> None:
        # The reports by the Unix time at which their hour ended, and the paths of older ones.
        self._kept: dict[float, Answer[HourlyAudit]] = {}
        self._unread: dict[float, str] = {}
        self._listed_at = 0.0
        # Empty until the list is read for these miners.
        self._first_listed = frozenset[float]()
        # None until it is made of all reports that are kept.
        self._answer: Answer[Reports] | None = None

    def watch(self, hotkeys: frozenset[str]) -> bool:
        """Keep what these miners need. Return whether all reports must be read again for them."""
        # More miners in the reports do no harm.
        if hotkeys <= self._hotkeys:
            return False
        self._hotkeys = hotkeys
        self._forget()
        return True

    async def read(self) -> Answer[Reports]:
        """Read the next report that is due, and return what is known of the past day.

        Without any, return the same answer as before. It may raise ApiError. A report that failed
        is requested again after the next hour.
        """
        # A list that is late must not slow the older reports.
        list_due = max(self._next_due, self._listed_at + _LIST_PAUSE)
        if not self._kept or self._client.api_clock() >= list_due:
            await self._read_newest()
        elif self._unread:
            newest = max(self._unread)
            await self._read_report(newest, self._unread.pop(newest))
        overdue_for = self._client.api_clock() - self._next_due
        if overdue_for > _OVERDUE:
            raise UnavailableError(
                f"a new report has been due for {overdue_for:.0f} s",
                advice="The service makes no new reports. If this continues, tell its operators.",
            )
        if self._answer is None:
            self._answer = self._known()
        return self._answer

    @property
    def _next_due(self) -> float:
        return max(self._kept, default=0.0) + _NEXT_AFTER

    async def _read_newest(self) -> None:
        listed = await list_reports(self._client)
        self._listed_at = self._client.api_clock()
        self._first_listed = self._first_listed or frozenset(listed)
        newest = max(listed)
        if newest in self._kept:
            return
        await self._read_report(newest, listed[newest])
        # A report that is a day older than the newest stays, because its multipliers show how the
        # day began. It ended when the day began, so it is not requested.
        day_start = newest - DAY
        self._kept = {end: answer for end, answer in self._kept.items() if end >= day_start}
        self._unread = {
            end: path for end, path in listed.items() if end > day_start and end not in self._kept
        }

    async def _read_report(self, end: float, path: str) -> None:
        # Even if it fails, the number of unread ones may be another.
        self._answer = None
        self._kept[end] = await fetch_report(self._client, end, path, self._hotkeys)

    def _known(self) -> Answer[Reports]:
        newest_first = [self._kept[end] for end in sorted(self._kept, reverse=True)]
        reports = Reports(
            hours=tuple(answer.value for answer in newest_first),
            unread=len(self._unread),
            first_listed=self._first_listed,
        )
        # Records that could not be read count for all reports.
        return Answer(
            reports,
            count=newest_first[0].count,
            seconds=newest_first[0].seconds,
            rejected=sum(answer.rejected for answer in newest_first),
            first_error=max(answer.first_error for answer in newest_first),
            received_at=max(answer.received_at for answer in newest_first),
        )


async def fetch_report(
    client: ChutesClient, end: float, path: str, hotkeys: frozenset[str]
) -> Answer[HourlyAudit]:
    """Request the report of the hour that ended at ``end``. Return what it has about some miners:
    the instances that ended within the hour, and the multipliers.

    ``path`` is from :func:`list_reports`.
    """
    try:
        answer = await client.fetch(AUDIT_REPORT, params={"path": path})
    except NotFoundError as error:
        # The endpoint exists, because the list names this report.
        raise UnavailableError(str(error), status=error.status) from None
    ended: list[AuditInstance] = []
    ids_of_other_miners = set[str]()
    for instance in answer.value.instances:
        if instance.miner_hotkey not in hotkeys:
            ids_of_other_miners.add(instance.instance_id)
        elif ended_within_hour(instance, end):
            ended.append(instance)
    # Multipliers without an instance stay: a report does not list an instance that was deleted
    # between the end of its hour and its making.
    multipliers = [
        record
        for record in answer.value.multipliers
        if record.instance_id not in ids_of_other_miners
    ]
    return replace(answer, value=HourlyAudit(ended, multipliers, end, answer.complete))


async def list_reports(client: ChutesClient) -> dict[float, str]:
    """Return the path of the validator's last report of each full hour by its end.

    Without any, it raises ApiError.
    """
    answer = await client.fetch(AUDIT)
    path_by_end: dict[float, str] = {}
    # A report without a time of its making counts as the oldest.
    for entry in sorted(answer.value, key=lambda entry: entry.created_at or 0.0):
        end = entry.end_time
        # The list also has miners' own reports.
        if end is None or not entry.path.startswith("audit/validator/"):
            continue
        # A report of another time than a full hour, or that ends in the future, cannot be right.
        if entry.start_time == end - HOUR and end <= answer.received_at:
            path_by_end[end] = entry.path
    if not path_by_end:
        raise UndecodableError(
            "the list has no report of the validator", status=200, advice="Try again in an hour."
        )
    return path_by_end

"""Requests the validator's hourly audit reports, and keeps those of the past day."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog
from msgspec import structs

from chutes_exporter.api.answer import Answer
from chutes_exporter.api.errors import (
    ApiError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
    UndecodableError,
)
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.feeds.definitions import AUDIT, AUDIT_REPORT
from chutes_exporter.rules.losses import ended_within_hour

if TYPE_CHECKING:
    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.api.records import AuditEntry, HourlyAudit

_log = structlog.get_logger("feeds")

PAUSE: Final = 5.0
"""Seconds between the requests for two older reports."""
_LIST_PAUSE: Final = 55.0
"""Seconds between the requests for the list while the newest report is late."""
_NEXT_AFTER: Final = HOUR + 90.0
"""Seconds from the end of a report until the next one is out, half a minute ago."""
_OVERDUE: Final = 2 * HOUR
"""Seconds for which the next report may be late before that is a failure. By then, the newest one
is dropped.
"""
_TRIES: Final = 3
"""Requests for an older report that fails. The next ones come after the next hour."""


@dataclass(frozen=True, slots=True)
class Reports:
    """The reports of the past day, as far as they were read.

    Attributes:
        hours: The reports, the newest first. The one before the past day shows how it began.
        hotkeys: The miners whose ends and multipliers the reports have. None means all.
        unread: Number of reports that are still to be read.
        first_listed: The ends of the hours whose reports were there when the list was read first
            for these miners.
    """

    hours: tuple[HourlyAudit, ...]
    hotkeys: frozenset[str] | None
    unread: int
    first_listed: frozenset[float] = frozenset()


class ReportReader:
    """Reads the newest report, and then the older ones, one with each call.

    A report has up to 13 MB. What some miners need of it is kept.
    """

    def __init__(self, client: ChutesClient) -> None:
        self._client = client
        # The miners whose data is kept: nobody's until `watch` is called. None means all.
        self._hotkeys: frozenset[str] | None = frozenset()
        # The reports by the Unix time at which their hour ended.
        self._kept: dict[float, Answer[HourlyAudit]] = {}
        self._unread: list[AuditEntry] = []
        self._listed_at = 0.0
        self._answer: Answer[Reports] | None = None
        # None until the list is read for these miners.
        self._first_listed: frozenset[float] | None = None
        # Failed requests for a report, by its path.
        self._failures: Counter[str] = Counter()

    def watch(self, hotkeys: frozenset[str] | None) -> bool:
        """Keep what these miners need, None for all miners.

        Return whether all reports must be read again, because they were read without some of these
        miners.
        """
        old_hotkeys = self._hotkeys
        # The reports may have all of these miners already. More miners in them do no harm.
        if old_hotkeys is None or (hotkeys is not None and hotkeys <= old_hotkeys):
            return False
        self._hotkeys = hotkeys
        self._kept.clear()
        self._unread.clear()
        self._first_listed = None
        self._failures.clear()
        self._answer = None
        return True

    async def read(self) -> Answer[Reports]:
        """Read the next report that is due, and return what is known of the past day.

        Without any, return the same answer as before. It may raise ApiError.
        """
        # One that is late must not slow the older ones.
        if not self._kept or self._client.api_clock() >= self._list_due:
            await self._read_newest()
        elif self._unread:
            await self._read_older()
        overdue_for = self._client.api_clock() - self._newest_due
        if overdue_for > _OVERDUE:
            raise UnavailableError(
                f"a new report has been due for {overdue_for:.0f} s",
                advice="The service makes no new reports. If this continues, tell its operators.",
            )
        newest_first = [self._kept[end] for end in sorted(self._kept, reverse=True)]
        reports = Reports(
            hours=tuple(answer.value for answer in newest_first),
            hotkeys=self._hotkeys,
            unread=len(self._unread),
            first_listed=self._first_listed or frozenset(),
        )
        if self._answer is not None and reports == self._answer.value:
            return self._answer
        errors = [answer.first_error for answer in newest_first if answer.first_error]
        # The number of records and the duration are those of the newest report, as if no older one
        # was read. Records that could not be read count for all reports.
        self._answer = Answer(
            reports,
            count=newest_first[0].count,
            rejected=sum(answer.rejected for answer in newest_first),
            first_error=errors[0] if errors else "",
            received_at=max(answer.received_at for answer in newest_first),
            seconds=newest_first[0].seconds,
        )
        return self._answer

    @property
    def _newest_due(self) -> float:
        """Unix time at which the report after the newest one is out."""
        return max(self._kept) + _NEXT_AFTER

    @property
    def _list_due(self) -> float:
        """Unix time of the next request for the list while older reports are read."""
        return max(self._newest_due, self._listed_at + _LIST_PAUSE)

    async def _read_newest(self) -> None:
        """Read the list of reports, and then the newest one if it is new, or else an older one."""
        listed = await list_reports(self._client)
        newest, *older = listed.value
        if self._first_listed is None:
            self._first_listed = frozenset(map(_end_of_listed, listed.value))
        self._listed_at = listed.received_at
        is_new = newest.end_time not in self._kept
        if is_new:
            try:
                await self._read_report(newest)
            except NotFoundError as error:
                # The endpoint exists, because the list names this report.
                raise UnavailableError(str(error), status=error.status) from None
            # With each hour, reports that failed get new tries.
            self._failures.clear()
        # A report that is a day older than the newest stays, because its multipliers show how the
        # day began.
        day_start = max(self._kept) - DAY
        self._kept = {end: answer for end, answer in self._kept.items() if end >= day_start}
        self._unread = [entry for entry in older if self._is_needed(entry, day_start)]
        if not is_new and self._unread:
            await self._read_older()

    def _is_needed(self, entry: AuditEntry, day_start: float) -> bool:
        """Return whether a report is of the day, was not read yet, and may be requested again."""
        # The report that ended exactly when the day began is about the hour before. It stays if it
        # was read, but it is not requested.
        end = _end_of_listed(entry)
        return end > day_start and end not in self._kept and self._failures[entry.path] < _TRIES

    async def _read_older(self) -> None:
        """Read the next older report. If it will never be readable, leave it out.

        After another error, which it raises, the report is tried again later.
        """
        entry = self._unread.pop(0)
        try:
            await self._read_report(entry)
        except (NotFoundError, UndecodableError, TooLargeError) as error:
            _log.warning("audit report left out", path=entry.path, reason=str(error))
            self._failures[entry.path] = _TRIES
        except ApiError:
            self._failures[entry.path] += 1
            if self._failures[entry.path] < _TRIES:
                self._unread.append(entry)
            raise

    async def _read_report(self, entry: AuditEntry) -> None:
        """Read a report, and keep what the miners need."""
        answer = await self._client.fetch(AUDIT_REPORT, params={"path": entry.path})
        end = _end_of_listed(entry)
        report = structs.replace(answer.value, end=end, complete=answer.complete)
        self._kept[end] = replace(answer, value=reduced(report, self._hotkeys))


def reduced(report: HourlyAudit, hotkeys: frozenset[str] | None) -> HourlyAudit:
    """Return a report with the ends of its hour and the multipliers of some miners, None for all.

    It keeps multipliers without an instance, because a report does not list an instance that was
    deleted between the end of the report's hour and the making of the report.
    """
    other_ids = set[str]()
    if hotkeys is not None:
        others = [one for one in report.instances if one.miner_hotkey not in hotkeys]
        other_ids = {one.instance_id for one in others}
    kept = [one for one in report.instances if one.instance_id not in other_ids]
    ended = [instance for instance in kept if ended_within_hour(instance, report.end)]
    multipliers = [record for record in report.multipliers if record.instance_id not in other_ids]
    return structs.replace(report, instances=ended, multipliers=multipliers)


async def list_reports(client: ChutesClient) -> Answer[list[AuditEntry]]:
    """Return the validator's last report of each full hour, the newest hour first.

    Without any, it raises ApiError.
    """
    answer = await client.fetch(AUDIT)
    by_hour: dict[float, AuditEntry] = {}
    # The list also has miners' own reports, in no order. A report without a time of its making
    # counts as the oldest.
    of_validator = [entry for entry in answer.value if entry.path.startswith("audit/validator/")]
    of_validator.sort(key=lambda entry: entry.created_at or 0.0)
    for entry in of_validator:
        end = _end_of_full_hour(entry)
        # A report that ends in the future cannot be right.
        if end is not None and end <= answer.received_at:
            # It replaces an older report of the same hour.
            by_hour[end] = entry
    if not by_hour:
        raise UndecodableError(
            "the list has no report of the validator", status=200, advice="Try again in an hour."
        )
    return replace(answer, value=[by_hour[end] for end in sorted(by_hour, reverse=True)])


def _end_of_listed(entry: AuditEntry) -> float:
    """Return when the hour of a report in :func:`list_reports` ended. All of them have the time."""
    return entry.end_time or 0.0


def _end_of_full_hour(entry: AuditEntry) -> float | None:
    """Return when the hour of a report ended, None for a report of another time."""
    if entry.start_time is None or entry.end_time is None:
        return None
    if entry.end_time - entry.start_time != HOUR:
        return None
    return entry.end_time

"""Which audit reports of the validator are requested, when, and what is kept of them."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.errors import UnavailableError, UndecodableError
from chutes_exporter.feeds.definitions import AUDIT_REPORT
from chutes_exporter.feeds.reports import ReportReader
from chutes_exporter.page.exporter import Exporter
from tests.api.reports import INSTANCE, RECORD, body
from tests.exporters import asked_by, page_of, read_reports, served, watching
from tests.pages import series
from tests.replay import Replay
from tests.support import HOTKEY, NOON, PATIENCE, Clock, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request

    from chutes_exporter.feeds.reports import Reports
    from tests.replay import Replay

HOUR = 3600


def entry(number: int, hour: int, **more: str) -> dict[str, Any]:
    """Return an entry of the list: a report of the hour that ends at an hour of the day.

    The number is in its path. ``more`` are fields with other values.
    """
    return {
        "path": f"audit/validator/{HOTKEY}/{number}.json",
        "created_at": f"2026-11-24T{hour:02}:01:04",
        "start_time": f"2026-11-24T{hour - 1:02}:00:00",
        "end_time": f"2026-11-24T{hour:02}:00:00",
        **more,
    }


class Api:
    """An API with some reports.

    Attributes:
        entries: The list.
        texts: The bodies of some reports by path. The body of each other report is ``text``.
        failing: The statuses of failing requests for a report by its path.
        asked: The requested paths.
        listed: Number of requests for the list.
    """

    def __init__(self, *entries: dict[str, Any], text: bytes = body([INSTANCE])) -> None:
        self.entries = [*entries]
        self.text = text
        self.texts: Mapping[str, bytes] = {}
        self.failing: dict[str, int] = {}
        self.asked: list[str] = []
        self.listed = 0
        routes = [Route("/audit/", self._list), Route("/audit/download", self._download)]
        self.app = Starlette(routes=routes)

    async def _list(self, _request: Request) -> Response:
        self.listed += 1
        return Response(json.dumps(self.entries))

    async def _download(self, request: Request) -> Response:
        path = request.query_params["path"]
        self.asked.append(path)
        return Response(self.texts.get(path, self.text), self.failing.get(path, 200))


@contextlib.asynccontextmanager
async def reading(api: Api) -> AsyncIterator[tuple[ReportReader, Clock]]:
    """Yield a reader of some reports, and its clock, which is at noon."""
    clock = Clock()
    async with (
        served(api.app) as url,
        ChutesClient(url, clock=clock, monotonic=clock) as client,
    ):
        reader = ReportReader(client)
        reader.watch(frozenset({"me"}))
        yield reader, clock


async def read(api: Api, times: int = 1) -> Reports:
    """Return what is known after some readings."""
    async with reading(api) as (reader, _):
        for _ in range(times - 1):
            await reader.read()
        return (await reader.read()).value


OLD = entry(1, 11)
FUTURE = entry(2, 12, end_time="2099-11-24T12:00:00", start_time="2099-11-24T11:00:00")


async def test_the_newest_report_of_the_validator_for_each_hour_of_the_day_is_asked_for() -> None:
    # The last one ends when the day of the newest report begins.
    times = {"start_time": "2026-11-23T10:00:00", "end_time": "2026-11-23T11:00:00"}
    others = [
        entry(2, 12, path=f"audit/miner/{HOTKEY}/9.json"),
        FUTURE,
        entry(2, 12, start_time="2026-11-24T10:00:00"),
        {"path": f"audit/validator/{HOTKEY}/9.json"},
        entry(5, 11, **times),
    ]
    made_later = entry(4, 11, created_at="2026-11-24T11:09:04")
    api = Api(*others, made_later, OLD, entry(3, 10))
    reports = await read(api, times=3)
    assert api.asked == [made_later["path"], entry(3, 10)["path"]]
    assert [report.end for report in reports.hours] == [NOON - HOUR, NOON - 2 * HOUR]


async def test_multipliers_of_instances_that_were_deleted_since_the_hour_are_kept() -> None:
    theirs = INSTANCE | {"instance_id": "theirs", "miner_hotkey": "other"}
    records = [RECORD | {"instance_id": one} for one in ("i", "theirs", "deleted since")]
    api = Api(OLD, text=body([INSTANCE, theirs], records))
    (report,) = (await read(api)).hours
    assert [one.instance_id for one in report.multipliers] == ["i", "deleted since"]


async def test_a_list_without_a_report_and_a_report_that_is_gone_are_failures() -> None:
    with pytest.raises(UndecodableError):
        await read(Api(FUTURE))
    # The endpoint is not missing, because the list names it.
    gone = Api(OLD)
    gone.failing[OLD["path"]] = 404
    with pytest.raises(UnavailableError):
        await read(gone)


async def test_an_older_report_that_fails_is_requested_again_after_the_next_hour() -> None:
    failing, broken, good = (entry(hour, hour) for hour in (10, 9, 8))
    api = Api(OLD, failing, broken, good)
    api.failing = {failing["path"]: 503}
    api.texts = {broken["path"]: b"{}"}
    async with reading(api) as (reader, clock):
        # None is a failure.
        results = [await unread_after(reader) for _ in range(5)]
        assert api.asked == [one["path"] for one in (OLD, failing, broken, good)]
        assert results == [3, None, None, 0, 0]
        # At 12:02, the report until 12:00 is out.
        clock.now += 120
        api.entries.append(entry(12, 12))
        api.failing.clear()
        assert [await unread_after(reader) for _ in range(2)] == [2, 1]
    assert api.asked[4:] == [entry(12, 12)["path"], failing["path"]]


async def test_a_record_of_an_older_report_that_cannot_be_read_counts() -> None:
    older = entry(3, 10)
    api = Api(OLD, older)
    api.texts = {older["path"]: body([INSTANCE, {}])}
    async with reading(api) as (reader, _):
        assert [(await reader.read()).rejected for _ in range(2)] == [0, 1]


async def unread_after(reader: ReportReader) -> int | None:
    """Read the next report. Return how many are left, None after a failure."""
    try:
        return (await reader.read()).value.unread
    except (UnavailableError, UndecodableError):
        return None


async def test_a_report_that_is_late_for_two_hours_is_a_failure() -> None:
    async with reading(Api(OLD)) as (reader, clock):
        first = await reader.read()
        # The report until 12:00 is due 90 seconds later.
        clock.now = NOON + 90 + 2 * HOUR - 5
        # Until then, the answer is the same, and as old as before.
        assert await reader.read() is first
        clock.now += 60
        with pytest.raises(UnavailableError, match="a new report has been due for 72"):
            await reader.read()


@pytest.mark.parametrize("ahead", [0, -1800, -86400, 86400])
async def test_a_report_is_requested_90_seconds_after_the_hour_and_a_late_one_each_minute(
    replay: Replay, clock: Clock, ahead: float
) -> None:
    def local_clock() -> float:
        # The API's clock decides, not this one.
        return clock.now + ahead

    asked: dict[int, list[str]] = {}
    # The recording has the report of an hour only in the snapshot five minutes after it.
    full_hour = clock.now - 300
    async with Exporter(watching(replay.url), clock=local_clock, monotonic=clock) as exporter:
        await read_reports(exporter)
        first = [one.endpoint for one in replay.requests]
        assert Counter(first) == {"audit": 1, "audit_report": 24}
        for minute in range(5, 70):
            clock.now = full_hour + 60 * minute + 5
            before = len(replay.requests)
            await exporter.feeds.read_all([AUDIT_REPORT], PATIENCE)
            await until(lambda: not asked_by(exporter))
            asked[minute] = [one.endpoint for one in list(replay.requests)[before:]]
    # The first minute that is at least 90 seconds after the next hour is 62.
    assert {minute: endpoints for minute, endpoints in asked.items() if endpoints} == {
        62: ["audit"],
        63: ["audit"],
        64: ["audit"],
        65: ["audit", "audit_report"],
    }


async def test_after_a_reload_the_reports_are_read_again_for_a_miner_that_is_new(
    replay: Replay, clock: Clock
) -> None:
    first, second = replay.day.miners.values()
    known = series("chutes_miner_unknown_losses", hotkey=second.address, window="1d")
    async with Exporter(watching(replay.url, first), clock=clock, monotonic=clock) as exporter:
        await read_reports(exporter)
        # What was kept of the reports is only about the first miner.
        exporter.reconfigure(watching(replay.url, first, second))
        page = await page_of(exporter)
        assert known not in page
        await read_reports(exporter)
        page = await page_of(exporter)
        assert known in page

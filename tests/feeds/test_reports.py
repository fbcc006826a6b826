"""Which audit report is the newest one of the validator, and how it is asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from chutes_exporter.api import ChutesClient
from chutes_exporter.api.errors import UnavailableError, UndecodableError
from chutes_exporter.feeds.requests import newest_report
from chutes_exporter.feeds.table import AUDIT_REPORT
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.simulator import Fault, Simulator
from chutes_exporter.simulator.answers import Call, audit
from tests.api.reports import INSTANCE, RECORD, body
from tests.support import HOTKEY, NOON, PATIENCE, Clock, served, watching

if TYPE_CHECKING:
    from starlette.requests import Request

    from chutes_exporter.api.records import AuditReport

HOUR = 3600


def entry(number: int, hour: int, **more: str) -> dict[str, Any]:
    """Return an entry of the list: a report of the hour that ends at a full hour."""
    return {
        "path": f"audit/validator/{HOTKEY}/{number}.json",
        "created_at": f"2026-11-24T{hour}:01:04",
        "start_time": f"2026-11-24T{hour - 1:02}:00:00",
        "end_time": f"2026-11-24T{hour}:00:00",
        **more,
    }


async def newest(
    *entries: dict[str, Any], status: int = 200, text: bytes = body([INSTANCE]), older: int = 200
) -> tuple[list[str], AuditReport]:
    """Return the paths that are asked for, and the newest report."""
    asked: list[str] = []

    async def listed(_request: Request) -> Response:
        return Response(json.dumps(entries))

    async def download(request: Request) -> Response:
        asked.append(request.query_params["path"])
        return Response(text, status if len(asked) == 1 else older)

    app = Starlette(routes=[Route("/audit/", listed), Route("/audit/download", download)])
    async with served(app) as url, ChutesClient(url) as client:
        last = await newest_report(client)
        downloads = len(asked)
        # It is downloaded once.
        assert await newest_report(client, last) is last
        assert len(asked) == downloads
    return asked, last.value


OLD = entry(1, 11)
FUTURE = entry(2, 12, end_time="2099-11-24T12:00:00", start_time="2099-11-24T11:00:00")


@pytest.mark.parametrize(
    "worse",
    [
        entry(2, 12, path=f"audit/miner/{HOTKEY}/9.json"),
        FUTURE,
        entry(2, 12, start_time="2026-11-24T10:00:00"),
        {"path": f"audit/validator/{HOTKEY}/9.json"},
    ],
    ids=["miner", "future", "two hours", "no time"],
)
async def test_only_a_report_of_the_validator_for_a_past_hour_is_asked_for(
    worse: dict[str, Any],
) -> None:
    asked, report = await newest(worse, OLD, entry(3, 10))
    assert (asked, report.end) == ([OLD["path"]], NOON - HOUR)
    assert (len(report.instances), report.multipliers, report.earlier_multipliers) == (1, [], [])


async def test_of_two_reports_of_an_hour_the_later_one_is_asked_for() -> None:
    later = entry(4, 11, created_at="2026-11-24T11:09:04")
    assert (await newest(later, OLD))[0] == [later["path"]]


async def test_a_list_without_a_report_and_a_report_that_is_gone_are_failures() -> None:
    with pytest.raises(UndecodableError):
        await newest(FUTURE)
    # The endpoint is not missing, because the list names it.
    with pytest.raises(UnavailableError):
        await newest(OLD, status=404)


@pytest.mark.parametrize(("status", "earlier"), [(200, 1), (503, 0)])
async def test_the_report_before_has_the_multipliers_of_instances_that_their_miners_deleted(
    status: int, earlier: int
) -> None:
    deleted = INSTANCE | {
        "deletion_reason": "miner initialized",
        "deleted_at": "2026-11-24T10:30:00",
    }
    text = body(
        [INSTANCE | {"instance_id": "other"}, deleted], [RECORD, RECORD | {"instance_id": "other"}]
    )
    asked, report = await newest(OLD, entry(3, 10), text=text, older=status)
    assert asked == [OLD["path"], entry(3, 10)["path"]]
    assert [record.instance_id for record in report.multipliers] == ["i"]
    assert [record.instance_id for record in report.earlier_multipliers] == ["i"] * earlier
    assert (await newest(OLD, text=text))[0] == [OLD["path"]]


async def test_a_report_is_requested_90_seconds_after_the_hour_and_a_late_one_each_minute(
    simulator: Simulator, clock: Clock
) -> None:
    asked: dict[int, list[str]] = {}
    later = Call(simulator.world, NOON + HOUR, simulator.world.miners[0], {}, {})
    async with Exporter(watching(simulator.url), clock=clock, monotonic=clock) as exporter:
        for minute in range(70):
            clock.now = NOON + 60 * minute + 5
            # The report of 13:00 is out five minutes late.
            late = {"audit": Fault(body=json.dumps(audit(later)).encode())}
            simulator.faults = late if HOUR <= 60 * minute < HOUR + 300 else {}
            before = len(simulator.requests)
            await exporter.feeds.read(AUDIT_REPORT, PATIENCE)
            # Where a miner deleted an instance, the report before is requested, too.
            asked[minute] = list(
                dict.fromkeys(one.endpoint for one in list(simulator.requests)[before:])
            )
    assert {minute: found for minute, found in asked.items() if found} == {
        0: ["audit", "audit_report"],
        2: ["audit", "audit_report"],
        62: ["audit"],
        63: ["audit"],
        64: ["audit"],
        65: ["audit", "audit_report"],
    }

"""The counters of ended instances: each end counts once, and none that was there at the start."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from chutes_exporter.feeds.definitions import AUDIT_REPORT
from chutes_exporter.page.exporter import Exporter
from tests.api.reports import INSTANCE, RECORD, body
from tests.exporters import asked_by, page_of, patient, served
from tests.feeds.test_reports import Api, entry
from tests.support import HOTKEY, PATIENCE, Clock, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chutes_exporter.config import Settings

OTHER = "5FyE2yEF8bHkYcJNi6yBrGrgHBMybbmcrUJziJ2a7of5bGda"
HOUR = 3600
PAY = 1.5
"""Compute units per second of all instances."""


def ended(name: str, at: str, text: str = "max failures reached", **more: Any) -> dict[str, Any]:
    """Return a private instance that was active since 10:00, and lost its score at a time."""
    times = {"activated_at": "2026-11-24T10:00:00", "deleted_at": f"2026-11-24T{at}"}
    miner = {"instance_id": name, "miner_hotkey": HOTKEY, "billed_to": "user"}
    return INSTANCE | times | miner | {"deletion_reason": text} | more


def report(*instances: dict[str, Any]) -> bytes:
    """Return a report of some ended instances, with their multipliers, and of one that runs."""
    records = [
        RECORD | {"instance_id": one["instance_id"], "ended_at": one["deleted_at"]}
        for one in instances
    ]
    return body([INSTANCE, *instances], records)


class Service:
    """An API with audit reports alone, and an exporter of it. It is 11:02 at first."""

    def __init__(self) -> None:
        self.api = Api()
        self.clock = Clock()
        self.clock.now += 120 - HOUR

    def add(self, hour: int, *instances: dict[str, Any], text: bytes = b"", **more: str) -> str:
        """Make the report until an hour of the day, and return its path."""
        one = entry(hour, hour, **more)
        self.api.entries.append(one)
        self.api.texts = {**self.api.texts, one["path"]: text or report(*instances)}
        return str(one["path"])

    @contextlib.asynccontextmanager
    async def exporter(self, *hotkeys: str) -> AsyncIterator[Exporter]:
        async with served(self.api.app) as self.url:
            settings = self.settings(*hotkeys or [HOTKEY])
            async with Exporter(settings, clock=self.clock, monotonic=self.clock) as exporter:
                yield exporter

    def settings(self, *hotkeys: str, **more: Any) -> Settings:
        return patient(self.url, hotkeys=hotkeys, **more)

    async def in_an_hour(self, exporter: Exporter) -> dict[tuple[str, ...], float]:
        self.clock.now += HOUR
        return await counted(exporter)


async def counted(exporter: Exporter, hotkey: str = HOTKEY) -> dict[tuple[str, ...], float]:
    """Return the counters of a miner when all reports were read: by the reason the ends with their
    outcome, or else the lost units.
    """
    # Enough for all reports, and three tries for one that fails.
    for _ in range(7):
        await exporter.feeds.read_all([AUDIT_REPORT], PATIENCE)
        await until(lambda: not asked_by(exporter))
        exporter.feeds.expire(AUDIT_REPORT)
        exporter.feeds.keep_only(exporter.plan.feeds)
    page = await page_of(exporter)
    values: dict[tuple[str, ...], float] = {}
    for (name, labels), value in page.items():
        if name in ("chutes_miner_instance_ends_total", LOST) and ("hotkey", hotkey) in labels:
            texts = dict(labels)
            values[(texts["reason"], *filter(None, [texts.get("outcome")]))] = value
    return values


LOST = "chutes_miner_observed_lost_compute_units_total"


def above_0(values: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    return {labels: value for labels, value in values.items() if value}


async def test_counters_start_at_0_and_leave_out_the_reports_of_the_start() -> None:
    service = Service()
    service.add(11, ended("newest", "10:30:00"))
    failing = service.add(10, ended("failing", "09:30:00"))
    service.add(9, ended("older", "08:30:00"))
    service.api.failing[failing] = 503
    async with service.exporter() as exporter:
        at_start = await counted(exporter)
        # 15 reasons and the unknown one, each with 3 outcomes and with its lost units.
        assert (len(at_start), set(at_start.values())) == (16 * (3 + 1), {0})
        # The report was there, so it does not count when it can be read at last.
        service.api.failing.clear()
        service.add(12)
        assert await service.in_an_hour(exporter) == at_start
        assert service.api.asked.count(failing) > 1


async def test_each_end_counts_once_however_often_it_is_reported() -> None:
    service = Service()
    service.add(11, ended("old", "11:00:00"))
    async with service.exporter() as exporter:
        await counted(exporter)
        scaled = ended("scaled", "12:00:00", "autoscaler - downscale adjustment")
        ends = [
            ended("failed", "11:30:00"),
            scaled | {"valid_termination": True},
            # Without chutes, nothing tells whether it was redeployed.
            ended("silent", "11:30:00", ""),
            ended("never active", "11:30:00", activated_at=None),
            ended("of another miner", "11:30:00", miner_hotkey=OTHER),
        ]
        # An end exactly at a full hour stands in both reports.
        service.add(12, ended("old", "11:00:00"), *ends)
        expected: dict[tuple[str, ...], float] = {
            ("requests", "lost"): 1,
            ("requests", "never_active"): 1,
            ("scale_down", "counts"): 1,
            ("unknown", "lost"): 1,
            ("requests",): 1.5 * HOUR * PAY,
            ("unknown",): 1.5 * HOUR * PAY,
        }
        assert above_0(await service.in_an_hour(exporter)) == expected
        # The report of the hour is made again, and all are read again for a miner that is new.
        service.add(12, *ends, path="audit/validator/again", created_at="2026-11-24T12:09:00")
        service.add(13, *ends)
        assert above_0(await service.in_an_hour(exporter)) == expected
        exporter.reconfigure(service.settings(HOTKEY, OTHER))
        assert above_0(await counted(exporter)) == expected


async def test_a_report_that_is_late_or_fails_at_first_counts_when_it_is_read() -> None:
    service = Service()
    service.add(11)
    async with service.exporter() as exporter:
        await counted(exporter)
        # The report until 12:00 is late, and that until 13:00 cannot be read.
        assert above_0(await service.in_an_hour(exporter)) == {}
        newest = service.add(13, ended("failing", "12:30:00"))
        service.api.failing[newest] = 503
        assert above_0(await service.in_an_hour(exporter)) == {}
        service.api.failing.clear()
        service.clock.now += 300
        assert (await counted(exporter))["requests", "lost"] == 1
        service.add(12, ended("late", "11:30:00"))
        service.add(14)
        assert (await service.in_an_hour(exporter))["requests", "lost"] == 2


async def test_a_new_miner_starts_at_0_and_one_that_is_no_longer_watched_has_no_counter() -> None:
    service = Service()
    service.add(11)
    theirs = {"miner_hotkey": OTHER}
    async with service.exporter() as exporter:
        await counted(exporter)
        service.add(12, ended("mine", "11:30:00"), ended("before", "11:30:00", **theirs))
        await service.in_an_hour(exporter)
        exporter.reconfigure(service.settings(HOTKEY, OTHER))
        assert set((await counted(exporter, OTHER)).values()) == {0}
        service.add(13, ended("my second", "12:30:00"), ended("new", "12:30:00", **theirs))
        assert (await service.in_an_hour(exporter))["requests", "lost"] == 2
        assert (await counted(exporter, OTHER))["requests", "lost"] == 1
        exporter.reconfigure(service.settings(OTHER))
        assert await counted(exporter) == {}
        assert (await counted(exporter, OTHER))["requests", "lost"] == 1
        # The reader still has the reports of both.
        service.add(14, ended("meanwhile", "13:30:00"))
        await service.in_an_hour(exporter)
        exporter.reconfigure(service.settings(HOTKEY, OTHER))
        assert set((await counted(exporter)).values()) == {0}
        off = {"collectors": {"ended_instances": False}}
        exporter.reconfigure(service.settings(OTHER, **off))
        assert await counted(exporter, OTHER) == {}


async def test_a_loss_that_becomes_known_later_is_added_then() -> None:
    service = Service()
    service.add(11)
    async with service.exporter() as exporter:
        await counted(exporter)
        end = ended("unknown at first", "11:30:00")
        service.add(12, text=body([INSTANCE, end], []))
        assert above_0(await service.in_an_hour(exporter)) == {("requests", "lost"): 1}
        service.add(13, end)
        both = {("requests", "lost"): 1.0, ("requests",): 1.5 * HOUR * PAY}
        assert above_0(await service.in_an_hour(exporter)) == both

"""The CSV of multipliers: how it is read, and the compute units that it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from chutes_exporter.api import endpoints as e
from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.decoding import CsvShape, Tally
from chutes_exporter.api.errors import CutOffError, UndecodableError
from chutes_exporter.api.meaning import hourly_compute_units
from chutes_exporter.api.records import ComputeRecord, Instance, decode_hook
from chutes_exporter.simulator import Fault, Simulator
from tests.support import HOTKEY, NOON, Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HEAD = b"instance_id,compute_multiplier,started_at,ended_at\r\n"
HOUR = 3600.0
NINE, TEN, ELEVEN = (f"2026-11-24 {hour}:00:00" for hour in ("09", "10", "11"))


async def read(body: bytes, size: int = 11) -> tuple[list[ComputeRecord], Tally]:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    assert isinstance(e.COMPUTE_HISTORY.shape, CsvShape)
    tally = Tally()
    return [record async for record in e.COMPUTE_HISTORY.shape.decode(chunks(), tally)], tally


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_lines_become_records_however_they_are_cut_into_chunks(size: int) -> None:
    body = HEAD + b"a,0.5,2026-11-24 11:00:00.5,2026-11-24 12:00:00\r\nb,,2026-11-24 12:00:00,\r\n"
    records, tally = await read(body, size)
    assert records == [
        ComputeRecord("a", NOON - HOUR + 0.5, 0.5, NOON),  # type: ignore[arg-type]
        ComputeRecord("b", NOON, None, None),  # type: ignore[arg-type]
    ]
    assert (tally.accepted, tally.rejected) == (2, 0)


async def test_a_new_column_is_skipped_and_columns_may_come_in_another_order() -> None:
    records, _ = await read(b"ended_at,x,started_at,compute_multiplier,instance_id\n,9,2026-11-24 12:00:00,2,a\n")
    assert records == [ComputeRecord("a", NOON, 2.0, None)]  # type: ignore[arg-type]


async def test_lines_that_cannot_be_read_are_counted() -> None:
    good = b"a,1,2026-11-24 12:00:00,\r\n" * 5
    bad = b"b,1\r\nc,much,2026-11-24 12:00:00,\r\nd,1,yesterday,\r\n\xff,1,,\r\n"
    records, tally = await read(HEAD + bad + good)
    assert (len(records), tally.accepted, tally.rejected) == (5, 5, 4)
    with pytest.raises(UndecodableError, match="4 of 4"):
        await read(HEAD + bad)


async def test_a_list_that_ends_inside_a_line_is_cut_off() -> None:
    with pytest.raises(CutOffError, match="inside a line"):
        await read(HEAD + b"a,1,2026-11-24 12:0")


@pytest.mark.parametrize("body", [b"", b"\r\n"])
async def test_an_empty_body_is_no_answer(body: bytes) -> None:
    with pytest.raises(CutOffError, match="empty"):
        await read(body)


async def test_another_table_is_refused() -> None:
    with pytest.raises(UndecodableError, match="no column started_at"):
        await read(b"instance_id,deleted_at\r\n")


async def test_only_the_records_that_are_asked_for_are_kept(simulator: Simulator) -> None:
    world = simulator.world
    own = {one.instance_id for one in world.instances(NOON, HOTKEY) if one.activated(NOON)}
    every = [row for one in world.all_instances(NOON) for row in one.history(NOON)]
    received: list[int] = []
    async with ChutesClient(simulator.url) as client:
        answer = await client.fetch(
            e.COMPUTE_HISTORY, progress=received.append, keep=lambda record: record.instance_id in own
        )
    assert {record.instance_id for record in answer.value} == own
    assert len(every) * 0.8 < answer.count <= len(every)
    assert received[-1] == answer.size


async def test_the_service_sends_the_records_of_8_days(simulator: Simulator, clock: Clock) -> None:
    clock.now = NOON + 2 * 86400
    async with ChutesClient(simulator.url) as client:
        answer = await client.fetch(e.COMPUTE_HISTORY)
    ends = [record.ended_at for record in answer.value if record.ended_at is not None]
    assert NOON - 6 * 86400 < min(ends) < NOON - 5.9 * 86400
    rows = [row for one in simulator.world.all_instances(clock.now) for row in one.history(clock.now)]
    assert answer.count == sum(end is None or end > NOON - 6 * 86400 for _, end, _ in rows) < len(rows)


async def test_a_failure_halfway_is_a_failure(simulator: Simulator) -> None:
    simulator.faults["compute_history"] = Fault(cut_after=1000)
    async with ChutesClient(simulator.url) as client:
        with pytest.raises(CutOffError):
            await client.fetch(e.COMPUTE_HISTORY)


def instance(**fields: Any) -> Instance:
    record: Instance = msgspec.convert({"instance_id": "i", "chute_id": "c"} | fields, Instance, dec_hook=decode_hook)
    return record


def record(start: str, end: str | None, multiplier: float | None) -> ComputeRecord:
    fields = {"instance_id": "i", "started_at": start, "ended_at": end, "compute_multiplier": multiplier}
    made: ComputeRecord = msgspec.convert(fields, ComputeRecord, dec_hook=decode_hook)
    return made


def test_each_second_counts_with_the_multiplier_of_its_time() -> None:
    active = instance(activated_at="2026-11-24T09:50:00+00:00")
    records = [record("2026-11-24 09:30:00", "2026-11-24 09:50:00", 1.0), record("2026-11-24 09:50:00", None, 2.0)]
    # 09:30 to 09:50 at 1, then at 2 until 12:20: the hour that ends at 13:00 is not over.
    assert hourly_compute_units(active, records, NOON + 1200) == {
        NOON - 2 * HOUR: 1200 + 2 * 600,
        NOON - HOUR: 7200,
        NOON: 7200,
    }


def test_an_instance_that_was_never_active_earned_nothing() -> None:
    records = [record(NINE, None, 1.0)]
    assert hourly_compute_units(instance(activated_at=None), records, NOON) == {}
    assert hourly_compute_units(instance(), records, NOON) == {}


def test_billing_that_stopped_ends_the_earning() -> None:
    stopped = instance(activated_at=NINE, stop_billing_at="2026-11-24 10:30:00")
    assert hourly_compute_units(stopped, [record(NINE, None, 1.0)], NOON) == {
        NOON - 2 * HOUR: 3600,
        NOON - HOUR: 1800,
    }


def test_an_hour_with_an_unknown_multiplier_is_left_out() -> None:
    active = instance(activated_at=NINE)
    records = [record(NINE, TEN, 1.0), record(TEN, "2026-11-24 10:30:00", None), record("2026-11-24 10:30:00", None, 1)]
    assert hourly_compute_units(active, records, NOON) == {NOON - 2 * HOUR: 3600, NOON: 3600}


def test_only_full_hours_of_the_past_7_days_are_returned() -> None:
    old = instance(activated_at="2026-11-01 00:00:00")
    units = hourly_compute_units(old, [record("2026-11-01 00:00:00", None, 0.5)], NOON + 1)
    assert len(units) == 167
    assert set(units.values()) == {1800}
    assert (min(units), max(units)) == (NOON - 166 * HOUR, NOON)
    assert ELEVEN > TEN

"""The compute units of an instance, computed from the history of its multiplier."""

from __future__ import annotations

from typing import Any

import msgspec

from chutes_exporter.api.meaning import hourly_compute_units
from chutes_exporter.api.records import ComputeRecord, Instance, decode_hook
from tests.support import NOON

HOUR = 3600.0
NINE, TEN = (f"2026-11-24 {hour}:00:00" for hour in ("09", "10"))


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

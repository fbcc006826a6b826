from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chutes_exporter.api.records import ChuteMetrics
from chutes_exporter.rules.demand import demand_is_unknown, unknown_metrics

BUSY = {
    "chute_id": "busy",
    "total_invocations": 120,
    "total_compute_time": 600.0,
    "rate_limit_count": 4,
    "total_usage_usd": 1.5,
    "utilization": 1.25,
    "instance_count": 3,
}
QUIET = {
    "chute_id": "quiet",
    "total_invocations": 0,
    "total_compute_time": 0.0,
    "rate_limit_count": 0,
    "total_usage_usd": 0.0,
    "utilization": 0.0,
    "instance_count": 1,
}
DEMAND = ("total_invocations", "total_compute_time", "total_usage_usd", "utilization")


def unknown(*records: dict[str, Any]) -> set[str]:
    return {*unknown_metrics(msgspec.convert(records, list[ChuteMetrics], strict=False))}


@pytest.mark.parametrize("field", DEMAND)
def test_a_field_that_is_zero_for_every_chute_was_not_measured(field: str) -> None:
    assert unknown(BUSY, QUIET) == set()
    assert unknown(BUSY | {field: 0}, QUIET) == {field}


def test_where_no_chute_has_any_demand_nothing_was_measured() -> None:
    idle = BUSY | {"total_invocations": 0, "utilization": 0}
    assert unknown(idle, QUIET) == {*DEMAND, "rate_limit_count"}


def test_it_is_possible_that_nobody_was_refused() -> None:
    assert unknown(BUSY | {"rate_limit_count": 0}) == set()


def test_without_a_chute_the_monitoring_may_be_well() -> None:
    assert not demand_is_unknown([])

from __future__ import annotations

from typing import Any

from chutes_exporter.api.records import ChuteMetrics
from chutes_exporter.rules.demand import demand_is_unknown, unknown_metrics


def demand(**fields: Any) -> ChuteMetrics:
    return ChuteMetrics("c", **fields)


def test_demand_is_unknown_where_nobody_has_any() -> None:
    fields = dict.fromkeys(
        ("total_invocations", "utilization", "rate_limit_count", "total_compute_time", "total_usage_usd"), 0.0
    )
    zero = demand(**fields)
    assert demand_is_unknown([zero, zero])
    assert not demand_is_unknown([zero, demand(total_invocations=1)])
    assert not demand_is_unknown([zero, demand(utilization=0.01)])
    assert not demand_is_unknown([])
    assert {*unknown_metrics([zero])} == fields.keys()


def test_a_value_that_was_not_measured_is_unknown() -> None:
    rest = {"total_compute_time": 2.0, "total_usage_usd": 1.0}
    assert unknown_metrics([demand(total_invocations=3, utilization=0.0, **rest)]) == ["utilization"]
    assert unknown_metrics([demand(total_invocations=0, utilization=0.5, **rest)]) == ["total_invocations"]
    # That nobody was refused is possible.
    assert unknown_metrics([demand(total_invocations=3, utilization=0.5, rate_limit_count=0, **rest)]) == []

from __future__ import annotations

import pytest

from chutes_exporter.collectors.metrics import COLLECTOR
from chutes_exporter.feeds.table import CHUTE_METRICS
from tests.collectors.support import collected, of

BUSY = {
    "chute_id": "busy",
    "total_invocations": 120,
    "total_compute_time": 600.0,
    "rate_limit_count": 4,
    "total_usage_usd": 1.5,
    "utilization": 1.25,
    "instance_count": 3,
    "compute_multiplier": 4.5,
    "per_second_price_usd": 0.005,
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
DEMAND = {
    "total_invocations": "chutes_chute_window_invocations",
    "total_compute_time": "chutes_chute_window_compute_seconds",
    "total_usage_usd": "chutes_chute_window_usage_usd",
    "utilization": "chutes_chute_utilization_ratio",
}


def test_where_no_chute_has_any_demand_it_is_unknown_and_the_rest_is_known() -> None:
    idle = BUSY | dict.fromkeys((*DEMAND, "rate_limit_count"), 0)
    assert collected(COLLECTOR, {CHUTE_METRICS: [idle, QUIET]}) == {
        "chutes_chute_instances{chute_id=busy}": 3,
        "chutes_chute_compute_multiplier{chute_id=busy}": 4.5,
        "chutes_chute_price_usd_per_second{chute_id=busy}": 0.005,
        "chutes_chute_instances{chute_id=quiet}": 1,
    }


@pytest.mark.parametrize("field", DEMAND)
def test_a_field_that_is_zero_for_every_chute_was_not_measured(field: str) -> None:
    whole = collected(COLLECTOR, {CHUTE_METRICS: [BUSY, QUIET]})
    made = collected(COLLECTOR, {CHUTE_METRICS: [BUSY | {field: 0}, QUIET]})
    assert made == {key: value for key, value in whole.items() if not key.startswith(DEMAND[field])}


def test_it_is_possible_that_nobody_was_refused() -> None:
    made = collected(COLLECTOR, {CHUTE_METRICS: [BUSY | {"rate_limit_count": 0}]})
    assert of(made, "chutes_chute_window_rate_limits") == {
        "chutes_chute_window_rate_limits{chute_id=busy,window=1h}": 0
    }

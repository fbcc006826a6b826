from __future__ import annotations

from chutes_exporter.collectors.chutes import DEMAND_COLLECTOR as COLLECTOR
from chutes_exporter.feeds.definitions import CHUTE_METRICS
from tests.collectors.support import Samples, collected

BUSY = {
    "chute_id": "busy",
    "total_invocations": 120,
    "total_compute_time": 600.0,
    "rate_limit_count": 4,
    "total_usage_usd": 1.5,
    "utilization": 1.25,
    "instance_count": 3,
}
NOTHING = dict.fromkeys(("total_invocations", "total_compute_time", "total_usage_usd"), 0)
QUIET = BUSY | NOTHING | {"chute_id": "quiet", "utilization": 0, "rate_limit_count": 0}


def run(*records: dict[str, object]) -> Samples:
    return collected(COLLECTOR, {CHUTE_METRICS: list(records)})


def test_a_field_that_is_zero_for_every_chute_was_not_measured() -> None:
    gone = run(BUSY, QUIET).keys() - run(BUSY | {"utilization": 0}, QUIET).keys()
    assert {series.partition("{")[0] for series in gone} == {"chutes_chute_utilization_ratio"}


def test_where_no_chute_has_any_demand_it_is_unknown_and_the_rest_is_known() -> None:
    idle = BUSY | {"total_invocations": 0, "utilization": 0}
    assert run(idle, QUIET) == {
        "chutes_chute_instances{chute_id=busy}": 3,
        "chutes_chute_instances{chute_id=quiet}": 3,
    }

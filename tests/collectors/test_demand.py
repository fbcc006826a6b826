from __future__ import annotations

from chutes_exporter.collectors.chutes import DEMAND_COLLECTOR as COLLECTOR
from chutes_exporter.feeds.definitions import CHUTE_METRICS, CHUTES
from tests.collectors.support import collected, of
from tests.rules.test_demand import BUSY, QUIET

MEASURED = {
    "chutes_chute_window_invocations{chute_id=busy,window=1h}": 120,
    "chutes_chute_window_invocations{chute_id=quiet,window=1h}": 0,
    "chutes_chute_instances{chute_id=busy}": 3,
    "chutes_chute_instances{chute_id=quiet}": 1,
}


def test_a_chute_has_its_requests_of_an_hour_and_of_a_day() -> None:
    day = {"chute_id": "busy", "invocation_count": 900}
    made = collected(COLLECTOR, {CHUTE_METRICS: [BUSY, QUIET], CHUTES: [day]})
    both = of(made, "chutes_chute_window_invocations", "chutes_chute_instances")
    assert both == MEASURED | {"chutes_chute_window_invocations{chute_id=busy,window=1d}": 900}


def test_where_no_chute_has_any_demand_it_is_unknown_and_the_rest_is_known() -> None:
    idle = BUSY | {"total_invocations": 0, "utilization": 0}
    assert collected(COLLECTOR, {CHUTE_METRICS: [idle, QUIET]}) == {
        key: value for key, value in MEASURED.items() if key.startswith("chutes_chute_instances")
    }

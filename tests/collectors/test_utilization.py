from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.chutes import UTILIZATION_COLLECTOR as COLLECTOR
from chutes_exporter.feeds.definitions import UTILIZATION
from tests.collectors.support import Samples, collected, of

BUSY = {
    "chute_id": "busy",
    "name": "[private chute]",
    "timestamp": "2026-11-24T12:00:00",
    "utilization_5m": 0.9,
    "utilization_15m": 0.8,
    "utilization_1h": 1.25,
    "rate_limit_ratio_5m": 0.1,
    "rate_limit_ratio_15m": 0.0,
    "rate_limit_ratio_1h": 0.05,
    "instance_count": 3,
    "target_count": 4,
    "total_instance_count": 5,
    "active_instance_count": 2,
    "scalable": True,
    "scale_allowance": 4,
}
TARGET = "chutes_chute_target_instances"
RATIOS = ("chutes_chute_recent_utilization_ratio", "chutes_chute_rate_limited_ratio")
LOAD = ("utilization_5m", "utilization_15m", "utilization_1h")


def run(*chutes: dict[str, Any], **options: Any) -> Samples:
    return collected(COLLECTOR, {UTILIZATION: list(chutes)}, **options)


@pytest.mark.parametrize(
    ("logged", "target"),
    [(1, {f"{TARGET}{{chute_id=busy}}": 1}), (2, {f"{TARGET}{{chute_id=busy}}": 2}), (3, {})],
)
def test_without_an_allowance_the_logged_target_counts_unless_it_would_allow_more(
    logged: int, target: dict[str, float]
) -> None:
    # More than the two active instances would need an allowance.
    full = BUSY | {"scale_allowance": 0, "scalable": False, "target_count": logged}
    assert of(run(full), TARGET) == target


def test_a_zero_of_a_chute_without_instances_was_not_measured() -> None:
    # Of the ratios, only that of refused requests in an hour is not 0.
    silent = BUSY | dict.fromkeys((*LOAD, "rate_limit_ratio_5m"), 0.0)
    cold = silent | {"chute_id": "cold", "instance_count": 0}
    idle = silent | {"chute_id": "idle", "instance_count": 1}
    made = of(run(BUSY, cold, idle), *RATIOS)
    # That one was measured before the chute lost its instances.
    assert {key: value for key, value in made.items() if "=cold" in key} == {
        "chutes_chute_rate_limited_ratio{chute_id=cold,window=1h}": 0.05
    }
    assert {key: value for key, value in made.items() if "=idle" in key} == {
        "chutes_chute_recent_utilization_ratio{chute_id=idle,window=15m}": 0,
        "chutes_chute_recent_utilization_ratio{chute_id=idle,window=1h}": 0,
        "chutes_chute_rate_limited_ratio{chute_id=idle,window=15m}": 0,
        "chutes_chute_rate_limited_ratio{chute_id=idle,window=1h}": 0.05,
    }


def test_where_no_chute_has_any_load_it_is_unknown_and_the_room_is_known() -> None:
    silent = BUSY | dict.fromkeys((*LOAD, "rate_limit_ratio_5m"), 0.0)
    made = run(silent, silent | {"chute_id": "other"})
    assert of(made, *RATIOS) == {}
    # Two active instances, and an allowance of four.
    assert made["chutes_chute_target_instances{chute_id=other}"] == 6

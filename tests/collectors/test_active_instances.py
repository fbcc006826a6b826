from __future__ import annotations

from typing import Any

from chutes_exporter.collectors.active_instances import COLLECTOR
from chutes_exporter.feeds.table import ACTIVE_INSTANCES
from tests.collectors.support import ME, NOON_TEXT, collected


def instance(number: int, hotkey: str = ME, **fields: Any) -> dict[str, Any]:
    return {
        "instance_id": f"i{number}",
        "miner_hotkey": hotkey,
        "chute_id": "c",
        "activated_at": NOON_TEXT,
        "compute_multiplier": 2.0,
    } | fields


def test_a_watched_miner_without_instances_has_zeros_and_no_activation() -> None:
    made = collected(COLLECTOR, {ACTIVE_INSTANCES: [instance(1, "other")]})
    assert {key: value for key, value in made.samples.items() if "hotkey" in key} == {
        "chutes_miner_active_instances{hotkey=me}": 0,
        "chutes_miner_active_compute_multiplier{hotkey=me}": 0,
    }


def test_an_instance_of_an_unknown_miner_hides_the_counts_of_all_miners() -> None:
    made = collected(COLLECTOR, {ACTIVE_INSTANCES: [instance(1), instance(2) | {"miner_hotkey": None}]})
    assert made.of("chutes_platform_active_instances") == {"chutes_platform_active_instances": 2}
    assert not [key for key in made.samples if "hotkey" in key]

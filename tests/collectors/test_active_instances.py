from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.collectors.active_instances import COLLECTOR
from chutes_exporter.feeds.table import ACTIVE_INSTANCES
from tests.collectors.support import ELEVEN_TEXT, HOUR, ME, NOON, NOON_TEXT, UNREADABLE, collected

if TYPE_CHECKING:
    from chutes_exporter.collectors import MinersChoice


def instance(number: int, hotkey: str = ME, **fields: Any) -> dict[str, Any]:
    return {
        "instance_id": f"i{number}",
        "miner_hotkey": hotkey,
        "chute_id": "c",
        "activated_at": NOON_TEXT,
        "compute_multiplier": 2.0,
    } | fields


def test_the_instances_of_the_platform_the_chutes_and_the_watched_miner_are_counted() -> None:
    answer = [
        instance(1, compute_multiplier=1.5),
        instance(2, chute_id="d", activated_at=ELEVEN_TEXT),
        instance(3, "other", compute_multiplier=0.25),
    ]
    assert collected(COLLECTOR, {ACTIVE_INSTANCES: answer}).samples == {
        "chutes_platform_active_instances": 3,
        "chutes_platform_active_compute_multiplier": 3.75,
        "chutes_chute_active_instances{chute_id=c}": 2,
        "chutes_chute_active_instances{chute_id=d}": 1,
        "chutes_miner_active_instances{hotkey=me}": 2,
        "chutes_miner_active_compute_multiplier{hotkey=me}": 3.5,
        "chutes_miner_last_activation_timestamp_seconds{hotkey=me}": NOON,
    }


def test_the_newest_activation_counts_in_any_order() -> None:
    older, newer = instance(1, activated_at=ELEVEN_TEXT), instance(2)
    for answer in ([older, newer], [newer, older]):
        made = collected(COLLECTOR, {ACTIVE_INSTANCES: answer})
        assert made.of("chutes_miner_last_activation_timestamp_seconds") == {
            "chutes_miner_last_activation_timestamp_seconds{hotkey=me}": NOON
        }
    alone = collected(COLLECTOR, {ACTIVE_INSTANCES: [older]})
    assert alone.samples["chutes_miner_last_activation_timestamp_seconds{hotkey=me}"] == NOON - HOUR


def test_a_watched_miner_without_instances_has_zeros_and_no_activation() -> None:
    made = collected(COLLECTOR, {ACTIVE_INSTANCES: [instance(1, "other")]})
    assert {key: value for key, value in made.samples.items() if "hotkey" in key} == {
        "chutes_miner_active_instances{hotkey=me}": 0,
        "chutes_miner_active_compute_multiplier{hotkey=me}": 0,
    }


@pytest.mark.parametrize(("miners", "exported"), [("watched", {"me"}), ("active", {"me", "a"}), ("all", {"me", "a"})])
def test_other_miners_are_exported_where_the_user_wants_them(miners: MinersChoice, exported: set[str]) -> None:
    made = collected(COLLECTOR, {ACTIVE_INSTANCES: [instance(1), instance(2, "a")]}, miners=miners)
    assert made.of("chutes_miner_active_instances").keys() == {
        f"chutes_miner_active_instances{{hotkey={hotkey}}}" for hotkey in exported
    }


def test_an_instance_that_is_listed_twice_counts_once() -> None:
    made = collected(COLLECTOR, {ACTIVE_INSTANCES: [instance(1), instance(1)]})
    assert made.samples["chutes_platform_active_instances"] == 1
    assert made.samples["chutes_miner_active_compute_multiplier{hotkey=me}"] == 2
    assert made.duplicates == 1


def test_a_sum_with_an_unknown_multiplier_is_absent() -> None:
    answer = [instance(1), instance(2, "other", compute_multiplier=None)]
    made = collected(COLLECTOR, {ACTIVE_INSTANCES: answer}, miners="all")
    assert made.of("chutes_platform_active_compute_multiplier", "chutes_miner_active_compute_multiplier") == {
        "chutes_miner_active_compute_multiplier{hotkey=me}": 2
    }
    assert made.samples["chutes_platform_active_instances"] == 2


def test_an_unknown_chute_hides_the_counts_of_all_chutes() -> None:
    made = collected(COLLECTOR, {ACTIVE_INSTANCES: [instance(1), instance(2, chute_id=None)]})
    assert made.of("chutes_chute_active_instances") == {}
    assert made.samples["chutes_miner_active_instances{hotkey=me}"] == 2


def test_an_instance_of_an_unknown_miner_hides_the_counts_of_all_miners() -> None:
    made = collected(COLLECTOR, {ACTIVE_INSTANCES: [instance(1), instance(2, miner_hotkey=None)]}, miners="all")
    assert made.samples == {
        "chutes_platform_active_instances": 2,
        "chutes_platform_active_compute_multiplier": 4,
        "chutes_chute_active_instances{chute_id=c}": 2,
    }


def test_an_unknown_activation_may_be_the_newest() -> None:
    made = collected(COLLECTOR, {ACTIVE_INSTANCES: [instance(1), instance(2, activated_at=None)]})
    assert made.of("chutes_miner_last_activation_timestamp_seconds") == {}


def test_an_incomplete_answer_counts_nothing() -> None:
    assert collected(COLLECTOR, {ACTIVE_INSTANCES: [instance(1), UNREADABLE]}).samples == {}
    assert collected(COLLECTOR, {ACTIVE_INSTANCES: [instance(1)]}, doubted=[ACTIVE_INSTANCES]).samples == {}

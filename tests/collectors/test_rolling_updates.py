from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.rolling_updates import COLLECTOR
from chutes_exporter.feeds.table import INSTANCES, ROLLING_UPDATES
from tests.collectors.support import HOUR, ME, NOON, OTHER, UNREADABLE, Collected, collected

# Times without an offset mean UTC.
UPDATE = {"chute_id": "c", "old_version": "v1", "new_version": "v2", "started_at": "2026-11-24T11:00:00"}
STARTED = "chutes_rolling_update_started_timestamp_seconds{chute_id=c}"


def instance(number: int, chute: str | None = "c", version: str | None = "v1") -> dict[str, Any]:
    return {"instance_id": f"i{number}", "chute_id": chute, "version": version, "active": True, "verified": True}


def run(
    *updates: dict[str, Any], instances: dict[str, list[dict[str, Any]]] | None = None, **options: Any
) -> Collected:
    extra = {(INSTANCES, hotkey): answer for hotkey, answer in (instances or {}).items()}
    return collected(COLLECTOR, {ROLLING_UPDATES: list(updates)}, extra=extra, **options)


def outdated(made: Collected, hotkey: str = ME) -> dict[str, float]:
    head = f"chutes_instance_outdated{{hotkey={hotkey},instance_id="
    return {key.removeprefix(head).rstrip("}"): value for key, value in made.samples.items() if key.startswith(head)}


def test_an_update_has_its_start_and_makes_old_instances_outdated() -> None:
    made = run(UPDATE, instances={ME: [instance(1), instance(2, version="v2"), instance(3, chute="d")]})
    assert made.samples[STARTED] == NOON - HOUR
    assert outdated(made) == {"i1": 1, "i2": 0, "i3": 0}


def test_an_instance_of_a_still_older_version_is_outdated_too() -> None:
    assert outdated(run(UPDATE, instances={ME: [instance(1, version="v0")]})) == {"i1": 1}


@pytest.mark.parametrize(
    ("fields", "value"),
    [({"active": False}, 0), ({"verified": False}, 0), ({"active": None}, None), ({"verified": None}, None)],
)
def test_only_active_verified_instances_are_replaced(fields: dict[str, Any], value: float | None) -> None:
    made = outdated(run(UPDATE, instances={ME: [instance(1) | fields]}))
    assert made == ({} if value is None else {"i1": value})


def test_an_unknown_value_makes_no_sample() -> None:
    unsure = [instance(1, chute=None), instance(2, version=None), instance(3, chute="d", version=None)]
    # Without an update of its chute, the version of an instance does not matter.
    assert outdated(run(UPDATE, instances={ME: unsure})) == {"i3": 0}
    made = run({"chute_id": "c"}, instances={ME: [instance(1), instance(2, chute="d")]})
    assert made.samples == {f"chutes_instance_outdated{{hotkey={ME},instance_id=i2}}": 0}


def test_where_an_update_may_be_missing_no_instance_is_said_to_be_up_to_date() -> None:
    instances = {ME: [instance(1), instance(2, chute="d")]}
    assert run(UPDATE, UNREADABLE, instances=instances).samples == {STARTED: NOON - HOUR}
    assert run(UPDATE, instances=instances, doubted=[ROLLING_UPDATES]).samples == {STARTED: NOON - HOUR}


def test_a_page_about_one_miner_has_only_its_instances() -> None:
    made = run(UPDATE, instances={ME: [instance(1)], OTHER: [instance(2)]})
    assert outdated(made) == {"i1": 1}
    assert outdated(made, OTHER) == {}

from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.instances import COLLECTOR
from chutes_exporter.feeds.table import INSTANCES
from tests.collectors.support import ELEVEN_TEXT, HOUR, NOON, NOON_TEXT, UNREADABLE, Collected, collected

STARTING: dict[str, Any] = {"active": False, "activated_at": None}
ACTIVE = {"active": True, "activated_at": NOON_TEXT}
DISABLED = {"active": False, "activated_at": NOON_TEXT}


def run(*fields: dict[str, Any], **options: Any) -> Collected:
    """Run the collector on instances with these fields, named i0, i1 and so on."""
    answer = [{"instance_id": f"i{number}"} | one for number, one in enumerate(fields)]
    return collected(COLLECTOR, {INSTANCES: answer}, **options)


def value(made: Collected, name: str) -> float | None:
    """Return the value that the first instance has of a metric."""
    return made.samples.get(f"chutes_instance_{name}{{hotkey=me,instance_id=i0}}")


def test_an_active_public_instance_has_its_chute_its_times_and_what_it_earns() -> None:
    instance = {
        "chute_id": "c",
        "version": "v1",
        "chutes_version": "0.4.0",
        "billed_to": None,
        "active": True,
        "verified": True,
        "created_at": ELEVEN_TEXT,
        "activated_at": NOON_TEXT,
        "last_verified_at": "2026-11-24T12:10:00+00:00",
        "compute_multiplier": 3.5,
        "hourly_rate": 16.0,
        "bounty": True,
    }
    assert run(instance).samples == {
        "chutes_instance_info{hotkey=me,instance_id=i0,chute_id=c,version=v1,chutes_version=0.4.0}": 1,
        "chutes_instance_active{hotkey=me,instance_id=i0}": 1,
        "chutes_instance_verified{hotkey=me,instance_id=i0}": 1,
        "chutes_instance_created_timestamp_seconds{hotkey=me,instance_id=i0}": NOON - HOUR,
        "chutes_instance_activated_timestamp_seconds{hotkey=me,instance_id=i0}": NOON,
        "chutes_instance_secured_timestamp_seconds{hotkey=me,instance_id=i0}": NOON + HOUR,
        "chutes_instance_last_verified_timestamp_seconds{hotkey=me,instance_id=i0}": NOON + 600,
        "chutes_instance_compute_multiplier{hotkey=me,instance_id=i0}": 3.5,
        "chutes_instance_price_usd_per_hour{hotkey=me,instance_id=i0}": 16,
        "chutes_instance_bounty{hotkey=me,instance_id=i0}": 1,
        "chutes_fleet_instances{hotkey=me,state=active}": 1,
        "chutes_fleet_instances{hotkey=me,state=starting}": 0,
        "chutes_fleet_instances{hotkey=me,state=disabled}": 0,
    }


def test_a_miner_without_instances_has_zeros() -> None:
    assert run().samples == {
        "chutes_fleet_instances{hotkey=me,state=active}": 0,
        "chutes_fleet_instances{hotkey=me,state=starting}": 0,
        "chutes_fleet_instances{hotkey=me,state=disabled}": 0,
    }


def test_instances_are_counted_by_state() -> None:
    made = run(ACTIVE, STARTING, STARTING, DISABLED, DISABLED, DISABLED)
    assert made.of("chutes_fleet_instances") == {
        "chutes_fleet_instances{hotkey=me,state=active}": 1,
        "chutes_fleet_instances{hotkey=me,state=starting}": 2,
        "chutes_fleet_instances{hotkey=me,state=disabled}": 3,
    }


def test_a_private_instance_names_its_user_and_is_never_secured() -> None:
    made = run(ACTIVE | {"billed_to": "user", "stop_billing_at": "2026-11-24T12:00:00"})
    assert made.of("chutes_instance_info") == {"chutes_instance_info{hotkey=me,instance_id=i0,billed_to=user}": 1}
    assert value(made, "secured_timestamp_seconds") is None
    # This one time has no offset in the API, and means UTC.
    assert value(made, "stop_billing_timestamp_seconds") == NOON


def test_an_instance_that_is_not_verified_is_purged_three_and_a_half_hours_after_its_creation() -> None:
    made = run(STARTING | {"verified": False, "created_at": NOON_TEXT, "billed_to": None})
    assert value(made, "purge_timestamp_seconds") == NOON + 3.5 * HOUR
    assert value(made, "activated_timestamp_seconds") is None
    assert value(made, "secured_timestamp_seconds") is None


def test_a_verified_instance_is_purged_three_hours_after_its_verification() -> None:
    made = run(STARTING | {"verified": True, "created_at": NOON_TEXT, "last_verified_at": "2026-11-24T12:10:00+00:00"})
    assert value(made, "purge_timestamp_seconds") == NOON + 600 + 3 * HOUR


def test_a_late_verification_does_not_move_the_purge() -> None:
    made = run(STARTING | {"verified": True, "created_at": ELEVEN_TEXT, "last_verified_at": NOON_TEXT})
    assert value(made, "purge_timestamp_seconds") == NOON + 2.5 * HOUR


@pytest.mark.parametrize("missing", ["verified", "created_at", "last_verified_at"])
def test_without_what_decides_the_purge_is_unknown(missing: str) -> None:
    fields = {"verified": True, "created_at": ELEVEN_TEXT, "last_verified_at": NOON_TEXT} | {missing: None}
    assert value(run(STARTING | fields), "purge_timestamp_seconds") is None


@pytest.mark.parametrize("state", [ACTIVE, DISABLED])
def test_an_instance_that_does_not_start_has_no_time_of_a_purge(state: dict[str, Any]) -> None:
    made = run(state | {"verified": False, "created_at": NOON_TEXT})
    assert value(made, "purge_timestamp_seconds") is None


def test_an_unknown_field_makes_no_sample_and_zero_is_known() -> None:
    assert run({}).samples == {}
    assert run({"billed_to": None}).samples == {"chutes_instance_info{hotkey=me,instance_id=i0}": 1}
    made = run({"compute_multiplier": 0.0, "bounty": False, "active": False, "verified": False})
    names = ("compute_multiplier", "bounty", "active", "verified")
    assert [value(made, name) for name in names] == [0, 0, 0, 0]


def test_an_instance_in_an_unknown_state_hides_the_counts() -> None:
    made = run(ACTIVE | {"billed_to": None}, {"active": False, "billed_to": None})
    assert made.of("chutes_fleet_instances") == {}
    assert len(made.of("chutes_instance_info")) == 2


def test_an_instance_that_is_listed_twice_counts_once() -> None:
    made = run(ACTIVE | {"instance_id": "i"}, ACTIVE | {"instance_id": "i"})
    assert made.samples["chutes_fleet_instances{hotkey=me,state=active}"] == 1
    assert made.duplicates == 1


def test_an_incomplete_answer_shows_what_it_has_and_counts_nothing() -> None:
    for made in (run(ACTIVE, UNREADABLE), run(ACTIVE, doubted=[INSTANCES])):
        assert value(made, "active") == 1
        assert made.of("chutes_fleet_instances") == {}

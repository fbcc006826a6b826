from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.instances import COLLECTOR
from chutes_exporter.feeds.table import INSTANCES
from tests.collectors.support import NOON, NOON_TEXT, Collected, collected

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


@pytest.mark.parametrize(
    ("state", "hours"),
    [
        (STARTING | {"verified": False}, 3.5),
        (STARTING | {"verified": True, "last_verified_at": NOON_TEXT}, 3),
        (DISABLED | {"verified": True, "last_verified_at": NOON_TEXT}, 3),
        (DISABLED | {"verified": True}, None),
        (ACTIVE | {"verified": True, "last_verified_at": NOON_TEXT}, None),
        (STARTING, None),
    ],
)
def test_a_starting_and_a_disabled_instance_have_the_time_of_their_purge(
    state: dict[str, Any], hours: float | None
) -> None:
    made = run(state | {"created_at": NOON_TEXT})
    assert value(made, "purge_timestamp_seconds") == (None if hours is None else NOON + hours * 3600)

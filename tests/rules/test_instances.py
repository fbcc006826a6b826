from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any

import pytest

from chutes_exporter.api.records import Instance, InventoryItem
from chutes_exporter.rules.instances import instance_state, inventory_states, purged_at
from tests.rules.support import NOON, read

LATER = "2026-11-24T12:30:00+00:00"


def instance(**fields: Any) -> Instance:
    record: Instance = read(Instance, **{"instance_id": "i", "chute_id": "c"} | fields)
    return record


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"active": True, "activated_at": NOON}, "active"),
        ({"active": False, "activated_at": None}, "starting"),
        ({"active": False, "activated_at": None, "verified": True}, "starting"),
        ({"active": False, "activated_at": NOON}, "disabled"),
        ({"active": None, "activated_at": None}, "starting"),
        ({"activated_at": None}, "starting"),
        # Fields that the answer does not have.
        ({"active": False}, None),
        ({"activated_at": NOON}, None),
        ({"active": None, "activated_at": NOON}, None),
        ({}, None),
    ],
)
def test_the_state_of_an_instance_follows_from_its_times(
    fields: dict[str, Any], state: str | None
) -> None:
    assert instance_state(instance(**fields)) == state


STARTING = {"active": False, "activated_at": None, "last_verified_at": None}
VERIFIED = {"active": False, "activated_at": None, "last_verified_at": LATER}
DISABLED = {"active": False, "activated_at": NOON, "last_verified_at": NOON}
ACTIVE = {"active": True, "activated_at": NOON, "last_verified_at": LATER}
OF_UNKNOWN_CHUTE = DISABLED | {"chute_id": None}


def held(gpu_id: str, of: dict[str, Any], **more: Any) -> InventoryItem:
    """Return a GPU that an instance holds."""
    fields = {"active": of["active"], "last_verified_at": of["last_verified_at"], "chute_id": "c"}
    item: InventoryItem = read(InventoryItem, gpu_id=gpu_id, **fields | more)
    return item


@pytest.mark.parametrize("order", list(itertools.permutations([STARTING, DISABLED, ACTIVE])))
def test_the_verification_tells_instances_of_a_chute_apart(
    order: tuple[dict[str, Any], ...],
) -> None:
    instances = [instance(**fields) for fields in order]
    inventory = [held("a", ACTIVE), held("s", STARTING), held("d", DISABLED)]
    assert inventory_states(inventory, instances) == {
        "a": "active",
        "s": "starting",
        "d": "disabled",
    }


@pytest.mark.parametrize(
    ("item", "instances", "state"),
    [
        # No instance has the time of the GPU.
        (held("g", VERIFIED), [STARTING, DISABLED], None),
        (read(InventoryItem, gpu_id="g", active=False, chute_id="c"), [STARTING, DISABLED], None),
        # Two that were verified at one time are told apart by nothing, but need not be if they have
        # one state.
        (held("g", VERIFIED), [VERIFIED, DISABLED | {"last_verified_at": LATER}], None),
        (held("g", DISABLED), [STARTING, VERIFIED], "starting"),
        (held("g", STARTING, active=None), [STARTING, VERIFIED], "starting"),
        # An instance of an unknown chute may hold any GPU.
        (held("g", VERIFIED), [STARTING, OF_UNKNOWN_CHUTE], None),
        (held("g", DISABLED), [STARTING, OF_UNKNOWN_CHUTE], "disabled"),
        (held("g", DISABLED), [OF_UNKNOWN_CHUTE], "disabled"),
        (held("g", DISABLED, chute_id=None), [OF_UNKNOWN_CHUTE], "disabled"),
        (held("g", STARTING), [], None),
    ],
)
def test_a_gpu_has_the_state_of_the_only_instance_that_may_hold_it(
    item: InventoryItem, instances: list[dict[str, Any]], state: str | None
) -> None:
    assert inventory_states([item], [instance(**fields) for fields in instances]) == {"g": state}


def test_the_active_holder_of_a_gpu_counts() -> None:
    instances = [instance(**STARTING), instance(**ACTIVE, chute_id="d")]
    for inventory in itertools.permutations([held("g", STARTING), held("g", ACTIVE, chute_id="d")]):
        assert inventory_states(inventory, instances) == {"g": "active"}


@pytest.mark.parametrize(
    ("fields", "hours"),
    [
        (STARTING | {"verified": False}, 3.5),
        (VERIFIED | {"verified": True}, 3.5),
        (STARTING | {"verified": True, "last_verified_at": NOON}, 3),
        (STARTING | {"verified": True}, None),
        (STARTING, None),
        (DISABLED, 3),
        (DISABLED | {"last_verified_at": None}, None),
        (ACTIVE, None),
    ],
)
def test_a_starting_and_a_disabled_instance_have_a_deadline(
    fields: dict[str, Any], hours: float | None
) -> None:
    deadline = purged_at(instance(**fields | {"created_at": NOON}))
    assert deadline == (
        None if hours is None else datetime.fromisoformat(NOON).timestamp() + hours * 3600
    )

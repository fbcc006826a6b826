"""Which instance holds which GPU. tests/fleet/test_join.py has what follows from it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.records import Instance, InventoryItem
from chutes_exporter.fleet.places import find_holders
from tests.rules.support import read
from tests.rules.test_instances import ACTIVE, DISABLED, LATER, STARTING, VERIFIED

if TYPE_CHECKING:
    from collections.abc import Iterable

OF_UNKNOWN_CHUTE = DISABLED | {"chute_id": None}


def instances_of(fields: Iterable[dict[str, Any]]) -> list[Instance]:
    """Return instances with the ids 0, 1, 2, ..."""
    return [
        read(Instance, **{"instance_id": str(number), "chute_id": "c"} | one)
        for number, one in enumerate(fields)
    ]


def held(gpu_id: str, of: dict[str, Any], **more: Any) -> InventoryItem:
    """Return a GPU that an instance holds."""
    fields = {"active": of["active"], "last_verified_at": of["last_verified_at"], "chute_id": "c"}
    item: InventoryItem = read(InventoryItem, gpu_id=gpu_id, **fields | more)
    return item


@pytest.mark.parametrize("order", list(itertools.permutations([STARTING, DISABLED, ACTIVE])))
def test_the_verification_tells_instances_of_a_chute_apart(
    order: tuple[dict[str, Any], ...],
) -> None:
    inventory = [held("a", ACTIVE), held("s", STARTING), held("d", DISABLED)]
    holders = find_holders(inventory, instances_of(order))
    states = {gpu: holder.state for gpu, holder in holders.items()}
    assert states == {"a": "active", "s": "starting", "d": "disabled"}
    ids = {gpu: holder.instance_id for gpu, holder in holders.items()}
    assert ids == {
        "a": str(order.index(ACTIVE)),
        "s": str(order.index(STARTING)),
        "d": str(order.index(DISABLED)),
    }


@pytest.mark.parametrize(
    ("item", "instances", "state", "instance_id"),
    [
        # No instance has the time of the GPU.
        (held("g", VERIFIED), [STARTING, DISABLED], None, None),
        (
            read(InventoryItem, gpu_id="g", active=False, chute_id="c"),
            [STARTING, DISABLED],
            None,
            None,
        ),
        # Two that were verified at one time are told apart by nothing, but need not be if they have
        # one state.
        (held("g", VERIFIED), [VERIFIED, DISABLED | {"last_verified_at": LATER}], None, None),
        (held("g", VERIFIED), [VERIFIED, VERIFIED], "starting", None),
        (held("g", ACTIVE), [ACTIVE, ACTIVE], "active", None),
        (held("g", DISABLED), [STARTING, VERIFIED], "starting", None),
        (held("g", STARTING, active=None), [STARTING, VERIFIED], "starting", "0"),
        # The time does not matter if one instance is possible.
        (held("g", VERIFIED), [STARTING, ACTIVE], "starting", "0"),
        (held("g", DISABLED, active=True), [STARTING, ACTIVE], "active", "1"),
        # An instance of an unknown chute may hold any GPU, and one GPU any instance.
        (held("g", VERIFIED), [STARTING, OF_UNKNOWN_CHUTE], None, None),
        (held("g", DISABLED), [STARTING, OF_UNKNOWN_CHUTE], "disabled", "1"),
        (held("g", DISABLED), [OF_UNKNOWN_CHUTE], "disabled", "0"),
        (held("g", DISABLED, chute_id=None), [OF_UNKNOWN_CHUTE], "disabled", "0"),
        (held("g", DISABLED, chute_id=None), [DISABLED, STARTING], "disabled", "0"),
        (held("g", STARTING), [], None, None),
        (held("g", ACTIVE), [], "active", None),
    ],
)
def test_a_gpu_has_the_state_and_the_id_of_the_only_instance_that_may_hold_it(
    item: InventoryItem,
    instances: list[dict[str, Any]],
    state: str | None,
    instance_id: str | None,
) -> None:
    (holder,) = find_holders([item], instances_of(instances)).values()
    assert (holder.state, holder.instance_id) == (state, instance_id)
    assert holder.chute_id == item.chute_id


def test_of_two_holders_of_a_gpu_the_active_one_decides_its_state() -> None:
    instances = instances_of([STARTING, ACTIVE | {"chute_id": "d"}])
    for inventory in itertools.permutations([held("g", STARTING), held("g", ACTIVE, chute_id="d")]):
        (holder,) = find_holders(inventory, instances).values()
        assert holder.state == "active"
        assert holder.instance_id is holder.chute_id is None


def test_a_gpu_that_is_listed_twice_alike_has_one_holder() -> None:
    item = held("g", DISABLED)
    (holder,) = find_holders([item, item], instances_of([DISABLED])).values()
    assert (holder.state, holder.instance_id) == ("disabled", "0")

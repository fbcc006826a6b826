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

# The imported instances differ in their state and in the time of their verification: STARTING has
# none, VERIFIED (also starting) and ACTIVE have LATER, and DISABLED has noon.
OF_UNKNOWN_CHUTE = DISABLED | {"chute_id": None}


def instances_of(fields: Iterable[dict[str, Any]]) -> list[Instance]:
    """Return instances of the chute c with the ids 0, 1, 2, ... and other fields."""
    return [
        read(Instance, **{"instance_id": str(number), "chute_id": "c"} | one)
        for number, one in enumerate(fields)
    ]


def held(gpu_id: str, of: dict[str, Any], **more: Any) -> InventoryItem:
    """Return the item of the inventory for a GPU that an instance of the chute c holds.

    ``of`` has the fields of the instance, and ``more`` what the item says otherwise.
    """
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
        # Only one instance agrees with the item about being active, so the time does not matter.
        (held("g", VERIFIED), [STARTING, ACTIVE], "starting", "0"),
        (held("g", DISABLED, active=True), [STARTING, ACTIVE], "active", "1"),
        # Only one instance has the time of the item.
        (held("g", STARTING, active=None), [STARTING, VERIFIED], "starting", "0"),
        # An instance of an unknown chute may hold any GPU, so the time decides here, too.
        (held("g", DISABLED), [STARTING, OF_UNKNOWN_CHUTE], "disabled", "1"),
        (held("g", DISABLED), [OF_UNKNOWN_CHUTE], "disabled", "0"),
        # Any instance may hold a GPU of an unknown chute, and the time decides.
        (held("g", DISABLED, chute_id=None), [OF_UNKNOWN_CHUTE], "disabled", "0"),
        (held("g", DISABLED, chute_id=None), [DISABLED, STARTING], "disabled", "0"),
    ],
)
def test_a_gpu_has_the_state_and_the_id_of_the_only_instance_that_may_hold_it(
    item: InventoryItem,
    instances: list[dict[str, Any]],
    state: str,
    instance_id: str,
) -> None:
    (holder,) = find_holders([item], instances_of(instances)).values()
    assert (holder.state, holder.instance_id) == (state, instance_id)


@pytest.mark.parametrize(
    ("item", "instances", "state"),
    [
        # Both instances have the time of the item.
        (held("g", VERIFIED), [VERIFIED, VERIFIED], "starting"),
        (held("g", ACTIVE), [ACTIVE, ACTIVE], "active"),
        # None has the time of the item, but both are in one state.
        (held("g", DISABLED), [STARTING, VERIFIED], "starting"),
        # The answer about instances may be older than the inventory, and lack the newest one. That
        # it is active, the inventory says itself.
        (held("g", ACTIVE), [], "active"),
    ],
)
def test_if_all_instances_that_may_hold_a_gpu_have_one_state_it_is_known_without_the_id(
    item: InventoryItem, instances: list[dict[str, Any]], state: str
) -> None:
    (holder,) = find_holders([item], instances_of(instances)).values()
    assert (holder.state, holder.instance_id) == (state, None)


@pytest.mark.parametrize(
    ("item", "instances"),
    [
        # No instance has the time of the item, and the two are in different states.
        (held("g", VERIFIED), [STARTING, DISABLED]),
        (held("g", VERIFIED), [STARTING, OF_UNKNOWN_CHUTE]),
        # The item does not have a time at all.
        (read(InventoryItem, gpu_id="g", active=False, chute_id="c"), [STARTING, DISABLED]),
        # Both have the time of the item, and are in different states.
        (held("g", VERIFIED), [VERIFIED, DISABLED | {"last_verified_at": LATER}]),
        # An instance that is not active may be starting or disabled. The answer about instances may
        # be older than the inventory, and lack it.
        (held("g", STARTING), []),
    ],
)
def test_if_instances_in_several_states_may_hold_a_gpu_neither_state_nor_id_is_known(
    item: InventoryItem, instances: list[dict[str, Any]]
) -> None:
    (holder,) = find_holders([item], instances_of(instances)).values()
    assert holder.state is holder.instance_id is None


def test_a_gpu_is_held_for_the_chute_of_its_item_even_if_that_is_unknown() -> None:
    for chute_id in ("c", None):
        item = held("g", DISABLED, chute_id=chute_id)
        (holder,) = find_holders([item], instances_of([DISABLED])).values()
        assert holder.chute_id == chute_id


def test_of_two_holders_of_a_gpu_the_active_one_decides_its_state() -> None:
    instances = instances_of([STARTING, ACTIVE | {"chute_id": "d"}])
    both_items = [held("g", STARTING), held("g", ACTIVE, chute_id="d")]
    for inventory in itertools.permutations(both_items):
        (holder,) = find_holders(inventory, instances).values()
        assert holder.state == "active"
        # Everything else differs between the two, so it is unknown.
        assert holder.instance_id is holder.chute_id is None


def test_a_gpu_that_is_listed_twice_alike_has_one_holder() -> None:
    item = held("g", DISABLED)
    (holder,) = find_holders([item, item], instances_of([DISABLED])).values()
    assert (holder.state, holder.instance_id) == ("disabled", "0")

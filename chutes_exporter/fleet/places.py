"""Which instance holds which GPU."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chutes_exporter.rules.instances import instance_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.api.records import Instance, InventoryItem
    from chutes_exporter.rules.instances import InstanceState


@dataclass(frozen=True, slots=True)
class Holder:
    """What holds a GPU.

    Attributes:
        state: The state of the instance, None if instances in several states are possible.
        instance_id: The instance, None if several are possible.
    """

    chute_id: str | None
    chute: str | None
    state: InstanceState | None
    instance_id: str | None


def find_holders(
    inventory: Iterable[InventoryItem], instances: Iterable[Instance]
) -> dict[str, Holder]:
    """Return what holds each GPU, by its id.

    The inventory does not name the instance, but repeats its chute, ``active`` and
    ``last_verified_at``. For example, a chute has a starting instance without a verification, and a
    disabled one that was verified at 12:00. The disabled one holds the GPUs with 12:00.
    """
    first: dict[str, Instance] = {}
    for instance in instances:
        first.setdefault(instance.instance_id, instance)
    every = [*first.values()]
    by_chute: dict[str | None, list[Instance]] = defaultdict(list)
    for instance in every:
        by_chute[instance.chute_id].append(instance)
    holders: dict[str, Holder] = {}
    for item in inventory:
        # An instance of an unknown chute may belong to any chute, and a GPU to any instance.
        candidates = every
        if item.chute_id is not None:
            candidates = [*by_chute[item.chute_id], *by_chute[None]]
        holder = _holder(item, candidates)
        holders[item.gpu_id] = _merged(holders.get(item.gpu_id, holder), holder)
    return holders


def _merged(one: Holder, other: Holder) -> Holder:
    """Return the holder of a GPU in two items. If they differ, all that is known is its state."""
    if one == other:
        return one
    # An active instance decides.
    state = one.state if one.state == other.state else None
    if "active" in (one.state, other.state):
        state = "active"
    return Holder(None, None, state, None)


def _holder(item: InventoryItem, candidates: Sequence[Instance]) -> Holder:
    """Return the holder behind an item of the inventory among the instances of its chute."""
    possible = candidates
    if item.active is not None:
        possible = [one for one in candidates if one.active in (item.active, None)]
    same_time = [one for one in possible if one.last_verified_at == item.last_verified_at]
    # The times matter only if several instances are possible.
    found = possible if len(possible) == 1 else same_time
    instance_id = found[0].instance_id if len(found) == 1 else None
    state = _state(item, possible, same_time)
    return Holder(item.chute_id, item.chute_name, state, instance_id)


def _state(
    item: InventoryItem, possible: Sequence[Instance], same_time: Sequence[Instance]
) -> InstanceState | None:
    """Return the state that all possible instances have, or all that were verified at the time."""
    if item.active:
        return "active"
    for instances in (possible, same_time):
        states = {instance_state(one) for one in instances}
        if len(states) == 1:
            return states.pop()
    return None

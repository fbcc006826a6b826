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
    by_id: dict[str, Instance] = {}
    for instance in instances:
        by_id.setdefault(instance.instance_id, instance)
    distinct = [*by_id.values()]
    by_chute: dict[str | None, list[Instance]] = defaultdict(list)
    for instance in distinct:
        by_chute[instance.chute_id].append(instance)
    holders: dict[str, Holder] = {}
    for item in inventory:
        # An item without a chute may be of any instance. An instance without one may be of any
        # item.
        candidates = distinct
        if item.chute_id is not None:
            candidates = [*by_chute[item.chute_id], *by_chute[None]]
        holder = _holder(item, candidates)
        if item.gpu_id in holders:
            holder = _merged(holders[item.gpu_id], holder)
        holders[item.gpu_id] = holder
    return holders


def _merged(one: Holder, other: Holder) -> Holder:
    """Return the holder of a GPU that two items name. If they differ, at most its state is known.

    The state is that of both. A GPU with an active instance earns, whatever the other one does.
    """
    if one == other:
        return one
    state = one.state if one.state == other.state else None
    if "active" in (one.state, other.state):
        state = "active"
    return Holder(chute_id=None, chute=None, state=state, instance_id=None)


def _holder(item: InventoryItem, candidates: Sequence[Instance]) -> Holder:
    """Return the holder that an item of the inventory means.

    ``candidates`` are the instances that its chute may have. If several of them agree with the
    item's ``active``, the one that was verified at the same time as the item holds the GPU.
    """
    possible = candidates
    if item.active is not None:
        # An instance that does not say whether it is active remains possible.
        possible = [instance for instance in candidates if instance.active in (item.active, None)]
    same_time = [
        instance for instance in possible if instance.last_verified_at == item.last_verified_at
    ]
    instance_id = None
    for instances in (possible, same_time):
        if len(instances) == 1:
            instance_id = instances[0].instance_id
            break
    state = _state(item, possible, same_time)
    return Holder(item.chute_id, item.chute_name, state, instance_id)


def _state(
    item: InventoryItem, possible: Sequence[Instance], same_time: Sequence[Instance]
) -> InstanceState | None:
    """Return the state of the instance that holds a GPU, None if several states are possible.

    It is the state that all possible instances have, or else all of them that were verified at the
    same time as the GPU.
    """
    if item.active:
        return "active"
    for instances in (possible, same_time):
        states = {instance_state(instance) for instance in instances}
        if len(states) == 1:
            return states.pop()
    return None

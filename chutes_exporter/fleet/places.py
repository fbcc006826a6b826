"""Which instance holds which GPU, and where instances are."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chutes_exporter.fleet.answers import are_complete
from chutes_exporter.rules.instances import instance_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.api.records import Instance, InventoryItem
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.model import Gpu
    from chutes_exporter.rules.instances import InstanceState


@dataclass(frozen=True, slots=True)
class Holder:
    """What holds a GPU.

    Attributes:
        chute_id, chute: The id and the name of its chute.
        instance_id: The instance, None if several are possible.
        state: The state of the instance, None if instances in several states are possible.
    """

    chute_id: str | None = None
    chute: str | None = None
    instance_id: str | None = None
    state: InstanceState | None = None


def find_holders(answers: FleetAnswers) -> dict[str, Holder]:
    """Return what holds each GPU, by its id.

    The inventory does not name the instance, but repeats its chute, ``active`` and
    ``last_verified_at``. For example, a chute has a starting instance without a verification, and a
    disabled one that was verified at 12:00. The disabled one holds the GPUs with 12:00.
    """
    instances = {one.instance_id: one for one in reversed(answers.instances.value)}
    by_chute: dict[str | None, list[Instance]] = defaultdict(list)
    for instance in instances.values():
        by_chute[instance.chute_id].append(instance)
    holders: dict[str, Holder] = {}
    for item in answers.inventory.value:
        # An item without a chute may be of any instance. An instance without one may be of any
        # item.
        candidates = [*instances.values()]
        if item.chute_id is not None:
            candidates = [*by_chute[item.chute_id], *by_chute[None]]
        holder = _holder(item, candidates)
        # Of a GPU with two different items, it is unknown what holds it.
        is_clear = holders.get(item.gpu_id, holder) == holder
        holders[item.gpu_id] = holder if is_clear else Holder()
    return holders


def _holder(item: InventoryItem, candidates: Sequence[Instance]) -> Holder:
    """Return the holder that an item of the inventory means.

    ``candidates`` are the instances that its chute may have. Those hold the GPU that agree with the
    item's ``active`` and, if there are some, were verified at the same time.
    """
    possible = candidates
    if item.active is not None:
        # An instance that does not say whether it is active remains possible.
        possible = [instance for instance in candidates if instance.active in (item.active, None)]
    same_time = [
        instance for instance in possible if instance.last_verified_at == item.last_verified_at
    ]
    holding = same_time or possible
    states = {instance_state(instance) for instance in holding}
    if item.active:
        states = {"active"}
    return Holder(
        chute_id=item.chute_id,
        chute=item.chute_name,
        instance_id=holding[0].instance_id if len(holding) == 1 else None,
        state=states.pop() if len(states) == 1 else None,
    )


_GpuPlace = tuple["str | None", "str | None"]
"""The id of the server of a GPU, and its model."""


# Not frozen, because it takes less time to make a thousand.
@dataclass(slots=True)
class Place:
    """Where an instance is. All of it is None if that is unknown."""

    server_id: str | None = None
    model: str | None = None
    gpus: int | None = None


def find_places(answers: FleetAnswers, gpus: Sequence[Gpu]) -> dict[str, Place]:
    """Return where each instance is, by its id.

    The list of held GPUs names the instance of each. Without it, the inventory tells the place,
    unless the instance may hold more GPUs than are known to be its.
    """
    listed: dict[str, list[_GpuPlace]] = defaultdict(list)
    if answers.miner_gpus.complete:
        for held in answers.miner_gpus.value:
            listed[held.instance_id].append((held.server_id, held.gpu))
    known: dict[str | None, list[_GpuPlace]] = defaultdict(list)
    # The chutes of GPUs of which it is unknown which instance holds them, if any.
    uncertain_chutes: set[str | None] = set()
    for gpu in gpus:
        known[gpu.instance_id].append((gpu.server_id, gpu.model))
        if gpu.instance_id is None:
            uncertain_chutes.add(gpu.chute_id)
    if not are_complete(answers.inventory, answers.instances):
        uncertain_chutes.add(None)
    places = {}
    for instance in answers.instances.value:
        instance_id = instance.instance_id
        found = listed[instance_id]
        if not found and _is_sure(instance, uncertain_chutes):
            # Its GPUs were deleted if it has none.
            found = known[instance_id] or [("", "")]
        places[instance_id] = _common_place(found)
    return places


def _is_sure(instance: Instance, uncertain_chutes: set[str | None]) -> bool:
    """Return whether an instance holds no other GPUs than those that are known to be its."""
    if instance.chute_id is None:
        return not uncertain_chutes
    return uncertain_chutes.isdisjoint((instance.chute_id, None))


def _common_place(gpus: Sequence[_GpuPlace]) -> Place:
    """Return the place of an instance with GPUs on these servers and of these models.

    It is unknown unless all GPUs are on one known server and of one known model. Empty texts mean
    that the instance has no GPU.
    """
    distinct = set(gpus)
    if len(distinct) != 1:
        return Place()
    server_id, model = distinct.pop()
    if None in (server_id, model):
        return Place()
    return Place(server_id, model, len(gpus) if server_id else 0)

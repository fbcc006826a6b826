"""Which instance holds which GPU, and where instances are."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chutes_exporter.fleet.answers import are_complete, records_of
from chutes_exporter.rules.instances import instance_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.api.records import Instance, InventoryItem
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.model import Gpu
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
    by_chute: dict[str | None, list[Instance]] = defaultdict(list)
    for instance in by_id.values():
        by_chute[instance.chute_id].append(instance)
    holders: dict[str, Holder] = {}
    for item in inventory:
        # An item without a chute may be of any instance. An instance without one may be of any
        # item.
        candidates = [*by_id.values()]
        if item.chute_id is not None:
            candidates = [*by_chute[item.chute_id], *by_chute[None]]
        holder = _holder(item, candidates)
        other = holders.get(item.gpu_id, holder)
        if other != holder:
            # Two items name the GPU. A GPU with an active instance earns, whatever the other does.
            state = holder.state if holder.state == other.state else None
            if "active" in (holder.state, other.state):
                state = "active"
            holder = Holder(chute_id=None, chute=None, state=state, instance_id=None)
        holders[item.gpu_id] = holder
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
        state=states.pop() if len(states) == 1 else None,
        instance_id=holding[0].instance_id if len(holding) == 1 else None,
    )


# Not frozen, because it takes less time to make a thousand.
@dataclass(slots=True)
class Place:
    """Where an instance is. All of it is None if that is unknown."""

    server_id: str | None = None
    model: str | None = None
    gpus: int | None = None


class Places:
    """Where instances are: by the list of held GPUs, which names the instance of each.

    Without that list, the inventory tells it, unless several instances are possible for a GPU.
    """

    def __init__(self, answers: FleetAnswers, gpus: Iterable[Gpu]) -> None:
        self._list: dict[str, list[tuple[str | None, str | None]]] = defaultdict(list)
        if are_complete(answers.miner_gpus):
            for held in records_of(answers.miner_gpus):
                self._list[held.instance_id].append((held.server_id, held.gpu))
        # The inventory does not name the instance of a GPU. Only the list of instances tells it.
        self._inventory_is_complete = are_complete(answers.inventory, answers.instances)
        self._inventory: dict[str, list[tuple[str | None, str | None]]] = defaultdict(list)
        # The chutes of GPUs of which it is unknown which instance holds them, if any.
        self._uncertain_chutes: set[str | None] = set()
        for gpu in gpus:
            if gpu.instance_id is None:
                self._uncertain_chutes.add(gpu.chute_id)
            elif gpu.instance_id:
                self._inventory[gpu.instance_id].append((gpu.server_id, gpu.model))

    def of(self, instance: Instance) -> Place:
        """Return where an instance is, with an empty place if its GPUs were deleted."""
        place = _common_place(self._list[instance.instance_id])
        if place.gpus is not None or not self._inventory_is_complete:
            return place
        uncertain = self._uncertain_chutes
        if uncertain and (instance.chute_id is None or uncertain & {instance.chute_id, None}):
            # It may hold more GPUs than the inventory tells.
            return Place()
        gpus = self._inventory[instance.instance_id]
        return _common_place(gpus) if gpus else Place("", "", 0)


def _common_place(gpus: Sequence[tuple[str | None, str | None]]) -> Place:
    """Return the place of an instance with GPUs on these servers and of these models.

    It is unknown unless all GPUs are on one known server and of one known model.
    """
    distinct = set(gpus)
    if len(distinct) != 1:
        return Place()
    server_id, model = distinct.pop()
    return Place(server_id, model, len(gpus)) if server_id and model else Place()

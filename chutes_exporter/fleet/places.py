"""Which instance holds which GPU, and where instances are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from chutes_exporter.fleet.answers import are_complete, by_field, first_of_each
from chutes_exporter.rules.instances import instance_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.api.records import Instance, InventoryItem
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.gpus import Gpu, GpuState
    from chutes_exporter.rules.instances import InstanceState

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Holder:
    """What holds a GPU.

    Attributes:
        instance_id: The instance, None if several are possible.
        state: The state of the instance, None if instances in several states are possible.
    """

    chute_id: str | None = None
    instance_id: str | None = None
    state: InstanceState | None = None

    def state_of_gpu(self, *, is_verified: bool | None) -> GpuState | None:
        """Return the state of the GPU. One without a holder must be in no instance for certain."""
        if self.instance_id != "":
            return "earning" if self.state == "active" else self.state
        if is_verified is None:
            return None
        return "idle" if is_verified else "unverified"


def find_holders(answers: FleetAnswers) -> dict[str, Holder]:
    """Return what holds each GPU, by its id.

    The inventory does not name the instance, but repeats its chute, ``active`` and
    ``last_verified_at``. For example, a chute has a starting instance without a verification, and a
    disabled one that was verified at 12:00. The disabled one holds the GPUs with 12:00.
    """
    instances = first_of_each(answers.instances.value, "instance_id").values()
    by_chute = by_field(instances, "chute_id")
    holders: dict[str, Holder] = {}
    for item in answers.inventory.value:
        # An item without a chute may be of any instance, and the other way round.
        candidates = [*instances]
        if item.chute_id is not None:
            candidates = [*by_chute[item.chute_id], *by_chute[None]]
        possible = _agreeing(item, candidates)
        holder = Holder(
            chute_id=item.chute_id,
            instance_id=_only(one.instance_id for one in possible),
            state="active" if item.active else _only(instance_state(one) for one in possible),
        )
        # Of a GPU with two different items, it is unknown what holds it.
        is_clear = holders.get(item.gpu_id, holder) == holder
        holders[item.gpu_id] = holder if is_clear else Holder()
    return holders


def _agreeing(item: InventoryItem, candidates: Sequence[Instance]) -> Sequence[Instance]:
    """Return the instances that an item of the inventory may mean.

    Of the candidates, which may be of its chute, these agree with its ``active``. If some of them
    were verified at the same time, only they are returned.
    """
    possible = candidates
    if item.active is not None:
        # An instance that does not say whether it is active remains possible.
        possible = [one for one in candidates if one.active in (item.active, None)]
    same_time = [one for one in possible if one.last_verified_at == item.last_verified_at]
    return same_time or possible


def _only(values: Iterable[T | None]) -> T | None:
    """Return the value if all are equal, None otherwise, or if there is none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


_GpuPlace = tuple["str | None", "str | None"]
"""The id of the server of a GPU, and its model."""


# Not frozen, because it takes less time to make a thousand.
@dataclass(slots=True)
class Place:
    """Where an instance is. All of it is None if that is unknown."""

    server_id: str | None = None
    model: str | None = None
    gpus: int | None = None


def find_places(answers: FleetAnswers, gpus: Iterable[Gpu]) -> dict[str, Place]:
    """Return where each instance is, by its id.

    The list of held GPUs names the instance of each. Without it, the inventory tells the place.
    """
    places_of_gpus = _places_by_inventory(answers, gpus)
    if answers.miner_gpus.complete:
        for instance_id, held in by_field(answers.miner_gpus.value, "instance_id").items():
            places_of_gpus[instance_id] = [(gpu.server_id, gpu.gpu) for gpu in held]
    places = {}
    for instance in answers.instances.value:
        of_instance = places_of_gpus.get(instance.instance_id, ())
        # It is unknown unless all GPUs are on one known server and of one known model.
        server_id, model = _only(of_instance) or (None, None)
        place = Place(server_id, model, len(of_instance) if server_id else 0)
        places[instance.instance_id] = Place() if None in (server_id, model) else place
    return places


def _places_by_inventory(answers: FleetAnswers, gpus: Iterable[Gpu]) -> dict[str, list[_GpuPlace]]:
    """Return the places of an instance's GPUs, by its id, as the inventory tells them.

    An instance is left out if a GPU whose instance is unknown may be its own: that GPU is of the
    same chute, or the chute of one of the two is unknown. One without any GPU, because they were
    deleted, has a single empty place.
    """
    held = by_field(gpus, "instance_id")
    uncertain_chutes = {gpu.chute_id for gpu in held[None]}
    if not are_complete(answers.inventory, answers.instances):
        uncertain_chutes.add(None)
    places: dict[str, list[_GpuPlace]] = {}
    for instance in answers.instances.value:
        may_hold_more = uncertain_chutes
        if instance.chute_id is not None:
            may_hold_more = uncertain_chutes & {instance.chute_id, None}
        if not may_hold_more:
            of_instance = [(gpu.server_id, gpu.model) for gpu in held[instance.instance_id]]
            places[instance.instance_id] = of_instance or [("", "")]
    return places

"""The GPUs of a miner, with what holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args
from uuid import UUID

from chutes_exporter.fleet.answers import are_complete, by_field, first_of_each, only_value
from chutes_exporter.rules.instances import instance_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.api.records import Instance, InventoryItem
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.rules.instances import InstanceState

GpuState = Literal["unverified", "idle", "starting", "disabled", "earning"]
"""State of a GPU: not verified and in no instance, verified and in no instance, or in an instance
that was never active, that its miner disabled, or that is active."""
GPU_STATES: Final[tuple[GpuState, ...]] = get_args(GpuState)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of the miner.

    Attributes:
        server_id: Empty for one that the service registered without a server.
        index: Its number on the server.
        chute_id, instance_id: The ids of the chute and of the instance that run on it. They are
            empty while it is in no instance.
    """

    gpu_id: str
    server_id: str | None
    model: str | None
    index: int | None
    state: GpuState | None
    chute_id: str | None
    instance_id: str | None

    @property
    def nvidia_uuid(self) -> str | None:
        """Its id as NVIDIA's tools write it (``GPU-8-4-4-4-12``), None if it is no such id."""
        try:
            return f"GPU-{UUID(self.gpu_id.removeprefix('GPU-'))}"
        except ValueError:
            return None


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
            instance_id=only_value(one.instance_id for one in possible),
            state="active" if item.active else only_value(instance_state(one) for one in possible),
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


def find_gpus(answers: FleetAnswers) -> tuple[Gpu, ...]:
    """Return all GPUs: those that are listed, and those that are only in the inventory."""
    listed, holders = answers.listed_gpus, find_holders(answers)
    lists_are_known = are_complete(answers.servers, answers.nodes)
    holders_are_known = are_complete(answers.inventory, answers.instances)
    # Empty texts mean that a GPU is on no server, or in no instance, for certain.
    no_server = "" if lists_are_known else None
    no_holder = Holder("", "") if holders_are_known else Holder()
    gpus = []
    for gpu_id in {**listed, **holders}:
        record, holder = listed[gpu_id], holders.get(gpu_id, no_holder)
        state = None
        if lists_are_known and holders_are_known:
            state = holder.state_of_gpu(is_verified=record.is_verified)
        server_id = record.server_id or no_server
        ids = (holder.chute_id, holder.instance_id)
        gpus.append(Gpu(gpu_id, server_id, record.model, record.index, state, *ids))
    return tuple(gpus)

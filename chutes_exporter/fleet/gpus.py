"""The GPUs of a miner, with what holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from chutes_exporter.fleet.answers import are_complete
from chutes_exporter.fleet.places import Holder, find_holders

if TYPE_CHECKING:
    from chutes_exporter.fleet.answers import FleetAnswers

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

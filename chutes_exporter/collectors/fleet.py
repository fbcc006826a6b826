"""The fleet: the state of each of the signing miner's GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from msgspec import UNSET

from chutes_exporter.collectors.base import (
    Answers,
    Collector,
    Miners,
    Part,
    Samples,
    distinct,
    metric_of,
)
from chutes_exporter.feeds.table import INSTANCES, INVENTORY, NODES, SERVERS
from chutes_exporter.rules.instances import inventory_states

if TYPE_CHECKING:
    from chutes_exporter.api.records import Node, ServerGpu
    from chutes_exporter.rules.instances import InstanceState

_FEEDS = (SERVERS, NODES, INVENTORY, INSTANCES)

State = Literal["earning", "starting", "disabled", "idle", "unverified"]
"""State of a GPU. The help of ``chutes_fleet_gpus`` explains the states."""
STATES: tuple[State, ...] = get_args(State)

_metric = metric_of(*_FEEDS)
GPUS = _metric(
    "chutes_fleet_gpus",
    "GPUs of the miner by model and state. Each GPU is in exactly one state: earning (in an "
    "active instance), starting "
    "(in an instance that was never active), disabled (in an instance that the miner disabled "
    "after it was active, "
    "which keeps earning until it is deleted), idle (verified and in no instance), unverified "
    "(not verified and in no "
    "instance).",
    ("hotkey", "gpu", "state"),
)
GPU_STATE = _metric(
    "chutes_gpu_state_info",
    "The GPU's state, as chutes_fleet_gpus counts it.",
    ("hotkey", "gpu_id", "state"),
)

_metric_of_gpu = metric_of(INVENTORY, whole=False)
IN_USE = _metric_of_gpu(
    "chutes_gpu_in_use",
    "Whether an instance holds the GPU (1), active or not.",
    ("hotkey", "gpu_id"),
)
ACTIVE = _metric_of_gpu(
    "chutes_gpu_active",
    "Whether an active instance runs on the GPU (1). Absent if the state of its instance is "
    "unknown.",
    ("hotkey", "gpu_id"),
)
ALLOCATION = _metric_of_gpu(
    "chutes_gpu_allocation_info",
    "The chute that holds the GPU. Only for GPUs in use.",
    ("hotkey", "gpu_id", "chute_id", "chute_name"),
)


def _collect(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add the chute and the state of each GPU that a server or an instance has."""
    hotkey = miners.hotkey
    # Both endpoints list the GPUs. The record of /miner/nodes/ comes first.
    gpus: dict[str, list[Node | ServerGpu]] = {gpu.uuid: [gpu] for gpu in answers[NODES]}
    for server in answers[SERVERS]:
        for gpu in server.gpus or ():
            gpus.setdefault(gpu.uuid, []).append(gpu)
    inventory = distinct(answers[INVENTORY], lambda item: (item.gpu_id, item.chute_id))
    active: dict[str, bool | None] = {}
    for item in inventory:
        # If several instances hold a GPU, an active one decides, and without one an unknown one.
        found = {active.get(item.gpu_id, item.active), item.active}
        active[item.gpu_id] = next(state for state in (True, None, False) if state in found)
        out.add(ALLOCATION, 1, hotkey, item.gpu_id, item.chute_id, item.chute_name)
    # While the inventory may miss a record, no GPU is certain to be free.
    certainly_free = set(answers.unlisted(INVENTORY, gpus, active))
    for key in dict.fromkeys([*gpus, *active]):
        if key in active or key in certainly_free:
            out.add(IN_USE, key in active, hotkey, key)
            out.add(ACTIVE, active.get(key, False), hotkey, key)
    instances = answers[INSTANCES]
    _add_states(gpus, inventory_states(inventory, instances), hotkey, out)


def _add_states(
    gpus: dict[str, list[Node | ServerGpu]],
    holders: dict[str, InstanceState | None],
    hotkey: str,
    out: Samples,
) -> None:
    """Add each GPU's state, and the counts.

    ``holders`` are the states of the instances, by the GPU that they hold.
    """
    if holders.keys() - gpus.keys():
        # An instance holds a GPU of unknown model, so no count is certain.
        return
    states: dict[str, list[State | None]] = {}
    for key, records in gpus.items():
        found = holders[key] if key in holders else _free_state(records)
        state: State | None = "earning" if found == "active" else found
        if state is not None:
            out.add(GPU_STATE, 1, hotkey, key, state)
        model = next((gpu.gpu_identifier for gpu in records if gpu.gpu_identifier), "")
        states.setdefault(model, []).append(state)
    for model, of_model in sorted(states.items()):
        # A GPU of an unknown model makes all counts uncertain, and one in an unknown state those of
        # its model.
        if "" not in states and None not in of_model:
            for state in STATES:
                out.add(GPUS, of_model.count(state), hotkey, model, state)


def _free_state(records: list[Node | ServerGpu]) -> State | None:
    for gpu in records:
        if gpu.verified_at is not UNSET:
            return "unverified" if gpu.verified_at is None else "idle"
    return None


COLLECTOR = Collector(
    "fleet",
    "states of the miner's GPUs (earning, starting, disabled, idle, unverified), and the "
    "instances on them",
    (Part(_FEEDS, (GPUS, GPU_STATE, IN_USE, ACTIVE, ALLOCATION), _collect),),
)

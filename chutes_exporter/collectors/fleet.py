"""The fleet: the state of each of the signing miner's GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from msgspec import UNSET

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import INSTANCES, INVENTORY, NODES, SERVERS
from chutes_exporter.rules.instances import inventory_states

if TYPE_CHECKING:
    from chutes_exporter.api.records import Node, ServerGpu
    from chutes_exporter.rules.instances import InstanceState

METRICS = Metrics("GET /miner/inventory", ("hotkey", "gpu_id"))
_STATE_SOURCE = "GET /miner/inventory, GET /miner/instances/, GET /miner/nodes/, GET /miner/servers/"

State = Literal["earning", "starting", "disabled", "idle", "unverified"]
"""State of a GPU. The help of ``chutes_fleet_gpus`` explains the states."""
STATES: tuple[State, ...] = get_args(State)

GPUS = METRICS.declare(
    "chutes_fleet_gpus",
    "GPUs of the miner by model and state. Each GPU is in exactly one state: earning (in an active instance), starting "
    "(in an instance that was never active), disabled (in an instance that the miner disabled after it was active, "
    "which keeps earning until it is deleted), idle (verified and in no instance), unverified (not verified and in no "
    "instance).",
    labels=("hotkey", "gpu", "state"),
    source=_STATE_SOURCE,
)
GPU_STATE = METRICS.declare(
    "chutes_gpu_state_info",
    "The GPU's state, as chutes_fleet_gpus counts it.",
    labels=("hotkey", "gpu_id", "state"),
    source=_STATE_SOURCE,
)
IN_USE = METRICS.declare(
    "chutes_gpu_in_use",
    "Whether an instance holds the GPU (1), active or not.",
    "gpu_id that is listed",
)
ACTIVE = METRICS.declare(
    "chutes_gpu_active",
    "Whether an active instance runs on the GPU (1). Absent if the state of its instance is unknown.",
    "active",
)
ALLOCATION = METRICS.declare(
    "chutes_gpu_allocation_info",
    "The chute that holds the GPU. Only for GPUs in use.",
    "chute_id, chute_name",
    labels=("hotkey", "gpu_id", "chute_id", "chute_name"),
)


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    hotkey = scope.hotkey
    # Both endpoints list the GPUs. The record of /miner/nodes/ comes first.
    gpus: dict[str, list[Node | ServerGpu]] = {gpu.uuid: [gpu] for gpu in answers[NODES]}
    for server in answers[SERVERS]:
        for gpu in server.gpus or ():
            gpus.setdefault(gpu.uuid, []).append(gpu)
    inventory = distinct(answers[INVENTORY], lambda item: (item.gpu_id, item.chute_id), out)
    active: dict[str, bool | None] = {}
    for item in inventory:
        # If several instances hold a GPU, an active one decides.
        active[item.gpu_id] = active.get(item.gpu_id) or item.active
        out.add(ALLOCATION, 1, hotkey, item.gpu_id, item.chute_id, item.chute_name)
    all_listed = answers.complete(INVENTORY)
    for key in dict.fromkeys([*gpus, *active]):
        if key in active or all_listed:
            out.add(IN_USE, key in active, hotkey, key)
            out.add(ACTIVE, active.get(key, False), hotkey, key)
    if answers.complete():
        instances = answers[INSTANCES]
        _add_counts(gpus, inventory_states(inventory, instances), hotkey, out)


def _add_counts(
    gpus: dict[str, list[Node | ServerGpu]], holders: dict[str, InstanceState | None], hotkey: str, out: Samples
) -> None:
    if holders.keys() - gpus.keys():
        # An instance holds a GPU of unknown model, so no count is certain.
        return
    states: dict[str, list[State | None]] = {}
    for key, records in gpus.items():
        holder = holders.get(key)
        state = ("earning" if holder == "active" else holder) if key in holders else _free_state(records)
        if state is not None:
            out.add(GPU_STATE, 1, hotkey, key, state)
        model = next((gpu.gpu_identifier for gpu in records if gpu.gpu_identifier), "")
        states.setdefault(model, []).append(state)
    for model, of_model in sorted(states.items()):
        # A GPU of an unknown model makes all counts uncertain, and one in an unknown state those of its model.
        if "" not in states and None not in of_model:
            for state in STATES:
                out.add(GPUS, of_model.count(state), hotkey, model, state)


def _free_state(records: list[Node | ServerGpu]) -> State | None:
    for gpu in records:
        if gpu.verified_at is not UNSET:
            return "unverified" if gpu.verified_at is None else "idle"
    return None


COLLECTOR = Collector(
    name="fleet",
    summary="states of the miner's GPUs (earning, starting, disabled, idle, unverified), and the instances on them",
    feeds=(SERVERS, NODES, INVENTORY, INSTANCES),
    metrics=METRICS,
    collect=_collect,
    cost="9 for each GPU",
)

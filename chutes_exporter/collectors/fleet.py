"""The fleet: which of the signing miner's GPUs earn, and which only cost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, get_args

from msgspec import UNSET

from chutes_exporter.api.meaning import inventory_states
from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import INSTANCES, INVENTORY, NODES, SERVERS

if TYPE_CHECKING:
    from chutes_exporter.api.meaning import InstanceState
    from chutes_exporter.api.records import Node, ServerGpu

METRICS = Metrics()
_INVENTORY = "GET /miner/inventory"
_GPU = ("hotkey", "gpu_id")

State = Literal["earning", "starting", "disabled", "idle", "unverified"]
"""What a GPU does: an active instance runs on it; one that was never active holds it; one that its miner disabled
holds it, which keeps earning until it is deleted; no instance holds it; or none does and it is not verified."""
STATES: tuple[State, ...] = get_args(State)
_STATE_OF_HOLDER: dict[InstanceState, State] = {
    "active": "earning",
    "starting": "starting",
    "failed": "starting",
    "disabled": "disabled",
}

GPUS = METRICS.gauge(
    "chutes_fleet_gpus",
    "GPUs of the miner by model and state, each in exactly one: earning (in an active instance), starting (in an "
    "instance that was never active), disabled (in an instance that was active and that the miner disabled; it keeps "
    "earning until it is deleted), idle (verified and in no instance), unverified (not verified and in no instance).",
    ("hotkey", "gpu", "state"),
    f"{_INVENTORY}, GET /miner/instances/, GET /miner/nodes/, GET /miner/servers/",
)
GPU_STATE = METRICS.info(
    "chutes_gpu_state_info",
    "The GPU's state, as chutes_fleet_gpus counts it.",
    ("hotkey", "gpu_id", "state"),
    f"{_INVENTORY}, GET /miner/instances/, GET /miner/nodes/, GET /miner/servers/",
)
IN_USE = METRICS.gauge(
    "chutes_gpu_in_use",
    "Whether an instance holds the GPU (1), active or not.",
    _GPU,
    f"{_INVENTORY}: gpu_id that is listed",
)
ACTIVE = METRICS.gauge(
    "chutes_gpu_active",
    "Whether an active instance runs on the GPU (1); absent where the API does not say whether the one on it is.",
    _GPU,
    f"{_INVENTORY}: active",
)
ALLOCATION = METRICS.info(
    "chutes_gpu_allocation_info",
    "The chute that holds the GPU; only for GPUs in use.",
    ("hotkey", "gpu_id", "chute_id", "chute_name"),
    f"{_INVENTORY}: chute_id, chute_name",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Tell each GPU's state from the four endpoints that know a part of it."""
    hotkey = scope.hotkey
    # The same GPUs come from both endpoints; what /miner/nodes/ says of one wins.
    known: dict[str, list[Node | ServerGpu]] = {gpu.uuid: [gpu] for gpu in answers[NODES]}
    for gpu in (gpu for server in answers[SERVERS] for gpu in server.gpus or ()):
        known.setdefault(gpu.uuid, []).append(gpu)
    inventory = distinct(answers[INVENTORY], lambda item: (item.gpu_id, item.chute_id), out)
    active: dict[str, bool | None] = {}
    for item in inventory:
        # Should several instances hold a GPU, one that is active decides.
        active[item.gpu_id] = active.get(item.gpu_id) or item.active
        out.add(ALLOCATION, 1, hotkey, item.gpu_id, item.chute_id, item.chute_name)
    all_listed = answers.complete(INVENTORY)
    for key in dict.fromkeys([*known, *active]):
        if key in active or all_listed:
            out.add(IN_USE, key in active, hotkey, key)
            out.add(ACTIVE, active.get(key, False), hotkey, key)
    if answers.complete():
        instances = answers[INSTANCES]
        _count(known, inventory_states(inventory, instances), hotkey, out)


def _count(
    known: dict[str, list[Node | ServerGpu]], holders: dict[str, InstanceState | None], hotkey: str, out: Samples
) -> None:
    """Add each GPU's state, and count the GPUs by model and state."""
    if holders.keys() - known.keys():
        # A GPU that an instance holds and that no list describes could be of any model.
        return
    states: dict[str, list[State | None]] = {}
    models_known = True
    for key, records in known.items():
        state = _held_state(holders[key]) if key in holders else _free_state(records)
        if state is not None:
            out.add(GPU_STATE, 1, hotkey, key, state)
        model = next((gpu.gpu_identifier for gpu in records if gpu.gpu_identifier), None)
        if model is None:
            # It could be any: no model's count is certain.
            models_known = False
        else:
            states.setdefault(model, []).append(state)
    for model in sorted(states) if models_known else ():
        count = Counter(states[model])
        # One GPU in an unknown state could be in any: no count of its model is certain.
        if None not in count:
            for state in STATES:
                out.add(GPUS, count[state], hotkey, model, state)


def _held_state(holder: InstanceState | None) -> State | None:
    return None if holder is None else _STATE_OF_HOLDER[holder]


def _free_state(records: list[Node | ServerGpu]) -> State | None:
    for gpu in records:
        if gpu.verified_at is not UNSET:
            return "unverified" if gpu.verified_at is None else "idle"
    return None


COLLECTOR = Collector(
    name="fleet",
    summary="which of the miner's GPUs earn, start, are disabled, idle or unverified, and what runs on them",
    feeds=(SERVERS, NODES, INVENTORY, INSTANCES),
    metrics=METRICS,
    collect=collect,
    cost=Cost(gpu=9),
)

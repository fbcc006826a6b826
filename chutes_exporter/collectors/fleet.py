"""The fleet: which of the signing miner's GPUs earn, and which only cost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, get_args

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.metric import Metric, Samples, info
from chutes_exporter.sources import INVENTORY, NODES, SERVERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import Node, ServerGpu

_INVENTORY = "GET /miner/inventory"
_GPU = ("hotkey", "gpu_id")

State = Literal["earning", "starting", "idle", "unverified"]
"""What a GPU does: an active instance runs on it; one that is not active yet holds it; nothing does; or it is not
verified, which comes before all else because it then earns nothing."""
STATES: tuple[State, ...] = get_args(State)

GPUS = Metric(
    "chutes_fleet_gpus",
    "GPUs of the miner by model and state, each in exactly one: earning (an active instance runs on it), starting "
    "(an instance holds it that is not known to be active), idle (nothing does), "
    "unverified (it earns nothing whatever runs).",
    ("hotkey", "gpu", "state"),
    f"{_INVENTORY}, GET /miner/nodes/, GET /miner/servers/",
)
IN_USE = Metric(
    "chutes_gpu_in_use",
    "Whether an instance holds the GPU (1), active or not.",
    _GPU,
    f"{_INVENTORY}: gpu_id that is listed",
)
ACTIVE = Metric(
    "chutes_gpu_active",
    "Whether an active instance runs on the GPU (1); absent where the API does not say whether the one on it is.",
    _GPU,
    f"{_INVENTORY}: active",
)
ALLOCATION = info(
    "chutes_gpu_allocation_info",
    "The chute that holds the GPU; only for GPUs in use.",
    ("hotkey", "gpu_id", "chute_id", "chute_name"),
    f"{_INVENTORY}: chute_id, chute_name",
)
UNKNOWN_MODEL = "unknown"


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Tell each GPU's state from the three endpoints that know a part of it."""
    hotkey = scope.hotkey
    known: dict[str, Node | ServerGpu] = {gpu.uuid: gpu for server in answers[SERVERS] for gpu in server.gpus or ()}
    # The same GPUs come from both endpoints; what /miner/nodes/ says of one wins.
    known.update({gpu.uuid: gpu for gpu in answers[NODES]})
    active: dict[str, bool | None] = {}
    for item in distinct(answers[INVENTORY], lambda item: (item.gpu_id, item.chute_id), out):
        # Should several instances hold a GPU, one that is active decides.
        active[item.gpu_id] = active.get(item.gpu_id) or item.active
        out.add(ALLOCATION, 1, hotkey, item.gpu_id, item.chute_id, item.chute_name)
    all_listed = answers.complete(INVENTORY)
    for key in dict.fromkeys([*known, *active]):
        if key in active or all_listed:
            out.add(IN_USE, key in active, hotkey, key)
            out.add(ACTIVE, active.get(key, False), hotkey, key)
    if not answers.complete():
        return
    count = Counter((gpu.gpu_identifier or UNKNOWN_MODEL, _state(gpu, active)) for gpu in known.values())
    for model in sorted({model for model, _ in count}):
        for state in STATES:
            out.add(GPUS, count[model, state], hotkey, model, state)


def _state(gpu: Node | ServerGpu, active: Mapping[str, bool | None]) -> State:
    if gpu.verified_at is None or gpu.verification_error:
        return "unverified"
    if gpu.uuid not in active:
        return "idle"
    return "earning" if active[gpu.uuid] else "starting"


COLLECTOR = Collector(
    name="fleet",
    summary="which of the miner's GPUs earn, start, idle or are unverified, and what runs on them",
    sources=(SERVERS, NODES, INVENTORY),
    metrics=(GPUS, IN_USE, ACTIVE, ALLOCATION),
    collect=collect,
    cost=Cost(gpu=7),
)

"""The private gate: the conditions under which a miner may launch private chutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from chutes_exporter.api.meaning import is_public
from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import INSTANCES, INVENTORY

if TYPE_CHECKING:
    from chutes_exporter.api.records import Instance, InventoryItem

METRICS = Metrics()
_SOURCE = "GET /miner/instances/: active, billed_to"
_MINER = ("hotkey",)

INSTANCE_COUNT = METRICS.gauge(
    "chutes_miner_private_gate_instances",
    "Active public instances of the miner. Launching private chutes needs 4. A miner with an active TEE instance does "
    "not need the conditions of the private gate.",
    _MINER,
    _SOURCE,
)
GPUS = METRICS.gauge(
    "chutes_miner_private_gate_gpus",
    "GPUs in the miner's active public instances. Launching private chutes needs 12.",
    _MINER,
    f"{_SOURCE}; GET /miner/inventory: active, chute_id",
)
OLDEST = METRICS.gauge(
    "chutes_miner_private_gate_oldest_activation_timestamp_seconds",
    "When the oldest existing public instance of the miner became active. Launching private chutes needs an "
    "activation at least 3 days ago. The service also counts deleted instances, which no endpoint lists.",
    _MINER,
    f"{_SOURCE}, activated_at",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Count the active public instances and their GPUs."""
    instances = distinct(answers[INSTANCES], lambda one: one.instance_id, out)
    public = [one for one in instances if is_public(one)]
    if not answers.complete(INSTANCES) or any(is_public(one) is None for one in instances):
        return
    if not any(one.activated_at is UNSET or (one.active and one.activated_at is None) for one in public):
        activations = [one.activated_at for one in public if one.activated_at]
        out.add(OLDEST, min(activations, default=None), scope.hotkey)
    if any(one.active is None and one.activated_at is not None for one in public):
        return
    active = [one for one in public if one.active]
    out.add(INSTANCE_COUNT, len(active), scope.hotkey)
    if answers.complete():
        inventory = distinct(answers[INVENTORY], lambda item: (item.gpu_id, item.chute_id), out)
        out.add(GPUS, _gpus(active, instances, inventory), scope.hotkey)


def _gpus(active: list[Instance], instances: list[Instance], inventory: list[InventoryItem]) -> int | None:
    """Count the GPUs of active public instances. Return None if private ones run the same chutes."""
    public_chutes = {one.chute_id for one in active}
    private_chutes = {one.chute_id for one in instances if one.active and not is_public(one)}
    held = [item for item in inventory if item.active is not False]
    if public_chutes & private_chutes or None in public_chutes or any(item.chute_id is None for item in held):
        return None
    public = [item for item in held if item.chute_id in public_chutes]
    # Each active instance holds a GPU. Otherwise the two answers are from different times.
    if any(item.active is None for item in public) or public_chutes - {item.chute_id for item in public}:
        return None
    return len(public)


COLLECTOR = Collector(
    name="private_gate",
    summary="the conditions under which the miner may launch private chutes",
    feeds=(INSTANCES, INVENTORY),
    metrics=METRICS,
    collect=collect,
    cost=Cost(fixed=3),
)

"""The private gate: what the service wants of a miner before it may launch private chutes."""

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
    "Active public instances of the miner. Launching private chutes needs 4. A miner with an active TEE instance "
    "passes the gate without any of its conditions.",
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
    "When the oldest present public instance of the miner became active. Launching private chutes needs an activation "
    "3 days ago; the service also counts instances that have ended, which no answer lists.",
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
    """Count the GPUs of active public instances, None where the chutes do not tell them from others."""
    chutes = {one.chute_id for one in active}
    others = {one.chute_id for one in instances if one.active and not is_public(one)}
    held = [item for item in inventory if item.active is not False]
    if chutes & others or None in chutes or any(item.chute_id is None for item in held):
        return None
    own = [item for item in held if item.chute_id in chutes]
    # An active instance holds a GPU at least: without one, the two lists are not of one moment.
    if any(item.active is None for item in own) or chutes - {item.chute_id for item in own}:
        return None
    return len(own)


COLLECTOR = Collector(
    name="private_gate",
    summary="the conditions under which the miner may launch private chutes",
    feeds=(INSTANCES, INVENTORY),
    metrics=METRICS,
    collect=collect,
    cost=Cost(fixed=3),
)

"""Active instances of the whole platform, by miner and by chute."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import ACTIVE_INSTANCES
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from chutes_exporter.api.records import ActiveInstance

METRICS = Metrics("GET /miner/active_instances/", ("hotkey",))

PLATFORM = METRICS.declare(
    "chutes_platform_active_instances", "Active and verified instances of all miners.", labels=()
)
PLATFORM_MULTIPLIER = METRICS.declare(
    "chutes_platform_active_compute_multiplier",
    "Sum of the compute multipliers of all miners' active instances, which is their compute units per second.",
    "compute_multiplier",
    labels=(),
)
BY_CHUTE = METRICS.declare(
    "chutes_chute_active_instances",
    "Active and verified instances of the chute on all miners. Absent without any.",
    "chute_id",
    labels=("chute_id",),
)
BY_MINER = METRICS.declare(
    "chutes_miner_active_instances",
    "Active and verified instances of the miner. 0 is only exported for watched miners.",
    "miner_hotkey",
)
MULTIPLIER = METRICS.declare(
    "chutes_miner_active_compute_multiplier",
    "Sum of the compute multipliers of the miner's active instances, which is its compute units per second.",
    "compute_multiplier",
)
NEWEST = METRICS.declare(
    "chutes_miner_last_activation_timestamp_seconds",
    "When the newest of the miner's active instances became active.",
    "the newest activated_at",
)


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    if not answers.complete():
        return
    instances = distinct(answers[ACTIVE_INSTANCES], lambda instance: instance.instance_id, out)
    out.add(PLATFORM, len(instances))
    out.add(PLATFORM_MULTIPLIER, total([instance.compute_multiplier for instance in instances]))
    if all(instance.chute_id is not None for instance in instances):
        for chute_id, count in Counter(instance.chute_id for instance in instances).items():
            out.add(BY_CHUTE, count, chute_id)
    by_miner: dict[str, list[ActiveInstance]] = {hotkey: [] for hotkey in sorted(scope.watched)}
    for instance in instances:
        if instance.miner_hotkey is None:
            # It may belong to any miner.
            return
        by_miner.setdefault(instance.miner_hotkey, []).append(instance)
    for hotkey, of_miner in by_miner.items():
        if scope.exports(hotkey, active=True):
            out.add(BY_MINER, len(of_miner), hotkey)
            out.add(MULTIPLIER, total([instance.compute_multiplier for instance in of_miner]), hotkey)
            activations = [instance.activated_at for instance in of_miner if instance.activated_at is not None]
            if len(activations) == len(of_miner):
                out.add(NEWEST, max(activations, default=None), hotkey)


COLLECTOR = Collector(
    name="active_instances",
    summary="active instances of the whole platform, by miner and by chute",
    feeds=(ACTIVE_INSTANCES,),
    metrics=METRICS,
    collect=_collect,
    cost="2, 3 for each miner, 1 for each chute",
)

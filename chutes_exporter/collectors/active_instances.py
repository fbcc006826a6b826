"""Active instances of the whole platform: who runs how much, and where each chute runs."""

from __future__ import annotations

from collections import Counter

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope
from chutes_exporter.metric import Metric, Samples
from chutes_exporter.sources import ACTIVE_INSTANCES

_SOURCE = "GET /miner/active_instances/"

PLATFORM = Metric("chutes_platform_active_instances", "Active instances of all miners.", (), _SOURCE)
PLATFORM_MULTIPLIER = Metric(
    "chutes_platform_active_compute_multiplier",
    "Sum of the compute multipliers of all miners' active instances: compute units that a second earns everybody.",
    (),
    f"{_SOURCE}: compute_multiplier",
)
BY_CHUTE = Metric(
    "chutes_chute_active_instances",
    "Active instances of the chute on all miners; absent where there are none.",
    ("chute_id",),
    f"{_SOURCE}: chute_id",
)
BY_MINER = Metric(
    "chutes_miner_active_instances",
    "Active instances of the miner; of miners that are not watched, absent where there are none.",
    ("hotkey",),
    f"{_SOURCE}: miner_hotkey",
)
MULTIPLIER = Metric(
    "chutes_miner_active_compute_multiplier",
    "Sum of the compute multipliers of the miner's active instances: compute units that a second earns it.",
    ("hotkey",),
    f"{_SOURCE}: compute_multiplier",
)
NEWEST = Metric(
    "chutes_miner_last_activation_timestamp_seconds",
    "When the newest of the miner's active instances became active.",
    ("hotkey",),
    f"{_SOURCE}: the newest activated_at",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Translate the active instances."""
    instances = {one.instance_id: one for one in answers[ACTIVE_INSTANCES]}.values()
    chutes = Counter(one.chute_id for one in instances if one.chute_id is not None)
    miners = Counter(one.miner_hotkey for one in instances if one.miner_hotkey is not None)
    multipliers: Counter[str] = Counter()
    newest: dict[str, float] = {}
    for one in instances:
        if one.miner_hotkey is not None:
            # Counter's values are declared as int, but add up any number.
            multipliers[one.miner_hotkey] += one.compute_multiplier or 0  # type: ignore[assignment]
            if one.activated_at is not None:
                newest[one.miner_hotkey] = max(newest.get(one.miner_hotkey, 0.0), one.activated_at)
    for chute_id, count in chutes.items():
        out.add(BY_CHUTE, count, chute_id)
    # The answer has every miner's: a watched one that is not in it runs nothing.
    for hotkey in [*miners, *sorted(scope.watched - miners.keys())]:
        if scope.exports(hotkey, active=True):
            out.add(BY_MINER, miners[hotkey], hotkey)
            out.add(MULTIPLIER, multipliers[hotkey], hotkey)
            out.add(NEWEST, newest.get(hotkey), hotkey)
    out.add(PLATFORM, len(instances))
    out.add(PLATFORM_MULTIPLIER, sum(one.compute_multiplier or 0 for one in instances))


COLLECTOR = Collector(
    name="active_instances",
    summary="active instances of the whole platform, by miner and by chute",
    sources=(ACTIVE_INSTANCES,),
    metrics=(PLATFORM, PLATFORM_MULTIPLIER, BY_CHUTE, BY_MINER, MULTIPLIER, NEWEST),
    collect=collect,
    cost=Cost(fixed=2, chute=1, miner=3),
)

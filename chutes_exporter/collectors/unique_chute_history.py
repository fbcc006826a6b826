"""How broadly a miner works: the newest hour of its history."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope
from chutes_exporter.metric import Metric, Samples
from chutes_exporter.sources import UNIQUE_CHUTE_HISTORY

_SOURCE = "GET /miner/unique_chute_history/{hotkey}"
_MINER = ("hotkey",)

UNIQUE_CHUTE_GPUS = Metric(
    "chutes_miner_unique_chute_gpus",
    "Distinct chutes that the miner ran in the newest hour of its history, weighted by GPUs.",
    _MINER,
    f"{_SOURCE}: count",
)
ACTIVE_GPUS = Metric(
    "chutes_miner_active_gpus",
    "GPUs of the miner that were active in the newest hour of its history.",
    _MINER,
    f"{_SOURCE}: total_count",
)
TIME = Metric(
    "chutes_miner_history_timestamp_seconds",
    "The newest hour of the miner's history.",
    _MINER,
    f"{_SOURCE}: time",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Translate the newest point."""
    points = answers[UNIQUE_CHUTE_HISTORY]
    newest = max(points, key=lambda point: point.time, default=None)
    if newest is not None:
        out.add(UNIQUE_CHUTE_GPUS, newest.count, scope.hotkey)
        out.add(ACTIVE_GPUS, newest.total_count, scope.hotkey)
        out.add(TIME, newest.time, scope.hotkey)


COLLECTOR = Collector(
    name="unique_chute_history",
    summary="chutes and GPUs that each watched miner ran in the newest hour of its history",
    sources=(UNIQUE_CHUTE_HISTORY,),
    metrics=(UNIQUE_CHUTE_GPUS, ACTIVE_GPUS, TIME),
    collect=collect,
    cost=Cost(fixed=3),
    default="few",
)

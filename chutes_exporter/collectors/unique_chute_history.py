"""A miner's history: GPUs at the newest full hour, and their average over 7 days."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import UNIQUE_CHUTE_HISTORY
from chutes_exporter.rules.sums import total

METRICS = Metrics("GET /miner/unique_chute_history/{hotkey}", ("hotkey",))

UNIQUE_CHUTE_GPUS = METRICS.declare(
    "chutes_miner_unique_chute_gpus",
    "GPUs of the distinct chutes that the miner ran at the newest full hour. Each chute counts once, with the GPUs "
    "that it needs now. Public instances count from the age of one hour, so the numbers of the newest hours still "
    "rise.",
    "count",
)
ACTIVE_GPUS = METRICS.declare(
    "chutes_miner_active_gpus",
    "GPUs of all the miner's instances that were active at the newest full hour. Public instances count from the age "
    "of one hour.",
    "total_count",
)
AVERAGE_GPUS = METRICS.declare(
    "chutes_miner_average_active_gpus",
    "Average of the GPUs that were active at each full hour of the past 7 days.",
    "the average of total_count",
)
TIME = METRICS.declare(
    "chutes_miner_history_timestamp_seconds",
    "The newest full hour of the miner's history. It stops when the miner has had no activity for 7 days.",
    "time",
)


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    points = distinct(answers[UNIQUE_CHUTE_HISTORY], lambda point: point.time, out)
    newest = max(points, key=lambda point: point.time, default=None)
    # A rejected point may be the newest.
    if newest is None or not answers.complete():
        return
    out.add(UNIQUE_CHUTE_GPUS, newest.count, scope.hotkey)
    out.add(ACTIVE_GPUS, newest.total_count, scope.hotkey)
    out.add(TIME, newest.time, scope.hotkey)
    gpus = total([point.total_count for point in points])
    if gpus is not None:
        out.add(AVERAGE_GPUS, gpus / len(points), scope.hotkey)


COLLECTOR = Collector(
    name="unique_chute_history",
    summary="GPUs that each watched miner had active, at the newest full hour and on average over 7 days",
    feeds=(UNIQUE_CHUTE_HISTORY,),
    metrics=METRICS,
    collect=_collect,
    cost="4 for each watched hotkey",
    default="few",
)

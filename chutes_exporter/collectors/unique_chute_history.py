"""A miner's history: GPUs at the newest full hour, and their average over 7 days."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.api.records import HistoryPoint
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Table, Total
from chutes_exporter.feeds.definitions import UNIQUE_CHUTE_HISTORY
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Callable


def _newest(
    field: Callable[[HistoryPoint], float | None],
) -> Callable[[list[HistoryPoint]], float | None]:
    """Return a function that gets a field of the newest point in a history."""

    def get_field(points: list[HistoryPoint]) -> float | None:
        if not points:
            return None
        newest_point = max(points, key=lambda point: point.time)
        return field(newest_point)

    return get_field


def _average(counts: list[float]) -> dict[str, float]:
    """Return the average of 7 days, by window."""
    gpus = total(counts)
    if gpus is None or not counts:
        return {}
    return {"7d": gpus / len(counts)}


POINT = Table[HistoryPoint](
    UNIQUE_CHUTE_HISTORY,
    key="time",
    chutes_miner_unique_chute_gpus=Total(
        "GPUs of the distinct chutes that the miner ran at the newest full hour. Each chute "
        "counts once, with the "
        "GPUs that it needs now. Public instances count from the age of one hour, so the numbers "
        "of the newest hours "
        "still rise.",
        _newest(lambda point: point.count),
    ),
    chutes_miner_active_gpus=Total(
        "GPUs of all the miner's instances that were active at the newest full hour. Public "
        "instances count from the "
        "age of one hour.",
        _newest(lambda point: point.total_count),
    ),
    chutes_miner_history_timestamp_seconds=Total(
        "The newest full hour of the miner's history. It stops when the miner has had no "
        "activity for 7 days.",
        _newest(lambda point: point.time),
    ),
    chutes_miner_average_active_gpus=Total(
        "Average of the GPUs that were active at each full hour of the past 7 days.",
        _average,
        of="total_count",
        label="window",
    ),
)

COLLECTOR = Collector(
    "unique_chute_history",
    "GPUs that each watched miner had active, at the newest full hour and on average over 7 days",
    (POINT,),
    default="few",
)

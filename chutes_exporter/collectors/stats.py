"""Stats: the compute of each miner in the past hour, day and week."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.api.meaning import total
from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import STATS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import MinerStats, Stats

METRICS = Metrics()
_SOURCE = "GET /miner/stats"
_WINDOWS = "past_hour, past_day, all"

INSTANCES = METRICS.gauge(
    "chutes_miner_window_instances",
    "Counting instances that overlap the window, including deleted ones.",
    ("hotkey", "window"),
    f"{_SOURCE}: {_WINDOWS}.instance_stats.total_instances",
)
BOUNTIES = METRICS.gauge(
    "chutes_miner_window_bounties",
    "Counting instances in the window that were activated with a bounty.",
    ("hotkey", "window"),
    f"{_SOURCE}: {_WINDOWS}.instance_stats.bounty_count",
)
COMPUTE_SECONDS = METRICS.gauge(
    "chutes_miner_window_compute_seconds",
    "Seconds of counting instances within the window, including their start-up.",
    ("hotkey", "window"),
    f"{_SOURCE}: {_WINDOWS}.instance_stats.compute_seconds",
)
COMPUTE_UNITS = METRICS.gauge(
    "chutes_miner_window_compute_units",
    "Compute units in the window: seconds of counting instances times their compute multiplier. The 1d window equals "
    "the score.",
    ("hotkey", "window"),
    f"{_SOURCE}: {_WINDOWS}.instance_stats.compute_units",
)
PLATFORM_INSTANCES = METRICS.gauge(
    "chutes_platform_window_instances",
    "Counting instances of all miners that overlap the window.",
    ("window",),
    f"{_SOURCE}: sum of {_WINDOWS}.instance_stats.total_instances",
)
PLATFORM_BOUNTIES = METRICS.gauge(
    "chutes_platform_window_bounties",
    "Counting instances of all miners in the window that were activated with a bounty.",
    ("window",),
    f"{_SOURCE}: sum of {_WINDOWS}.instance_stats.bounty_count",
)
PLATFORM_COMPUTE_SECONDS = METRICS.gauge(
    "chutes_platform_window_compute_seconds",
    "Seconds of all miners' counting instances within the window.",
    ("window",),
    f"{_SOURCE}: sum of {_WINDOWS}.instance_stats.compute_seconds",
)
PLATFORM_COMPUTE_UNITS = METRICS.gauge(
    "chutes_platform_window_compute_units",
    "Compute units of all miners in the window, including blacklisted miners.",
    ("window",),
    f"{_SOURCE}: sum of {_WINDOWS}.instance_stats.compute_units",
)
PLATFORM_MINERS = METRICS.gauge(
    "chutes_platform_window_miners",
    "Miners with compute units in the window.",
    ("window",),
    f"{_SOURCE}: records of {_WINDOWS}.instance_stats",
)


def windows(stats: Stats) -> Iterator[tuple[str, list[MinerStats]]]:
    """Return the records of each window of an answer, with its length."""
    for name, records in (("1h", stats.hour), ("1d", stats.day), ("7d", stats.week)):
        if records is not None:
            yield name, records


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Add the stats of all miners."""
    complete = answers.complete()
    for name, window in windows(answers[STATS]):
        records = distinct(window, lambda record: record.miner_hotkey, out)
        for record in records:
            if scope.exports(record.miner_hotkey, active=bool(record.compute_units)):
                out.add(INSTANCES, record.total_instances, record.miner_hotkey, name)
                out.add(BOUNTIES, record.bounty_count, record.miner_hotkey, name)
                out.add(COMPUTE_SECONDS, record.compute_seconds, record.miner_hotkey, name)
                out.add(COMPUTE_UNITS, record.compute_units, record.miner_hotkey, name)
        # An empty list means that the service has no stats, not that no miner did anything.
        if complete and records:
            _add_zeros(scope.watched - {record.miner_hotkey for record in records}, name, out)
            _add_platform(records, name, out)


def _add_zeros(hotkeys: AbstractSet[str], name: str, out: Samples) -> None:
    """Add zeros for watched miners that are not in the answer, which lists all miners with compute."""
    for hotkey in sorted(hotkeys):
        out.add(COMPUTE_UNITS, 0, hotkey, name)
        out.add(INSTANCES, 0, hotkey, name)
        out.add(BOUNTIES, 0, hotkey, name)
        out.add(COMPUTE_SECONDS, 0, hotkey, name)


def _add_platform(records: list[MinerStats], name: str, out: Samples) -> None:
    if all(record.compute_units is not None for record in records):
        out.add(PLATFORM_MINERS, len(records), name)
    out.add(PLATFORM_INSTANCES, total([record.total_instances for record in records]), name)
    out.add(PLATFORM_BOUNTIES, total([record.bounty_count for record in records]), name)
    out.add(PLATFORM_COMPUTE_SECONDS, total([record.compute_seconds for record in records]), name)
    out.add(PLATFORM_COMPUTE_UNITS, total([record.compute_units for record in records]), name)


COLLECTOR = Collector(
    name="stats",
    summary="the compute of each miner, and of all miners, in the past hour, day and week",
    feeds=(STATS,),
    metrics=METRICS,
    collect=collect,
    cost=Cost(fixed=15, miner=12),
)

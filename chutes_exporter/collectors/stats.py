"""Stats: the compute of each miner, in all and on each chute, in the past hour, day and week."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.collectors.base import Answers, Collector, Metric, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import STATS, STATS_PER_CHUTE
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chutes_exporter.api.records import MinerStats, Stats

METRICS = Metrics("GET /miner/stats", ("window",))

INSTANCES = METRICS.declare(
    "chutes_miner_window_instances",
    "Counting instances that overlap the window, including deleted ones.",
    "past_hour, past_day, all.instance_stats.total_instances",
    labels=("hotkey", "window"),
)
BOUNTIES = METRICS.declare(
    "chutes_miner_window_bounties",
    "Counting instances in the window that were activated with a bounty.",
    "past_hour, past_day, all.instance_stats.bounty_count",
    labels=("hotkey", "window"),
)
COMPUTE_SECONDS = METRICS.declare(
    "chutes_miner_window_compute_seconds",
    "Seconds of counting instances within the window, including their start-up.",
    "past_hour, past_day, all.instance_stats.compute_seconds",
    labels=("hotkey", "window"),
)
COMPUTE_UNITS = METRICS.declare(
    "chutes_miner_window_compute_units",
    "Compute units in the window: seconds of counting instances times their compute multiplier. The 1d window equals "
    "the score.",
    "past_hour, past_day, all.instance_stats.compute_units",
    labels=("hotkey", "window"),
)
PLATFORM_INSTANCES = METRICS.declare(
    "chutes_platform_window_instances",
    "Counting instances of all miners that overlap the window.",
    "sum of past_hour, past_day, all.instance_stats.total_instances",
)
PLATFORM_BOUNTIES = METRICS.declare(
    "chutes_platform_window_bounties",
    "Counting instances of all miners in the window that were activated with a bounty.",
    "sum of past_hour, past_day, all.instance_stats.bounty_count",
)
PLATFORM_COMPUTE_SECONDS = METRICS.declare(
    "chutes_platform_window_compute_seconds",
    "Seconds of all miners' counting instances within the window.",
    "sum of past_hour, past_day, all.instance_stats.compute_seconds",
)
PLATFORM_COMPUTE_UNITS = METRICS.declare(
    "chutes_platform_window_compute_units",
    "Compute units of all miners in the window, including blacklisted miners.",
    "sum of past_hour, past_day, all.instance_stats.compute_units",
)
PLATFORM_MINERS = METRICS.declare(
    "chutes_platform_window_miners",
    "Miners with compute units in the window.",
    "records of past_hour, past_day, all.instance_stats",
)

CHUTE_METRICS = Metrics("GET /miner/stats?per_chute=true", ("hotkey", "chute_id", "window"))

CHUTE_INSTANCES = CHUTE_METRICS.declare(
    "chutes_miner_chute_window_instances",
    "Counting instances of the miner on the chute that overlap the window, including deleted ones.",
    "past_hour, past_day, all.instance_stats.total_instances",
)
CHUTE_BOUNTIES = CHUTE_METRICS.declare(
    "chutes_miner_chute_window_bounties",
    "Counting instances of the miner on the chute in the window that were activated with a bounty.",
    "past_hour, past_day, all.instance_stats.bounty_count",
)
CHUTE_COMPUTE_SECONDS = CHUTE_METRICS.declare(
    "chutes_miner_chute_window_compute_seconds",
    "Seconds of the miner's counting instances on the chute within the window, including their start-up.",
    "past_hour, past_day, all.instance_stats.compute_seconds",
)
CHUTE_COMPUTE_UNITS = CHUTE_METRICS.declare(
    "chutes_miner_chute_window_compute_units",
    "Compute units of the miner on the chute in the window: seconds times the compute multiplier.",
    "past_hour, past_day, all.instance_stats.compute_units",
)

_MINER = (INSTANCES, BOUNTIES, COMPUTE_SECONDS, COMPUTE_UNITS)
_PLATFORM = (PLATFORM_INSTANCES, PLATFORM_BOUNTIES, PLATFORM_COMPUTE_SECONDS, PLATFORM_COMPUTE_UNITS)
_CHUTE = (CHUTE_INSTANCES, CHUTE_BOUNTIES, CHUTE_COMPUTE_SECONDS, CHUTE_COMPUTE_UNITS)


def windows(stats: Stats) -> Iterator[tuple[str, list[MinerStats]]]:
    """Return the records of each window of an answer, with its length."""
    for window, records in (("1h", stats.hour), ("1d", stats.day), ("7d", stats.week)):
        if records is not None:
            yield window, records


def _values(record: MinerStats) -> tuple[float | None, ...]:
    return record.total_instances, record.bounty_count, record.compute_seconds, record.compute_units


def _add(out: Samples, metrics: tuple[Metric, ...], values: Iterable[float | None], *labels: str) -> None:
    for metric, value in zip(metrics, values, strict=True):
        out.add(metric, value, *labels)


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    for window, listed in windows(answers[STATS]):
        records = distinct(listed, lambda record: record.miner_hotkey, out)
        for record in records:
            if scope.exports(record.miner_hotkey, active=bool(record.compute_units)):
                _add(out, _MINER, _values(record), record.miner_hotkey, window)
        # An empty list means that the service has no stats, not that no miner did anything.
        if answers.complete() and records:
            # The answer lists all miners with compute.
            for hotkey in sorted(scope.watched - {record.miner_hotkey for record in records}):
                _add(out, _MINER, (0, 0, 0, 0), hotkey, window)
            if all(record.compute_units is not None for record in records):
                out.add(PLATFORM_MINERS, len(records), window)
            _add(out, _PLATFORM, map(total, zip(*map(_values, records), strict=True)), window)


def _collect_per_chute(answers: Answers, scope: Scope, out: Samples) -> None:
    for window, records in windows(answers[STATS_PER_CHUTE]):
        for record in distinct(records, lambda record: (record.miner_hotkey, record.chute_id), out):
            exported = scope.exports(record.miner_hotkey, active=bool(record.compute_units))
            if exported and record.chute_id is not None:
                _add(out, _CHUTE, _values(record), record.miner_hotkey, record.chute_id, window)


COLLECTOR = Collector(
    name="stats",
    summary="the compute of each miner, and of all miners, in the past hour, day and week",
    feeds=(STATS,),
    metrics=METRICS,
    collect=_collect,
    cost="15, 12 for each miner",
)
PER_CHUTE = Collector(
    name="stats_per_chute",
    summary="the compute of each miner on each chute in the past hour, day and week",
    feeds=(STATS_PER_CHUTE,),
    metrics=CHUTE_METRICS,
    collect=_collect_per_chute,
    cost="12 for each chute of each miner",
    watched_only=True,
)

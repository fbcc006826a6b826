"""Stats: the compute of each miner, in all and on each chute, in the past hour, day and week."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.collectors.base import Answers, Collector, Metric, Miners, Samples, distinct, metrics_of
from chutes_exporter.feeds.table import STATS, STATS_PER_CHUTE
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chutes_exporter.api.records import MinerStats, Stats

MINER = metrics_of(STATS, labels=("hotkey", "window"), each="miner", times=3, whole=False)
MINER.declare("chutes_miner_window_instances", "Counting instances that overlap the window, including deleted ones.")
MINER.declare("chutes_miner_window_bounties", "Counting instances in the window that were activated with a bounty.")
MINER.declare(
    "chutes_miner_window_compute_seconds", "Seconds of counting instances within the window, including their start-up."
)
MINER.declare(
    "chutes_miner_window_compute_units",
    "Compute units in the window: seconds of counting instances times their compute multiplier. The 1d window equals "
    "the score.",
)

PLATFORM = metrics_of(STATS, labels=("window",), times=3)
PLATFORM.declare("chutes_platform_window_miners", "Miners with compute units in the window.")
PLATFORM.declare("chutes_platform_window_instances", "Counting instances of all miners that overlap the window.")
PLATFORM.declare(
    "chutes_platform_window_bounties",
    "Counting instances of all miners in the window that were activated with a bounty.",
)
PLATFORM.declare(
    "chutes_platform_window_compute_seconds", "Seconds of all miners' counting instances within the window."
)
PLATFORM.declare(
    "chutes_platform_window_compute_units", "Compute units of all miners in the window, including blacklisted miners."
)

CHUTE = metrics_of(
    STATS_PER_CHUTE, labels=("hotkey", "chute_id", "window"), each="chute of each miner", times=3, whole=False
)
CHUTE.declare(
    "chutes_miner_chute_window_instances",
    "Counting instances of the miner on the chute that overlap the window, including deleted ones.",
)
CHUTE.declare(
    "chutes_miner_chute_window_bounties",
    "Counting instances of the miner on the chute in the window that were activated with a bounty.",
)
CHUTE.declare(
    "chutes_miner_chute_window_compute_seconds",
    "Seconds of the miner's counting instances on the chute within the window, including their start-up.",
)
CHUTE.declare(
    "chutes_miner_chute_window_compute_units",
    "Compute units of the miner on the chute in the window: seconds times the compute multiplier.",
)


def windows(stats: Stats) -> Iterator[tuple[str, list[MinerStats]]]:
    """Return the records of each window of an answer, with its length."""
    for window, records in (("1h", stats.hour), ("1d", stats.day), ("7d", stats.week)):
        if records is not None:
            yield window, records


def _values(record: MinerStats) -> tuple[float | None, ...]:
    return record.total_instances, record.bounty_count, record.compute_seconds, record.compute_units


def _add(out: Samples, metrics: Iterable[Metric], values: Iterable[float | None], *labels: str) -> None:
    for metric, value in zip(metrics, values, strict=True):
        out.add(metric, value, *labels)


def _collect(answers: Answers, miners: Miners, out: Samples) -> None:
    for window, listed in windows(answers[STATS]):
        records = distinct(listed, lambda record: record.miner_hotkey, out)
        for record in records:
            if miners.exports(record.miner_hotkey, active=bool(record.compute_units)):
                _add(out, MINER, _values(record), record.miner_hotkey, window)
        # An empty list means that the service has no stats, not that no miner did anything.
        if records:
            # The answer lists all miners with compute.
            listed_miners = {record.miner_hotkey for record in records}
            for hotkey in answers.unlisted(STATS, sorted(miners.watched), listed_miners):
                _add(out, MINER, (0, 0, 0, 0), hotkey, window)
            known = None not in [record.compute_units for record in records]
            totals = map(total, zip(*map(_values, records), strict=True))
            _add(out, PLATFORM, (len(records) if known else None, *totals), window)


def _collect_per_chute(answers: Answers, miners: Miners, out: Samples) -> None:
    for window, records in windows(answers[STATS_PER_CHUTE]):
        for record in distinct(records, lambda record: (record.miner_hotkey, record.chute_id), out):
            exported = miners.exports(record.miner_hotkey, active=bool(record.compute_units))
            if exported and record.chute_id is not None:
                _add(out, CHUTE, _values(record), record.miner_hotkey, record.chute_id, window)


COLLECTOR = Collector(
    "stats",
    "the compute of each miner, and of all miners, in the past hour, day and week",
    feeds=(STATS,),
    metrics=[*MINER, *PLATFORM],
    collect=_collect,
)
PER_CHUTE = Collector(
    "stats_per_chute",
    "the compute of each miner on each chute in the past hour, day and week",
    feeds=(STATS_PER_CHUTE,),
    metrics=CHUTE,
    collect=_collect_per_chute,
    watched_only=True,
)

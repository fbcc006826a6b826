"""Stats per chute: the compute of each miner on each chute in the past hour, day and week."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.collectors.stats import windows
from chutes_exporter.feeds.table import STATS_PER_CHUTE

METRICS = Metrics()
_LABELS = ("hotkey", "chute_id", "window")
_SOURCE = "GET /miner/stats?per_chute=true: past_hour, past_day, all.instance_stats"

INSTANCES = METRICS.gauge(
    "chutes_miner_chute_window_instances",
    "Counting instances of the miner on the chute that overlap the window, including deleted ones.",
    _LABELS,
    f"{_SOURCE}.total_instances",
)
BOUNTIES = METRICS.gauge(
    "chutes_miner_chute_window_bounties",
    "Counting instances of the miner on the chute in the window that were activated with a bounty.",
    _LABELS,
    f"{_SOURCE}.bounty_count",
)
COMPUTE_SECONDS = METRICS.gauge(
    "chutes_miner_chute_window_compute_seconds",
    "Seconds of the miner's counting instances on the chute within the window, including their start-up.",
    _LABELS,
    f"{_SOURCE}.compute_seconds",
)
COMPUTE_UNITS = METRICS.gauge(
    "chutes_miner_chute_window_compute_units",
    "Compute units of the miner on the chute in the window: seconds times the compute multiplier.",
    _LABELS,
    f"{_SOURCE}.compute_units",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Add the stats per chute."""
    for name, window in windows(answers[STATS_PER_CHUTE]):
        records = distinct(window, lambda record: (record.miner_hotkey, record.chute_id), out)
        for record in records:
            exported = scope.exports(record.miner_hotkey, active=bool(record.compute_units))
            if record.chute_id is None or not exported:
                continue
            labels = (record.miner_hotkey, record.chute_id, name)
            out.add(INSTANCES, record.total_instances, *labels)
            out.add(BOUNTIES, record.bounty_count, *labels)
            out.add(COMPUTE_SECONDS, record.compute_seconds, *labels)
            out.add(COMPUTE_UNITS, record.compute_units, *labels)


COLLECTOR = Collector(
    name="stats_per_chute",
    summary="the compute of each miner on each chute in the past hour, day and week",
    feeds=(STATS_PER_CHUTE,),
    metrics=METRICS,
    collect=collect,
    cost=Cost(miner_chute=12),
    default="watched",
)

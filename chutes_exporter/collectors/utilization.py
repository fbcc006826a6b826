"""The autoscaler's view of each chute: how many more instances it allows, and how much demand there is."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import UTILIZATION
from chutes_exporter.rules.demand import load_is_unknown, recent_ratio, starting_instances, target_instances

METRICS = Metrics("GET /chutes/utilization", ("chute_id",))

AUTOSCALER = METRICS.declare(
    "chutes_autoscaler_timestamp_seconds",
    "When the autoscaler last ran. If it stops, the targets, allowances and recent ratios of all chutes become stale.",
    "the newest timestamp",
    labels=(),
)
ALLOWANCE = METRICS.declare(
    "chutes_chute_scale_allowance",
    "Instances by which the chute is below its target. At 0 the service refuses launches with 423, except of a private "
    "chute without a target that has an active instance or a bounty. chutes_launch_units_per_gpu_second has what the "
    "miner can launch.",
    "scale_allowance",
)
SCALABLE = METRICS.declare(
    "chutes_chute_scalable",
    "Whether the chute has fewer active instances than the autoscaler wants (1).",
    "scalable",
)
TARGET = METRICS.declare(
    "chutes_chute_target_instances",
    "Number of active instances that the autoscaler wants for the chute. Absent if its last run wanted more than the "
    "service allows now.",
    "active_instance_count + scale_allowance, or target_count without an allowance",
)
STARTING = METRICS.declare(
    "chutes_chute_starting_instances",
    "Instances of the chute that are not active, on all miners. They are starting, or their miners disabled them.",
    "total_instance_count - active_instance_count",
)
UTILIZED = METRICS.declare(
    "chutes_chute_recent_utilization_ratio",
    "Average use of the chute's capacity in the window before the autoscaler's last run. Above 1, demand exceeds "
    "capacity. Absent for a chute that had no instance.",
    "utilization_5m, utilization_15m, utilization_1h",
    labels=("chute_id", "window"),
)
RATE_LIMITED = METRICS.declare(
    "chutes_chute_rate_limited_ratio",
    "Share of the chute's requests that were refused in the window before the autoscaler's last run, because all "
    "instances were busy. 0 without requests. Absent for a chute that had no instance.",
    "rate_limit_ratio_5m, rate_limit_ratio_15m, rate_limit_ratio_1h",
    labels=("chute_id", "window"),
)


def _collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    chutes = distinct(answers[UTILIZATION], lambda chute: chute.chute_id, out)
    unknown = load_is_unknown(chutes)
    for chute in chutes:
        key = chute.chute_id
        out.add(ALLOWANCE, chute.scale_allowance, key)
        out.add(SCALABLE, chute.scalable, key)
        out.add(TARGET, target_instances(chute), key)
        out.add(STARTING, starting_instances(chute), key)
        if unknown:
            continue
        for window, used, refused in (
            ("5m", chute.utilization_5m, chute.rate_limit_ratio_5m),
            ("15m", chute.utilization_15m, chute.rate_limit_ratio_15m),
            ("1h", chute.utilization_1h, chute.rate_limit_ratio_1h),
        ):
            out.add(UTILIZED, recent_ratio(chute, used), key, window)
            out.add(RATE_LIMITED, recent_ratio(chute, refused), key, window)
    times = [chute.timestamp for chute in chutes if chute.timestamp is not None]
    if answers.complete() and len(times) == len(chutes):
        out.add(AUTOSCALER, max(times, default=None))


COLLECTOR = Collector(
    name="utilization",
    summary="room for more instances of each chute, and its demand as the autoscaler sees it",
    feeds=(UTILIZATION,),
    metrics=METRICS,
    collect=_collect,
    cost="1, 10 for each chute",
)

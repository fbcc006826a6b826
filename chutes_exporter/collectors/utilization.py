"""The autoscaler's view of each chute: how many instances it wants, and its demand."""

from __future__ import annotations

from functools import partial

from msgspec import structs

from chutes_exporter.api.records import ChuteUtilization
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Row, Table, Total
from chutes_exporter.feeds.definitions import UTILIZATION
from chutes_exporter.rules.demand import (
    inactive_instances,
    load_is_unknown,
    recent_ratio,
    target_instances,
)


def _measured(chutes: list[ChuteUtilization]) -> list[ChuteUtilization]:
    """Return the records. If the autoscaler's monitoring failed, they are without the ratios that
    this collector exports.
    """
    if not load_is_unknown(chutes):
        return chutes
    none_by_field = {
        "utilization_15m": None,
        "utilization_1h": None,
        "rate_limit_ratio_15m": None,
        "rate_limit_ratio_1h": None,
    }
    return [structs.replace(chute, **none_by_field) for chute in chutes]


def _utilization(chute: ChuteUtilization) -> dict[str, float | None]:
    """Return the use of a chute's capacity by window."""
    return {
        "15m": recent_ratio(chute, chute.utilization_15m),
        "1h": recent_ratio(chute, chute.utilization_1h),
    }


def _rate_limited(chute: ChuteUtilization) -> dict[str, float | None]:
    """Return the share of a chute's requests that were refused, by window."""
    return {
        "15m": recent_ratio(chute, chute.rate_limit_ratio_15m),
        "1h": recent_ratio(chute, chute.rate_limit_ratio_1h),
    }


CHUTE = Table[ChuteUtilization](
    UTILIZATION,
    key="chute_id",
    of_chutes=True,
    records=_measured,
    chutes_chute_scale_allowance=Row(
        "Instances by which the chute is below its target. At 0 the service refuses launches with "
        "423, except of a private chute without a target that has an active instance or a bounty. "
        "chutes_launch_gpus has what the miner can launch.",
        "scale_allowance",
    ),
    chutes_chute_scalable=Row(
        "Whether the chute has fewer active instances than the autoscaler wants (1).", "scalable"
    ),
    chutes_chute_target_instances=Row(
        "Number of active instances that the autoscaler wants for the chute. Absent if its last "
        "run wanted more than "
        "the service allows now.",
        target_instances,
    ),
    chutes_chute_starting_instances=Row(
        "Instances of the chute that are not active, on all miners. They are starting, or "
        "their miners disabled them.",
        inactive_instances,
    ),
    chutes_chute_recent_utilization_ratio=Row(
        "Average use of the chute's capacity in the window before the autoscaler's last run. "
        "Above 1, demand exceeds "
        "capacity. Absent for a chute that had no instance.",
        _utilization,
        by="window",
    ),
    chutes_chute_rate_limited_ratio=Row(
        "Share of the chute's requests that were refused in the window before the autoscaler's "
        "last run, because all "
        "instances were busy. 0 without requests. Absent for a chute that had no instance.",
        _rate_limited,
        by="window",
    ),
    chutes_autoscaler_timestamp_seconds=Total(
        "When the autoscaler last ran. If it stops, the targets, allowances and recent ratios of "
        "all chutes become "
        "stale.",
        partial(max, default=None),
        of="timestamp",
    ),
)

COLLECTOR = Collector(
    "utilization",
    "room for more instances of each chute, and its demand as the autoscaler sees it",
    (CHUTE,),
)

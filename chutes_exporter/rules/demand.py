"""Rules about the demand for chutes: what the autoscaler wants, and whether the service measured
it.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.api.records import ChuteMetrics, ChuteUtilization


def target_instances(chute: ChuteUtilization) -> float | None:
    """Return how many active instances the autoscaler wants of a chute now, None if that is
    unknown.

    The sent target is that of the autoscaler's last run. The allowance is how far the present
    target is above the active instances, and 0 if it is not above them. So with an allowance of 0,
    a sent target above the active instances is out of date.
    """
    active, allowance = chute.active_instance_count, chute.scale_allowance
    if active is None or allowance is None:
        return None
    if allowance > 0:
        return active + allowance
    sent = chute.target_count
    if sent is not None and sent > active:
        return None
    return sent


def highest_target(chute: ChuteUtilization) -> float | None:
    """Return the target of a chute, and the active instances if it is known to be at most these,
    because no such target leaves room for a launch.
    """
    target = target_instances(chute)
    if target is None and None not in (chute.scale_allowance, chute.target_count):
        # The target of the autoscaler's last run is out of date.
        return chute.active_instance_count
    return target


def inactive_instances(chute: ChuteUtilization) -> float | None:
    """Return how many instances of a chute are not active: they start, or their miners disabled
    them.

    The two numbers may be of different moments, so that there may be more active ones than all.
    """
    total, active = chute.total_instance_count, chute.active_instance_count
    if total is None or active is None:
        return None
    return max(0.0, total - active)


def recent_ratio(chute: ChuteUtilization, ratio: float | None) -> float | None:
    """Return a ratio of the autoscaler's last run, or None if it is unknown.

    The service sends 0 for a chute that its monitoring does not know, for example a chute without
    an instance. So 0 is a measurement only if the chute is known to have had instances.
    """
    if ratio == 0 and not chute.instance_count:
        return None
    return ratio


def load_is_unknown(chutes: Sequence[ChuteUtilization]) -> bool:
    """Return whether the autoscaler's monitoring failed.

    In that case, the service sends a load of 0 for every chute of the platform.
    """
    loads: set[float | None] = set()
    for chute in chutes:
        loads |= {chute.utilization_5m, chute.utilization_15m, chute.utilization_1h}
    # Without any load, nothing shows a failure.
    return loads - {None} == {0}


_NEVER_ZERO: Final = ("total_invocations", "total_compute_time", "total_usage_usd", "utilization")
"""The fields of ``/miner/metrics/`` that the service's own monitoring measures, and of which some
chute always has more than 0."""


def demand_is_unknown(chutes: Sequence[ChuteMetrics]) -> bool:
    """Return whether the service's own monitoring is down: no chute of the platform has requests or
    use. An answer without chutes does not show that.
    """
    in_use = any(chute.total_invocations or chute.utilization for chute in chutes)
    return bool(chutes) and not in_use


def unknown_metrics(chutes: Sequence[ChuteMetrics]) -> list[str]:
    """Return the fields whose values in this answer are no measurements.

    The service measures each field of the demand separately. If that fails, it sends 0 for every
    chute. Only ``rate_limit_count`` may really be 0 for all chutes.
    """
    if demand_is_unknown(chutes):
        return [*_NEVER_ZERO, "rate_limit_count"]
    return [field for field in _NEVER_ZERO if not any(map(attrgetter(field), chutes))]

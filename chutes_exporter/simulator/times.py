"""Lengths of time, and the clocks that the service's programs run by. All in seconds."""

from __future__ import annotations

MINUTE = 60.0
HOUR = 3600.0
DAY = 24 * HOUR
WEEK = 7 * DAY

CACHE_PERIOD = 10 * MINUTE
"""Stats, scores, histories and invocation counts are calculated this often."""
METRICS_PERIOD = 2 * MINUTE
"""The demand for chutes is kept this long."""
SYNC_PERIOD = 3 * MINUTE
"""The metagraph is read from the chain this often."""
AUTOSCALER_PERIOD = 30 * MINUTE
"""Boosts are set, and launches that take too long are purged, this often."""


def last(now: float, period: float) -> float:
    """Return when something that runs at every full period has last run."""
    return now // period * period


def next_run(now: float, period: float) -> float:
    """Return when something that runs at every full period runs next; now itself counts."""
    return -(-now // period) * period

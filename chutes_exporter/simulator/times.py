"""Periods of the service's programs, in seconds."""

from __future__ import annotations

MINUTE = 60.0
HOUR = 3600.0
DAY = 24 * HOUR
WEEK = 7 * DAY

CACHE_PERIOD = 10 * MINUTE
"""Period of computing stats, scores, histories and invocation counts."""
METRICS_PERIOD = 2 * MINUTE
"""Period of computing the demand for chutes."""
SYNC_PERIOD = 3 * MINUTE
"""Period of reading the metagraph from the chain."""
AUTOSCALER_PERIOD = 30 * MINUTE
"""Period of setting boosts and purging launches that take too long."""


def last(now: float, period: float) -> float:
    """Return the last run, up to now, of a program that runs at every full period."""
    return now // period * period


def next_run(now: float, period: float) -> float:
    """Return the next run, from now on, of a program that runs at every full period."""
    return -(-now // period) * period

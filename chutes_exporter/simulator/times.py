"""Periods of the service's programs in seconds, and ids and random generators that depend only on a seed."""

from __future__ import annotations

import hashlib
import random

from chutes_exporter.duration import MINUTE

CACHE_PERIOD = 10 * MINUTE
"""Period of computing stats, scores, histories and invocation counts."""
SOFT_PERIOD = 2 * MINUTE
"""Period of the autoscaler's soft runs, which set targets and boosts, and purge instances."""


def last(now: float, period: float) -> float:
    """Return the last run of a program that runs at every full period."""
    return now // period * period


def next_run(now: float, period: float) -> float:
    """Return the next run of a program that runs at every full period."""
    return -(-now // period) * period


def make_uuid(*parts: object) -> str:
    digits = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


def make_random(*parts: object) -> random.Random:
    return random.Random("/".join(map(str, parts)))

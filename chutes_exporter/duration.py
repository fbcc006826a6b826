"""Durations in seconds, and durations and times in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
DAY_HOURS: Final = 24

_UNITS = ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"))


def human_duration(seconds: float) -> str:
    """Format a duration, rounded, without its sign: ``12 minutes``, ``1 hour``, ``0.4 seconds``."""
    seconds = abs(seconds)
    for size, name in _UNITS:
        # Use a unit for more than 1.5 of it, or for 1 of it to the second. In between, "89 minutes"
        # is more precise than "1 hour".
        if seconds > size * 1.5 or round(seconds) == size:
            count = round(seconds / size)
            return f"{count} {name}{'s' if count != 1 else ''}"
    if seconds >= 10:  # noqa: PLR2004 - below ten seconds a decimal matters
        return f"{seconds:.0f} seconds"
    return f"{seconds:.1f} seconds"


def utc_text(time: float, form: str = "%Y-%m-%d %H:%M") -> str:
    """Format a Unix time: ``2026-12-01 14:05 UTC``."""
    return f"{datetime.fromtimestamp(time, UTC):{form}} UTC"

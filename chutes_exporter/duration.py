"""Durations as people say them."""

from __future__ import annotations

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))


def human_duration(seconds: float) -> str:
    """Say a duration in its largest fitting unit, rounded: ``12 minutes``, ``1 hour``, ``0.4 seconds``.

    Args:
        seconds: Any length of time in seconds; the sign is dropped.
    """
    seconds = abs(seconds)
    for size, name in _UNITS:
        # Above one and a half units: "90 minutes" reads truer than "2 hours".
        if seconds > size * 1.5 or round(seconds) == size:
            count = round(seconds / size)
            return f"{count} {name}{'s' if count != 1 else ''}"
    if seconds >= 10:  # noqa: PLR2004 - below ten seconds a decimal matters
        return f"{seconds:.0f} seconds"
    return f"{seconds:.1f} seconds"

"""Clocks: a steady one, and that of the API."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

OFFSET_MAX_AGE = 600.0
"""Seconds after the newest date of the API at which the offset of the local clock is dropped."""


def steady() -> float:
    """Return the time in seconds of a monotonic clock that also runs while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()  # pragma: no cover - not on Linux


class ApiClock:
    """The Unix time of an API, by the date of its newest answer.

    Until the first date, the local clock counts. After that, neither a wrong local clock nor its
    correction changes the time.
    """

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._monotonic = monotonic
        # Seconds by which the API's time is ahead of the monotonic clock.
        self._lead: float | None = None
        # Monotonic time of the newest date.
        self._set_at = 0.0

    def __call__(self) -> float:
        """Return the Unix time of the API."""
        if self._lead is None:
            return self._clock()
        return self._monotonic() + self._lead

    def set(self, now: float) -> None:
        """Set the clock to a date of the API, in Unix seconds, that has just arrived."""
        self._set_at = self._monotonic()
        self._lead = now - self._set_at

    @property
    def offset(self) -> float | None:
        """Seconds by which the local clock is ahead of the API now, None without a recent date."""
        if self._lead is None or self._monotonic() - self._set_at >= OFFSET_MAX_AGE:
            return None
        # Two clocks are never read at once, so that more digits would change all the time.
        return round(self._clock() - self(), 1)

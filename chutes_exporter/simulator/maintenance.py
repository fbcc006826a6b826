"""Maintenance windows of TEE servers, and when each server is upgraded.

A window opens every ten days and is announced two days before. The API shows the newest one, whether it is to come,
open or over. The servers of a miner are upgraded one after another. Some miss a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chutes_exporter.simulator.times import DAY, HOUR, make_random

SLOTS: Final = 1
"""Servers of a miner that may be upgraded at once."""
OLDEST_TARGET: Final = "1.3.1"
"""The target before the first window of a world."""
_PERIOD: Final = 10 * DAY
_LENGTH: Final = 4 * DAY
_ANNOUNCED: Final = 2 * DAY
_LONGEST_TURN: Final = 12 * HOUR
_MISSED: Final = 0.1
_PLANNED: Final = 10


@dataclass(frozen=True)
class Window:
    """A time in which TEE servers are upgraded. The windows of a world are counted from 0."""

    number: int
    opens_at: float

    @property
    def closes_at(self) -> float:
        """Unix time at which it is over."""
        return self.opens_at + _LENGTH

    @property
    def target(self) -> str:
        """The version that servers are upgraded to."""
        return f"1.{4 + self.number}.0" if self.number >= 0 else OLDEST_TARGET

    def is_open(self, now: float) -> bool:
        """Return whether servers can be upgraded now."""
        return self.opens_at <= now <= self.closes_at


@dataclass(frozen=True)
class Upgrade:
    """The upgrade of a server: it takes a slot, which deletes its instances, and later boots with the target."""

    target: str
    begins_at: float
    ends_at: float


def newest_window(first: float, now: float) -> Window | None:
    """Return the newest window that has been announced, or None before. The first window opens at a Unix time."""
    number = int((now + _ANNOUNCED - first) // _PERIOD)
    return Window(number, first + number * _PERIOD) if number >= 0 else None


def plan_upgrades(first: float, seed: str, number: int, count: int) -> tuple[Upgrade, ...]:
    """Return the upgrades of the server with a number among its miner's, oldest first."""
    turn = min(_LONGEST_TURN, _LENGTH / count)
    upgrades = []
    for window in (Window(number, first + number * _PERIOD) for number in range(_PLANNED)):
        draw = make_random(seed, number, window.number)
        begins = window.opens_at + (number + draw.uniform(0, 0.2)) * turn
        if draw.random() >= _MISSED:
            upgrades.append(Upgrade(window.target, begins, begins + draw.uniform(0.05, 0.2) * turn))
    return tuple(upgrades)


def is_older(version: str, other: str) -> bool:
    """Return whether a version is older than another."""
    return tuple(map(int, version.split("."))) < tuple(map(int, other.split(".")))
